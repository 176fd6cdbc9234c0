"""The text figures of docs/outlier-suppression.md: methods, widths and calibration seeds.

A model fine-tuned by recipes/finetune_text.py is calibrated on texts of its training set and judged
on the 872 labelled SST-2 sentences: accuracy, agreement with the float model, squared error of the
logits over their variance. Every weight, embedding and activation has the width of its column (no
layer is kept at 8 bits). --inflate 5 first gives 4 random channels of every norm outliers of 5
times their size without changing the function: what big models have by training.

    python benchmarks/outlier_figures.py --model hf:out/minilm-sst2 --columns w6a6 w4a4
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
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
from roadworthy.compress.suppress import GammaMigration, Smooth
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


def _ours(weights: int, acts: int) -> Method:
    """Reconstruction layer by layer behind the smoothing."""
    return replace(with_iterations(QDropPlus(weights, acts), 250), suppress=Smooth(1.0))


METHODS: dict[str, Callable[[int, int], Method]] = {
    "minmax": lambda w, a: MinMax(w, a, weight_range="minmax" if w > 4 else "mse"),
    "mse": Mse,
    "migrate-mse-2": lambda w, a: Mse(w, a, suppress=GammaMigration(), act_exponent=2.0),
    "clip": lambda w, a: OutlierSuppression(w, a, suppress=None, passes=()),
    "migrate-clip": lambda w, a: OutlierSuppression(w, a, passes=()),
    "outlier-suppression": OutlierSuppression,
    "faster-fine": lambda w, a: OutlierSuppression(w, a, passes=(fine_stage(3e-3, True, 72),)),
    "outlier-suppression-plus": OutlierSuppressionPlus,
    "smoothquant": SmoothQuant,
    "smoothquant-1": lambda w, a: SmoothQuant(w, a, suppress=Smooth(1.0)),
    "suppressed-qdrop-plus": _ours,
}


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    loaded = load_model(given.model)
    assert loaded.texts is not None
    root = os.environ["ROADWORTHY_DATA"]
    train, test = (
        load_data(f"text:{root}/sst2/{part}.tsv?text=sentence&label=label")
        for part in ("train", "test")
    )
    x, y = load_tensor(test, loaded.texts)
    graph = capture(loaded.module, x[:1])
    wanted = in_batches(graph, x)
    if given.inflate != 1:
        inflate(graph, given.inflate)
        moved = float((in_batches(graph, x) - wanted).abs().max())
        print(f"outliers of {given.inflate}: float differs by {moved:.1e}")
    cells = [(c, m, s) for c in given.columns for m in given.methods for s in given.seeds]
    for column, name, seed in track(cells, "cells"):
        path = given.out / f"{name}-{column}-{given.inflate}-{seed}.json"
        if path.is_file():
            continue
        few = train.subset(given.texts, seed, stratified=False)
        shown, _ = load_tensor(few, loaded.texts)
        bits = parse_bits(column)
        cpu = time.process_time()
        done = compress(
            graph, shown, Plan(METHODS[name](*bits), ACADEMIC, Widths(*bits, ())), Run(seed)
        )
        cost = time.process_time() - cpu
        said = in_batches(done.module, x)
        cell = {"accuracy": accuracy(said, y), **against_float(wanted, said), "cpu": cost}
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(cell))
        print(f"{name} {column} {seed}: {cell}", flush=True)
    print(f"float {100 * accuracy(wanted, y):.2f} % right\n\n{table(given)}")


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


def table(given: argparse.Namespace) -> str:
    lines = [
        "| method | " + " | ".join(given.columns) + " |",
        "|---" * (len(given.columns) + 1) + "|",
    ]
    for name in given.methods:
        cells = [summary(given, name, column) for column in given.columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(given: argparse.Namespace, name: str, column: str) -> str:
    """Mean over seeds: accuracy / agreement / logit error, spread of the accuracy, CPU seconds."""
    paths = [given.out / f"{name}-{column}-{given.inflate}-{seed}.json" for seed in given.seeds]
    found = [json.loads(path.read_text()) for path in paths]
    right, same = ([100 * cell[key] for cell in found] for key in ("accuracy", "agreement"))
    error, cpu = ([cell[key] for cell in found] for key in ("logit_error", "cpu"))
    mean = statistics.fmean
    return (
        f"{mean(right):.1f} / {mean(same):.1f} / {mean(error):.3f} "
        f"({statistics.pstdev(right):.1f}; {mean(cpu):.0f} s)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hf:out/minilm-sst2")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6", "w4a8", "w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--inflate", type=float, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/outliers"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
