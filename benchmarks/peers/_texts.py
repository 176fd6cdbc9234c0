"""What every text peer shares: tokens in, logits out, and the folder of what a tool deploys.

A script calls `answer(quantize, load)`: `quantize` turns a `Cell` into files in a folder, `load`
runs them. What is judged, weighed and timed is what `load` finds there; a tool that compiles has a
`fast` way to load, for the race alone. Calibration texts come one by one, so no tool sees padding;
judged are 64 of about equal length together.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from _cell import Cell, Numbers, print_cell, timed

NAMES = ("input_ids", "attention_mask", "token_type_ids")
TOKENS, ROUNDS = 128, 40
Tokens = dict[str, np.ndarray]
Predict = Callable[[Tokens], np.ndarray]
Quantize = Callable[[Cell, Path], None]
Load = Callable[[Path], Predict]


def tokens(rows: np.ndarray) -> Tokens:
    """Ids, mask and types [b 3 t] without what is padding in all texts."""
    length = int(rows[:, 1].sum(1).max())
    return dict(zip(NAMES, rows[:, :, :length].transpose(1, 0, 2), strict=True))


def calibration(cell: Cell) -> list[Tokens]:
    """The 256 texts of the cell's seed, one by one."""
    return [tokens(row[None]) for row in cell.array(f"cal{cell.seed}")]


def onnx_load(path: Path) -> Predict:
    """A model file, or the one in a folder, on onnxruntime as it comes: what its user gets."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    file = path / "model.onnx" if path.is_dir() else path
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    asked = [each.name for each in session.get_inputs()]

    def predict(given: Tokens) -> np.ndarray:
        if asked == ["tokens"]:
            given = {"tokens": np.stack([given[name] for name in NAMES], 1)}
        return session.run(None, {name: given[name] for name in asked})[0]

    return predict


def torch_predict(module) -> Predict:
    """What takes ids, mask and types by position."""
    import torch

    def predict(given: Tokens) -> np.ndarray:
        with torch.no_grad():
            return module(*(torch.from_numpy(given[name]) for name in NAMES)).numpy()

    return predict


def kept(cell: Cell, out: Path) -> Path:
    """The cell's folder."""
    return cell.work / "made" / out.stem


def judge(quantize: Quantize, load: Load, cell: Cell, out: Path) -> Numbers:
    """Cost of quantizing and size; logits of the test sentences go to `out`."""
    folder = kept(cell, out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _, cost = timed(partial(quantize, folder=folder), cell)
    predict = load(folder)
    rows = cell.array("test")
    order = rows[:, 1].sum(1).argsort(kind="stable")
    parts = np.split(order, range(64, len(order), 64))
    logits = np.concatenate([predict(tokens(rows[part])) for part in parts])
    np.savez_compressed(out, logits=logits[order.argsort()])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {**cost, "mebibytes": size / 2**20}


def seconds(predict: Predict, given: Tokens) -> float:
    start = time.perf_counter()
    predict(given)
    return time.perf_counter() - start


def race(load: Load, fast: Load | None, cell: Cell, out: Path) -> Numbers:
    """Milliseconds of the cell's model and of onnxruntime's float file, in turns on one text, the
    test sentences' first tokens. `drift`: what compiling changes, as squared error of the logits
    over their variance on `ROUNDS` such texts."""
    rows = cell.array("test")
    ids = rows[:, 0][rows[:, 1] == 1][: ROUNDS * TOKENS].reshape(ROUNDS, 1, TOKENS)
    texts = [dict(zip(NAMES, (i, np.ones_like(i), np.zeros_like(i)), strict=True)) for i in ids]
    runs = ((fast or load)(kept(cell, out)), onnx_load(cell.onnx))
    for run in runs:
        run(texts[0])
    rounds = np.array([[seconds(run, texts[0]) for run in runs] for _ in range(ROUNDS)])
    milliseconds = 1e3 * np.median(rounds, axis=0)
    found: Numbers = {"ms": float(milliseconds[0]), "fp32_ms": float(milliseconds[1])}
    if fast:
        plain, quick = (
            np.concatenate([run(text) for text in texts])
            for run in (load(kept(cell, out)), runs[0])
        )
        found["drift"] = float(np.square(plain - quick).mean() / plain.var())
    return found


def answer(
    quantize: Quantize, load: Load, packages: Sequence[str], fast: Load | None = None
) -> None:
    """Quantize and judge the text model, or time what was made, as the command line says."""
    ways = {"judge": partial(judge, quantize, load), "race": partial(race, load, fast)}
    print_cell(ways, packages)
