"""The CIFAR figures of docs/qdrop.md: every method, width and seed on one protocol.

Calibration and tests are those of cifar_sets.py, first and last layer are at 8 bit. Every model is
written to ONNX, and the answers are those of onnxruntime; `parity` is the lowest agreement of the
column's files with the simulation on the calibration images. Finished cells are kept in --out, so a
killed run goes on; several processes may share it when they work on different columns.

    python benchmarks/resnet_figures.py --methods qdrop qdrop-plus --columns w2a2 --seeds 0 1 2
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cifar_sets
import torch
from resnet_cifar import resnet20, resnet56

from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Method
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.metrics import mcnemar, paired_bootstrap
from roadworthy.core.predict import predict
from roadworthy.core.progress import track
from roadworthy.core.runs import peak_memory_mb, write_atomically
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.journey import PARITY_IMAGES, QuantizedModel, method_of
from roadworthy.requests import Solver, parse_bits

MODELS = {"resnet20": resnet20, "resnet56": resnet56}


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    sets = image_sets()
    cells = [(m, c, s) for c in given.columns for m in given.methods for s in given.seeds]
    for method, column, seed in track(cells, "cells"):
        path = given.out / f"{given.model}-{method}-{column}-{steps(given)}-{seed}.json"
        if not path.is_file():
            cell = run(given, method, column, seed, sets)
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps(cell))
    print(table(given, sets))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--methods", nargs="+", default=["qdrop", "qdrop-plus"])
    parser.add_argument("--columns", nargs="+", default=["w4a4", "w3a3", "w2a4", "w2a2"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=None)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/resnet"))
    return parser.parse_args()


def steps(given: argparse.Namespace) -> str:
    return str(given.iterations or given.effort)


def image_sets() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images [n 3 32 32] and labels [n] by name."""
    found = {
        "calibration": cifar_sets.calibration(),
        "A": cifar_sets.test_a(),
        "B": cifar_sets.test_b(),
    }
    return {name: (torch.from_numpy(x), torch.from_numpy(y)) for name, (x, y) in found.items()}


def run(given: argparse.Namespace, method: str, column: str, seed: int, sets: dict) -> dict:
    weight_bits, act_bits = parse_bits(column)
    solver = Solver(method, given.effort, given.iterations)
    settings: Method = method_of(solver, weight_bits, act_bits, len(sets["calibration"][0]))
    images = sets["calibration"][0]
    graph = capture(MODELS[given.model](), images[:1])
    plan = Plan(settings, ACADEMIC, Widths(weight_bits, act_bits))
    cpu, wall = time.process_time(), time.perf_counter()
    module = compress(graph, images, plan, Run(seed)).module
    snap_biases(module)
    cost = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    cost["peak_mb"] = peak_memory_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        facts = QuantizedModel(module, {}, images[:PARITY_IMAGES]).export(path)
        deployed = OrtPredictor(path)
        answers = {
            name: predict(deployed, sets[name][0].split(250)).argmax(1).tolist()
            for name in ("A", "B")
        }
    return {**cost, "parity": facts["parity"]["agreement"], "answers": answers}


def table(given: argparse.Namespace, sets: dict) -> str:
    lines = [
        f"{given.model}, {steps(given)}, seeds {given.seeds}: A / B top-1, mean (sd), CPU s, parity"
    ]
    lines += ["", "| method | " + " | ".join(given.columns) + " |"]
    lines += ["|---" * (len(given.columns) + 1) + "|"]
    for method in given.methods:
        cells = [summary(given, method, column, sets) for column in given.columns]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    if len(given.methods) > 1:
        for method in given.methods[1:]:
            gains = [gain(given, given.methods[0], method, c, sets) for c in given.columns]
            lines.append(f"| {method} over {given.methods[0]} | " + " | ".join(gains) + " |")
    return "\n".join(lines)


def read(given: argparse.Namespace, method: str, column: str) -> list[dict]:
    names = [f"{given.model}-{method}-{column}-{steps(given)}-{s}.json" for s in given.seeds]
    return [json.loads((given.out / name).read_text()) for name in names]


def right(cell: dict, name: str, sets: dict) -> torch.Tensor:
    return torch.tensor(cell["answers"][name]) == sets[name][1]


def summary(given: argparse.Namespace, method: str, column: str, sets: dict) -> str:
    cells = read(given, method, column)
    parts: list[str] = []
    for name in ("A", "B"):
        values = [100 * float(right(cell, name, sets).double().mean()) for cell in cells]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        parts.append(f"{statistics.mean(values):.1f} ({spread:.1f})")
    cpu = statistics.mean(cell["cpu"] for cell in cells)
    parity = 100 * min(cell["parity"] for cell in cells)
    return " / ".join(parts) + f", {cpu:.0f} s, {parity:.1f} %"


def gain(given: argparse.Namespace, before: str, after: str, column: str, sets: dict) -> str:
    """Paired over A and B together and over the seeds."""
    a, b = (
        torch.cat([right(cell, name, sets) for cell in read(given, m, column) for name in "AB"])
        for m in (before, after)
    )
    found = paired_bootstrap(a, b, seed=0)
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.delta:+.2f} [{low:+.2f}, {high:+.2f}], p {mcnemar(a, b):.1g}"


if __name__ == "__main__":
    main()
