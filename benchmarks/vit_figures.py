"""The vision transformer figures of docs/outlier-suppression.md, with and without suppression.

The network of recipes/train_vit.py is calibrated on 256 training images and judged on tests A and B
of cifar_sets.py: accuracy, agreement with the float model, squared error of the logits over their
variance. Every weight and activation has the width of its column.

    python benchmarks/vit_figures.py --columns w6a6 w4a4
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import cifar_sets
import numpy as np
import torch
from outlier_figures import METHODS

from roadworthy.compress.engine import Run
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.metrics import accuracy
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.core.runs import write_atomically
from roadworthy.judging import against_float
from roadworthy.requests import parse_bits

MODEL = "py:recipes/train_vit.py:network@out/vit-cifar10/model.safetensors"
CHOSEN = (
    *("minmax", "mse", "clip", "migrate-clip", "outlier-suppression"),
    *("outlier-suppression-plus", "smoothquant", "smoothquant-1"),
)


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    x, y = (
        torch.from_numpy(np.concatenate(pair))
        for pair in zip(cifar_sets.test_a(), cifar_sets.test_b(), strict=True)
    )
    shown = torch.from_numpy(cifar_sets.calibration()[0])
    graph = capture(load_model(given.model).module, x[:1])
    wanted = in_batches(graph, x)
    print(f"float {100 * accuracy(wanted, y):.2f} % right of {len(y)}\n")
    print(f"| method | {' | '.join(given.columns)} |\n|{'---|' * (len(given.columns) + 1)}")
    for name in given.methods:
        told: list[str] = []
        for column in given.columns:
            cells: list[dict[str, float]] = []
            for seed in given.seeds:
                path = given.out / f"{name}-{column}-{seed}.json"
                if not path.is_file():
                    rows = torch.randperm(len(shown), generator=torch.manual_seed(seed))
                    bits, cpu = parse_bits(column), time.process_time()
                    plan = Plan(METHODS[name](*bits), ACADEMIC, Widths(*bits, ()))
                    done = compress(graph, shown[rows[: given.images]], plan, Run(seed))
                    cost = time.process_time() - cpu
                    said = in_batches(done.module, x)
                    cell = {"accuracy": accuracy(said, y), **against_float(wanted, said)}
                    with write_atomically(path) as temporary:
                        temporary.write_text(json.dumps({**cell, "cpu": cost}))
                cells.append(json.loads(path.read_text()))
            told.append(summary(cells))
        print(f"| {name} | {' | '.join(told)} |", flush=True)


def summary(cells: list[dict[str, float]]) -> str:
    """Mean over seeds: accuracy / agreement / logit error, spread of the accuracy, CPU seconds."""
    right, same, error, cpu = (
        [cell[key] for cell in cells] for key in ("accuracy", "agreement", "logit_error", "cpu")
    )
    mean = statistics.fmean
    return (
        f"{100 * mean(right):.1f} / {100 * mean(same):.1f} / {mean(error):.3f} "
        f"({100 * statistics.pstdev(right):.1f}; {mean(cpu):.0f} s)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(CHOSEN))
    parser.add_argument("--columns", nargs="+", default=["w6a6", "w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("out/vit-figures"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
