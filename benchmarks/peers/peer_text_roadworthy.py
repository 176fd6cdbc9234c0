"""roadworthy's text methods as the command line applies them: embeddings and the classifier at 8
bits, scored on the exported file."""

from __future__ import annotations

import sys

import torch
from _cell import BENCHMARKS, Cell
from _texts import Made, answer, onnx_made

import roadworthy


def quantize(cell: Cell) -> Made:
    sys.path.insert(0, str(BENCHMARKS))
    from outlier_figures import METHODS

    method = METHODS[cell.method](cell.weight_bits, cell.act_bits)
    made = roadworthy.quantize(
        f"hf:{cell.work / 'model'}",
        torch.from_numpy(cell.array(f"cal{cell.seed}")),
        method,
        seed=cell.seed,
    )
    path = cell.scratch("model.onnx")
    made.export(path)
    return onnx_made(path)


if __name__ == "__main__":
    answer(quantize, ("roadworthy", "torch"))
