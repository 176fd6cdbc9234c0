"""neural-compressor's static int8 of its current release, its defaults: torchao's PT2E with the X86
inductor quantizer. Its SmoothQuant imports intel_extension_for_pytorch, which is no longer made."""

from __future__ import annotations

from pathlib import Path

import torch
from _cell import Cell
from _texts import answer
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare
from peer_text_torchao import EXAMPLE, Logits, compiled, exported, load, shown, sizes


def quantize(cell: Cell, folder: Path) -> None:
    model = export(Logits(cell), EXAMPLE, dynamic_shapes=sizes())
    prepared = prepare(model, StaticQuantConfig(), example_inputs=EXAMPLE)
    shown(prepared, cell)
    torch.export.save(exported(convert(prepared)), folder / "model.pt2")


if __name__ == "__main__":
    answer(quantize, load, ("neural-compressor-pt", "torchao", "torch"), compiled)
