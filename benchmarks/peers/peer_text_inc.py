"""neural-compressor: SmoothQuant (alpha .5) and static int8 as its current release has them."""

from __future__ import annotations

import torch
from _cell import Cell, RefusedError
from _texts import NAMES, Made, answer, calibration, torch_made
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import (
    SmoothQuantConfig,
    StaticQuantConfig,
    convert,
    prepare,
)
from peer_text_torchao import Logits, hf_model, saved


def quantize(cell: Cell) -> Made:
    if (cell.weight_bits, cell.act_bits) != (8, 8):
        raise RefusedError("int8 only")
    texts = [tuple(torch.from_numpy(t[name]) for name in NAMES) for t in calibration(cell)]
    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in NAMES)
    model = Logits(hf_model(cell))
    if cell.method == "smoothquant":
        config = SmoothQuantConfig(alpha=0.5)
    else:
        config = StaticQuantConfig()
        sizes = {0: torch.export.Dim("batch", max=256), 1: torch.export.Dim("tokens", max=128)}
        model = export(model, example, dynamic_shapes=(sizes,) * 3)
    prepared = prepare(model, config, example_inputs=example)
    with torch.no_grad():
        for text in texts:
            prepared(*text)
    made = convert(prepared)
    return torch_made(made, saved(cell, made))


if __name__ == "__main__":
    answer(quantize, ("neural-compressor-pt", "torch"))
