"""onnxruntime's quantization of a text model: QDQ with signed codes and weights per channel,
its default, and dynamic, which it advises for transformers."""

from __future__ import annotations

from _cell import Cell, RefusedError
from _texts import Made, Tokens, answer, calibration, onnx_made
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

WAYS = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile-99.9": (CalibrationMethod.Percentile, {"CalibPercentile": 99.9}),
}


class Texts(CalibrationDataReader):
    """The calibration texts, one by one."""

    def __init__(self, texts: list[Tokens]) -> None:
        self.feeds = iter(texts)

    def get_next(self) -> Tokens | None:
        return next(self.feeds, None)


def quantize(cell: Cell) -> Made:
    if (cell.weight_bits, cell.act_bits) != (8, 8):
        raise RefusedError("activations at 8 and 16 bit only, its 4-bit weights are weights alone")
    ready, out = cell.scratch("ready.onnx"), cell.scratch("quantized.onnx")
    # Its symbolic shapes stop at what torch exports; the fusions do not need them.
    quant_pre_process(str(cell.onnx), str(ready), skip_symbolic_shape=True)
    if cell.method == "dynamic":
        quantize_dynamic(ready, out, per_channel=True, weight_type=QuantType.QInt8)
        return onnx_made(out)
    method, options = WAYS[cell.method]
    quantize_static(
        ready,
        out,
        Texts(calibration(cell)),
        per_channel=True,
        calibrate_method=method,
        extra_options=options,
    )
    return onnx_made(out)


if __name__ == "__main__":
    answer(quantize, ("onnxruntime", "onnx"))
