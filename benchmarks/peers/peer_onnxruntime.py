"""onnxruntime's static quantization: weights per channel and symmetric, activations unsigned."""

from __future__ import annotations

import numpy as np
import onnx
from _cell import Cell, Predict, RefusedError, answer, onnx_predict
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

WEIGHTS = {8: QuantType.QInt8, 4: QuantType.QInt4}
ACTIVATIONS = {8: QuantType.QUInt8, 4: QuantType.QUInt4}


class Batches(CalibrationDataReader):
    """The calibration images, 128 at a time."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.feeds = iter([{name: images[i : i + 128]} for i in range(0, len(images), 128)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def eight_bit_ends(graph: onnx.GraphProto) -> dict[str, list[dict[str, QuantType]]]:
    """Overrides that keep the image, the first and last weights, the last input and logits at 8."""
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    first, last = layers[0], layers[-1]
    weights = {n.input[1]: [{"quant_type": QuantType.QInt8, "axis": 0}] for n in (first, last)}
    acts = (first.input[0], last.input[0], last.output[0])
    return weights | {name: [{"quant_type": QuantType.QUInt8}] for name in acts}


def quantize(cell: Cell) -> Predict:
    if cell.weight_bits not in WEIGHTS or cell.act_bits not in ACTIVATIONS:
        raise RefusedError("quantizes to 8 and 4 bit only")
    ready, out = cell.scratch("ready.onnx"), cell.scratch("quantized.onnx")
    quant_pre_process(str(cell.onnx), str(ready))
    graph = onnx.load(ready).graph
    options = {"ActivationSymmetric": False, "WeightSymmetric": True}
    method = CalibrationMethod.MinMax
    if cell.method == "percentile-99.9":
        method = CalibrationMethod.Percentile
        options["CalibPercentile"] = 99.9
    if (cell.weight_bits, cell.act_bits) != (8, 8):
        options["TensorQuantOverrides"] = eight_bit_ends(graph)
    quantize_static(
        ready,
        out,
        Batches(graph.input[0].name, cell.array("cal")),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=ACTIVATIONS[cell.act_bits],
        weight_type=WEIGHTS[cell.weight_bits],
        calibrate_method=method,
        extra_options=options,
    )
    return onnx_predict(out)


if __name__ == "__main__":
    answer(quantize, "onnxruntime", "onnx")
