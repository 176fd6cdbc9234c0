"""roadworthy itself, by name: `mse` calibrates only, the others reconstruct.

`qdrop` and `qdrop-plus` take 1000 steps per unit, what the public QDrop code was measured with.
"""

from __future__ import annotations

import torch
from _cell import Cell, Predict, answer, torch_model, torch_predict

import roadworthy
from roadworthy.compress.methods import with_iterations

STEPS = 1000
METHODS = {
    "mse": roadworthy.Mse,
    "qdrop": roadworthy.QDrop,
    "qdrop-plus": roadworthy.QDropPlus,
}


def quantize(cell: Cell) -> Predict:
    method = METHODS[cell.method](cell.weight_bits, cell.act_bits)
    method = with_iterations(method, STEPS)
    images = torch.from_numpy(cell.array("cal"))
    made = roadworthy.quantize(
        torch_model(), images, method, backend_name="academic", seed=cell.seed
    )
    return torch_predict(made.module)


if __name__ == "__main__":
    answer(quantize, "roadworthy", "torch")
