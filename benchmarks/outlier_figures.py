"""The text figures of docs/outlier-suppression.md: methods, widths and calibration seeds.

A model fine-tuned by recipes/finetune_text.py is calibrated on texts of its training set and judged
on the 872 labelled SST-2 sentences, or on other classes by --train and --test: accuracy, agreement
with the float model, squared error of the logits over their variance. Every weight, embedding and
activation has the width of its column (no layer is kept at 8 bits). --inflate 5 first gives 4
random channels of every norm outliers of 5 times their size without changing the function: what big
models have by training.

    python benchmarks/outlier_figures.py --model hf:out/minilm-sst2 --columns w6a6 w4a4
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, fx

from roadworthy.compress.engine import Run
from roadworthy.compress.methods import (
    Method,
    MinMax,
    Mse,
    OutlierSuppression,
    OutlierSuppressionPlus,
    QDropPlus,
    SmoothQuant,
    fine_stage,
    with_iterations,
)
from roadworthy.compress.migrate import migrate
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.suppress import GammaMigration, ShiftScale, Smooth, Suppress
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.metrics import accuracy
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.core.progress import track
from roadworthy.core.runs import write_atomically
from roadworthy.judging import against_float
from roadworthy.requests import parse_bits

aten = torch.ops.aten
OUTLIERS = 4
Cells = dict[tuple[str, str], list[dict[str, float]]]
"""By method and width the numbers of each seed."""


@dataclass(frozen=True)
class Cell:
    """What is measured: a method's name, bits of weights and activations, a calibration seed."""

    name: str
    bits: tuple[int, int]
    seed: int


Quantize = Callable[[fx.GraphModule, Tensor, Cell], fx.GraphModule]
"""From a captured model and calibration samples to integers."""


def _behind(suppress: Suppress) -> Callable[[int, int], Method]:
    """Reconstruction layer by layer behind `suppress`."""
    return lambda w, a: replace(with_iterations(QDropPlus(w, a), 250), suppress=suppress)


METHODS: dict[str, Callable[[int, int], Method]] = {
    "minmax": lambda w, a: MinMax(w, a, weight_range="minmax" if w > 4 else "mse"),
    "mse": Mse,
    "mse-2": lambda w, a: Mse(w, a, act_exponent=2.0),
    "migrate-mse-2": lambda w, a: Mse(w, a, suppress=GammaMigration(), act_exponent=2.0),
    "clip": lambda w, a: OutlierSuppression(w, a, suppress=None, passes=()),
    "migrate-clip": lambda w, a: OutlierSuppression(w, a, passes=()),
    "outlier-suppression": OutlierSuppression,
    "faster-fine": lambda w, a: OutlierSuppression(w, a, passes=(fine_stage(3e-3, True, 72),)),
    "outlier-suppression-plus": OutlierSuppressionPlus,
    "smoothquant": SmoothQuant,
    "smoothquant-1": lambda w, a: SmoothQuant(w, a, suppress=Smooth(1.0)),
    "suppressed-qdrop-plus": _behind(Smooth(1.0)),
    "shifted-qdrop-plus": _behind(ShiftScale()),
}


def main() -> None:
    study(arguments(list(METHODS)), quantized)


def quantized(graph: fx.GraphModule, samples: Tensor, cell: Cell) -> fx.GraphModule:
    """By the method of that name, one width for everything."""
    plan = Plan(METHODS[cell.name](*cell.bits), ACADEMIC, Widths(*cell.bits, ()))
    return compress(graph, samples, plan, Run(cell.seed)).module


