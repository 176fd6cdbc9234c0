"""roadworthy's text methods as the command line applies them: embeddings and the classifier at 8
bits, scored on the exported file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from _cell import BENCHMARKS, Cell
from _texts import answer, onnx_load

import roadworthy


def quantize(cell: Cell, folder: Path) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    from outlier_figures import METHODS

    method = METHODS[cell.method](cell.weight_bits, cell.act_bits)
    made = roadworthy.quantize(
        f"hf:{cell.work / 'model'}",
        torch.from_numpy(cell.array(f"cal{cell.seed}")),
        method,
        seed=cell.seed,
    )
    made.export(folder / "model.onnx")


if __name__ == "__main__":
    answer(quantize, onnx_load, ("roadworthy", "torch"))
