"""What every peer script shares: the cell it is handed and the one JSON line it answers.

Imported inside a peer's own environment, so numpy is all it may lean on. A script calls
`answer(quantize)`, where `quantize` turns a `Cell` into a function images [n 3 32 32] -> logits
[n 10]. Time and memory are those of `quantize` alone: no imports, no evaluation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[1]

Predict = Callable[[np.ndarray], np.ndarray]
Numbers = dict[str, object]
Made = TypeVar("Made")


class RefusedError(Exception):
    """The tool cannot express this cell; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One tool's method at one pair of bit widths, in the folder that holds model and data."""

    method: str
    weight_bits: int
    act_bits: int
    seed: int
    work: Path
    # Cost of work reused from another cell: added to this one's, as if done here.
    reused: dict[str, float] = field(default_factory=dict)

    @property
    def onnx(self) -> Path:
        return self.work / "model.onnx"

    def array(self, name: str) -> np.ndarray:
        """`cal` [1024 3 32 32], `a` and `b` likewise, `ya` and `yb` [n]: normalised float32."""
        with np.load(self.work / "data.npz") as store:
            return store[name]

    def scratch(self, name: str) -> Path:
        folder = self.work / f"scratch-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        return folder / name


def torch_model():
    """The benchmark's ResNet-20, from the file beside this folder."""
    sys.path.insert(0, str(BENCHMARKS))
    import resnet_cifar

    return resnet_cifar.resnet20()


def torch_predict(module) -> Predict:
    """A torch module as a `Predict`."""
    import torch

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return predict


def onnx_predict(path: Path) -> Predict:
    """A model file on onnxruntime, graph fusions off: what the tool wrote is what is scored."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def classes(predict: Predict, images: np.ndarray, batch: int = 128) -> np.ndarray:
    """Top-1 class of each image [n]."""
    parts = [predict(images[i : i + batch]).argmax(1) for i in range(0, len(images), batch)]
    return np.concatenate(parts)


def peak_megabytes() -> float:
    """Peak resident memory; not rusage's on Linux, which counts the parent's before exec."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def timed(quantize: Callable[[Cell], Made], cell: Cell) -> tuple[Made, dict[str, float]]:
    """What `quantize` makes of the cell, and its cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = quantize(cell)
    cost = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }
    cost = {name: spent + cell.reused.get(name, 0.0) for name, spent in cost.items()}
    cost["peak_mb"] = max(peak_megabytes(), cell.reused.get("peak_mb", 0.0))
    return made, cost


def measure(quantize: Callable[[Cell], Predict], cell: Cell, out: Path) -> Numbers:
    """Top-1 of tests A and B, their classes in `out`, and the cost."""
    predict, cost = timed(quantize, cell)
    found = {name: classes(predict, cell.array(name)) for name in ("a", "b")}
    np.savez_compressed(out, **found)
    scores = {n: float((p == cell.array("y" + n)).mean() * 100) for n, p in found.items()}
    return {**scores, **cost}


def answer(quantize: Callable[[Cell], Predict], *packages: str) -> None:
    """Quantize and judge an image classifier as the command line says."""
    print_cell({"judge": partial(measure, quantize)}, packages)


def print_cell(ways: dict[str, Callable[[Cell, Path], Numbers]], packages: Iterable[str]) -> None:
    """Run the cell named on the command line and print its JSON line, the last on stdout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--do", choices=ways, default="judge")
    parser.add_argument("--method", required=True)
    parser.add_argument("--weight-bits", type=int, required=True)
    parser.add_argument("--act-bits", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    given = parser.parse_args()
    # One core for everyone: runtimes with thread pools of their own do not read OMP_NUM_THREADS.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cell = Cell(given.method, given.weight_bits, given.act_bits, given.seed, given.work)
    try:
        result = ways[given.do](cell, given.predictions)
    except RefusedError as reason:
        result = {"refuses": str(reason)}
    result["versions"] = {name: importlib.metadata.version(name) for name in packages}
    print("\n" + json.dumps(result), flush=True)