def study(given: argparse.Namespace, how: Quantize) -> None:
    """Measure what was asked for and print the table."""
    torch.set_num_threads(given.threads)
    loaded = load_model(given.model)
    assert loaded.texts is not None
    train, test = load_data(given.train or sst2("train")), load_data(given.test or sst2("test"))
    x, y = load_tensor(test, loaded.texts)
    graph = capture(loaded.module, x[:1])
    wanted = in_batches(graph, x)
    if given.inflate != 1:
        inflate(graph, given.inflate)
        moved = float((in_batches(graph, x) - wanted).abs().max())
        print(f"outliers of {given.inflate}: float differs by {moved:.1e}")

    def shown(seed: int) -> Tensor:
        return load_tensor(train.subset(given.texts, seed, stratified=False), loaded.texts)[0]

    def judged(module: fx.GraphModule) -> dict[str, float]:
        said = in_batches(module, x)
        return {"accuracy": accuracy(said, y), **against_float(wanted, said)}

    found = measured(given, graph, shown, judged, f"-{given.inflate}", how)
    right = accuracy(wanted, y)
    error = 100 * math.sqrt(right * (1 - right) / len(y))
    print(f"float {100 * right:.2f} % of {len(y)} right, standard error {error:.1f}\n")
    print(table(given, found, summary))


def sst2(part: str) -> str:
    """The texts of a part of SST-2."""
    return f"text:{os.environ['ROADWORTHY_DATA']}/sst2/{part}.tsv?text=sentence&label=label"


def measured(
    given: argparse.Namespace,
    graph: fx.GraphModule,
    shown: Callable[[int], Tensor],
    judged: Callable[[fx.GraphModule], dict[str, float]],
    suffix: str = "",
    how: Quantize = quantized,
) -> Cells:
    """Quantize by every method, width and seed asked for; finished cells are kept in ``--out``.

    `shown` gives the calibration samples of a seed, `judged` the numbers of a cell.
    """
    found: Cells = {}
    for name, column, seed in track(
        list(product(given.methods, given.columns, given.seeds)), "cells"
    ):
        path = given.out / f"{name}-{column}{suffix}-{seed}.json"
        if not path.is_file():
            given.out.mkdir(parents=True, exist_ok=True)
            samples, cpu = shown(seed), time.process_time()
            done = how(graph, samples, Cell(name, parse_bits(column), seed))
            cost = time.process_time() - cpu
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps({**judged(done), "cpu": cost}))
            print(f"{name} {column} {seed}: {path.read_text()}", flush=True)
        found.setdefault((name, column), []).append(json.loads(path.read_text()))
    return found


@torch.no_grad()
def inflate(graph: fx.GraphModule, factor: float) -> None:
    """The same function with channels `factor` times as large behind every norm that migrates."""
    random = torch.Generator().manual_seed(0)
    gains: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        if node.target is aten.layer_norm.default:
            width = node.meta["val"].shape[-1]
            gain = torch.ones(width, dtype=torch.float64)
            gain[torch.randperm(width, generator=random)[:OUTLIERS]] = 1 / factor
            gains[str(node.args[2].target)] = gain
    migrate(graph, gains)


def table(
    given: argparse.Namespace, found: Cells, summary: Callable[[list[dict[str, float]]], str]
) -> str:
    """A line a method, a column a width, the seeds of a cell summed up."""
    lines = [
        "| method | " + " | ".join(given.columns) + " |",
        "|---" * (len(given.columns) + 1) + "|",
    ]
    for name in given.methods:
        cells = [summary(found[name, column]) for column in given.columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(cells: list[dict[str, float]]) -> str:
    """Mean over seeds: accuracy / agreement / logit error, spread of the accuracy, CPU seconds."""
    right, same = ([100 * cell[key] for cell in cells] for key in ("accuracy", "agreement"))
    error, cpu = ([cell[key] for cell in cells] for key in ("logit_error", "cpu"))
    mean = statistics.fmean
    return (
        f"{mean(right):.1f} / {mean(same):.1f} / {mean(error):.3f} "
        f"({statistics.pstdev(right):.1f}; {mean(cpu):.0f} s)"
    )


def arguments(methods: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hf:out/minilm-sst2")
    parser.add_argument("--train", metavar="SPEC", help="calibration texts (SST-2's)")
    parser.add_argument("--test", metavar="SPEC", help="labelled texts (SST-2's 872)")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6", "w4a8", "w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--inflate", type=float, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/outliers"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
