"""nncf's post-training quantization of a transformer: model type TRANSFORMER, in which SmoothQuant
runs at its own alpha (.95), preset MIXED, fast bias correction, scored on OpenVINO."""

from __future__ import annotations

import nncf
import numpy as np
import openvino as ov
from _cell import Cell, RefusedError
from _texts import Made, Tokens, answer, calibration


def quantize(cell: Cell) -> Made:
    if (cell.weight_bits, cell.act_bits) != (8, 8):
        raise RefusedError("no CPU target takes fewer bits")
    texts = calibration(cell)
    made = nncf.quantize(
        ov.Core().read_model(cell.onnx),
        nncf.Dataset(texts),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
    )
    out = cell.scratch("quantized.xml")
    ov.save_model(made, out, compress_to_fp16=False)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(out, "CPU", settings)

    def predict(given: Tokens) -> np.ndarray:
        return compiled(given)[0].copy()

    return Made(predict, out.with_suffix(".bin").stat().st_size / 2**20)


if __name__ == "__main__":
    answer(quantize, ("nncf", "openvino"))
