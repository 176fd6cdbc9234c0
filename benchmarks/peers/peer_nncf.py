"""nncf's post-training quantization with bias correction, scored on OpenVINO.

Weights symmetric, activations asymmetric (preset MIXED). Four-bit weights exist for the NPU target
alone; it has one width for all layers, and leaving the first and last in float did not raise it.
"""

from __future__ import annotations

import nncf
import numpy as np
import openvino as ov
from _cell import Cell, Predict, RefusedError, answer
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    QuantizationParameters,
)


def parameters(cell: Cell) -> AdvancedQuantizationParameters:
    """The default 8 bit is left unsaid: naming it turns the target's own choices off."""
    weights, acts = (
        QuantizationParameters(num_bits=bits) if bits != 8 else None
        for bits in (cell.weight_bits, cell.act_bits)
    )
    return AdvancedQuantizationParameters(
        weights_quantization_params=weights, activations_quantization_params=acts
    )


def openvino_predict(model: ov.Model) -> Predict:
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    return lambda images: compiled(images)[0].copy()


def quantize(cell: Cell) -> Predict:
    images: np.ndarray = cell.array("cal")
    target = nncf.TargetDevice.CPU if cell.weight_bits == 8 else nncf.TargetDevice.NPU
    try:
        made = nncf.quantize(
            ov.Core().read_model(cell.onnx),
            nncf.Dataset([image[None] for image in images]),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=target,
            subset_size=len(images),
            fast_bias_correction=False,
            advanced_parameters=parameters(cell),
        )
    except ValueError as error:
        if "incompatible" not in str(error):
            raise
        raise RefusedError(f"no target takes w{cell.weight_bits}a{cell.act_bits}") from error
    return openvino_predict(made)


if __name__ == "__main__":
    answer(quantize, "nncf", "openvino")
