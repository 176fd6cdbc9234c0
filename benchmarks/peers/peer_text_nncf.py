"""nncf's post-training quantization of a transformer: model type TRANSFORMER, in which SmoothQuant
runs at its own alpha (.95), preset MIXED, fast bias correction, scored on OpenVINO.

Widths below eight bits exist for its NPU target alone; OpenVINO's CPU computes them in floats."""

from __future__ import annotations

from pathlib import Path

import nncf
import numpy as np
import openvino as ov
from _cell import Cell, RefusedError
from _texts import Predict, Tokens, answer, calibration
from peer_nncf import parameters


def quantize(cell: Cell, folder: Path) -> None:
    texts = calibration(cell)
    target = nncf.TargetDevice.CPU if cell.weight_bits == 8 else nncf.TargetDevice.NPU
    try:
        made = nncf.quantize(
            ov.Core().read_model(cell.onnx),
            nncf.Dataset(texts),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=target,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(texts),
            advanced_parameters=parameters(cell),
        )
    except ValueError as error:
        if "incompatible" not in str(error):
            raise
        raise RefusedError(f"no target takes w{cell.weight_bits}a{cell.act_bits}") from error
    ov.save_model(made, folder / "model.xml", compress_to_fp16=False)


def load(folder: Path) -> Predict:
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(folder / "model.xml", "CPU", settings)

    def predict(given: Tokens) -> np.ndarray:
        return compiled(given)[0].copy()

    return predict


if __name__ == "__main__":
    answer(quantize, load, ("nncf", "openvino"))
