"""torchao's int8 on the linear layers: `dynamic` scales per token and output channel;
`pt2e-x86` static ranges by histogram (X86 inductor quantizer). Embeddings stay in floating point.
Weights of `pt2e-x86` become integers in its compiler only: its size is that of floats."""

from __future__ import annotations

import torch
from _cell import Cell, RefusedError
from _texts import NAMES, Made, answer, calibration, hf_model, torch_made
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)


class Logits(torch.nn.Module):
    """The classifier's tensor alone, tokens by position."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits


def saved(cell: Cell, module: torch.nn.Module) -> float:
    """MiB of the module's saved tensors."""
    path = cell.scratch("quantized.pt")
    torch.save(module.state_dict(), path)
    return path.stat().st_size / 2**20


def static(cell: Cell, model: torch.nn.Module) -> torch.nn.Module:
    texts = [tuple(torch.from_numpy(t[name]) for name in NAMES) for t in calibration(cell)]
    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in NAMES)
    sizes = {0: torch.export.Dim("batch", max=256), 1: torch.export.Dim("tokens", max=128)}
    exported = torch.export.export(model, example, dynamic_shapes=(sizes,) * 3).module()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for text in texts:
            prepared(*text)
    return move_exported_model_to_eval(convert_pt2e(prepared))


def quantize(cell: Cell) -> Made:
    if (cell.weight_bits, cell.act_bits) != (8, 8):
        raise RefusedError("int8 activations only")
    model = Logits(hf_model(cell))
    if cell.method == "dynamic":
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    else:
        model = static(cell, model)
    return torch_made(model, saved(cell, model))


if __name__ == "__main__":
    answer(quantize, ("torchao", "torch", "transformers"))
