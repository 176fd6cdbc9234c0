"""torchao's PT2E: histogram observers, weights per channel and symmetric.

Two of its quantizers place the activations differently: XNNPACK (signed; both sides of each add)
and X86 inductor (unsigned; the inputs of convolutions and linear layers). Narrow grids are clipped
int8 codes, the only way the tool has for them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from _cell import Cell, Predict, answer, torch_model, torch_predict
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import Quantizer
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer_utils import QuantizationConfig


def xnnpack(weight_bits: int, act_bits: int) -> QuantizationConfig:
    weight, act = 1 << (weight_bits - 1), 1 << (act_bits - 1)
    return get_symmetric_quantization_config(
        is_per_channel=True,
        act_qmin=-act,
        act_qmax=act - 1,
        # Two bits without the lowest code would be three values.
        weight_qmin=-weight if weight_bits < 8 else -127,
        weight_qmax=weight - 1,
    )


def x86(weight_bits: int, act_bits: int) -> QuantizationConfig:
    base = get_default_x86_inductor_quantization_config()
    half = 1 << (weight_bits - 1)
    acts = replace(base.input_activation, quant_min=0, quant_max=(1 << act_bits) - 1)
    weight = replace(base.weight, quant_min=-half, quant_max=half - 1)
    return replace(base, input_activation=acts, output_activation=acts, weight=weight)


def quantizer(cell: Cell) -> Quantizer:
    if cell.method == "pt2e-xnnpack":
        made = XNNPACKQuantizer().set_global(xnnpack(cell.weight_bits, cell.act_bits))
        name_ends, ends = made.set_module_name, xnnpack(8, 8)
    else:
        made = X86InductorQuantizer()
        made.set_global(x86(cell.weight_bits, cell.act_bits))
        name_ends, ends = made.set_module_name_qconfig, x86(8, 8)
    for layer in ("conv1", "linear"):
        name_ends(layer, ends)
    return made


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
