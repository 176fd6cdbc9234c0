"""torchao's PT2E: histogram observers, weights per channel and symmetric, the XNNPACK placement."""

from __future__ import annotations

import torch
from _cell import Cell, Predict, answer, torch_model, torch_predict
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.testing.pt2e._xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer_utils import QuantizationConfig


def config(weight_bits: int, act_bits: int) -> QuantizationConfig:
    """Narrower grids as clipped int8 codes, the only way the tool has for them."""
    weight, act = 1 << (weight_bits - 1), 1 << (act_bits - 1)
    return get_symmetric_quantization_config(
        is_per_channel=True,
        act_qmin=-act,
        act_qmax=act - 1,
        # Two bits without the lowest code would be three values.
        weight_qmin=-weight if weight_bits < 8 else -127,
        weight_qmax=weight - 1,
    )


def quantizer(cell: Cell) -> XNNPACKQuantizer:
    ends = config(8, 8)
    made = XNNPACKQuantizer().set_global(config(cell.weight_bits, cell.act_bits))
    return made.set_module_name("conv1", ends).set_module_name("linear", ends)


def quantize(cell: Cell) -> Predict:
    images = torch.from_numpy(cell.array("cal"))
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(
        torch_model(), (images[:8],), dynamic_shapes=({0: batch},)
    ).module()
    prepared = prepare_pt2e(exported, quantizer(cell))
    with torch.no_grad():
        for part in images.split(128):
            prepared(part)
    return torch_predict(move_exported_model_to_eval(convert_pt2e(prepared)))


if __name__ == "__main__":
    answer(quantize, "torchao", "torch")
