"""What every text peer shares: tokens in, logits out, and the size of what the tool wrote.

A script calls `answer(quantize)`, where `quantize` turns a `Cell` into a `Made`. Calibration texts
come one by one, so no tool sees padding; judged are 64 of about equal length together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from _cell import Cell, Numbers, print_cell, timed

NAMES = ("input_ids", "attention_mask", "token_type_ids")
Tokens = dict[str, np.ndarray]


@dataclass(frozen=True)
class Made:
    """A quantized model: tokens [b t] to logits [b k], and its size in MiB."""

    predict: Callable[[Tokens], np.ndarray]
    mebibytes: float


def tokens(rows: np.ndarray) -> Tokens:
    """Ids, mask and types [b 3 t] without what is padding in all texts."""
    length = int(rows[:, 1].sum(1).max())
    return dict(zip(NAMES, rows[:, :, :length].transpose(1, 0, 2), strict=True))


def calibration(cell: Cell) -> list[Tokens]:
    """The 256 texts of the cell's seed, one by one."""
    return [tokens(row[None]) for row in cell.array(f"cal{cell.seed}")]


def onnx_made(path: Path) -> Made:
    """A model file on onnxruntime as it comes: what its user gets."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    asked = [each.name for each in session.get_inputs()]

    def predict(given: Tokens) -> np.ndarray:
        if asked == ["tokens"]:
            given = {"tokens": np.stack([given[name] for name in NAMES], 1)}
        return session.run(None, {name: given[name] for name in asked})[0]

    return Made(predict, path.stat().st_size / 2**20)


def hf_model(cell: Cell):
    """The fine-tuned model as its library loads it."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(cell.work / "model").eval()


def torch_made(module, mebibytes: float) -> Made:
    """A module that takes ids, mask and types by position."""
    import torch

    def predict(given: Tokens) -> np.ndarray:
        with torch.no_grad():
            return module(*(torch.from_numpy(given[name]) for name in NAMES)).numpy()

    return Made(predict, mebibytes)


def judge(quantize: Callable[[Cell], Made], cell: Cell, out: Path) -> Numbers:
    """The cost; logits of the test sentences go to `out`."""
    made, cost = timed(quantize, cell)
    rows = cell.array("test")
    order = rows[:, 1].sum(1).argsort(kind="stable")
    parts = np.split(order, range(64, len(order), 64))
    logits = np.concatenate([made.predict(tokens(rows[part])) for part in parts])
    np.savez_compressed(out, logits=logits[order.argsort()])
    return {**cost, "mebibytes": made.mebibytes}


def answer(quantize: Callable[[Cell], Made], packages: Sequence[str]) -> None:
    """Quantize the text model and judge it as the command line says."""
    print_cell(partial(judge, quantize), packages)
