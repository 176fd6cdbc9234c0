"""nvidia-modelopt: weights per channel, activations unsigned (every layer input but the image).

`max` is its default calibration. `mse` searches the weight ranges by squared error and takes the
activation ranges from its histograms, at percentile 99.9: their own squared-error choice passes the
bit width in another argument's place (0.47) and always ends at the smallest range.
"""

from __future__ import annotations

import modelopt.torch.quantization as mtq
import torch
from _cell import Cell, Predict, answer, torch_model, torch_predict
from modelopt.torch.quantization.calib import HistogramCalibrator
from modelopt.torch.quantization.nn import TensorQuantizer

ALGORITHMS = {
    "max": "max",
    "mse": {"method": "mse", "start_multiplier": 0.2, "stop_multiplier": 1.0, "step_size": 0.02},
}


def config(cell: Cell) -> dict[str, object]:
    quantizers = {
        "*weight_quantizer": {"num_bits": cell.weight_bits, "axis": 0},
        "*input_quantizer": {"num_bits": cell.act_bits, "unsigned": True},
        "conv1.weight_quantizer": {"num_bits": 8, "axis": 0},
        "conv1.input_quantizer": {"num_bits": 8},
        "linear.weight_quantizer": {"num_bits": 8, "axis": 0},
        "linear.input_quantizer": {"num_bits": 8, "unsigned": True},
    }
    entries = [{"quantizer_name": name, "cfg": cfg} for name, cfg in quantizers.items()]
    off = [{"quantizer_name": name, "enable": False} for name in ("*", "*bn*")]
    return {
        "quant_cfg": [off[0], *entries, off[1]],
        "algorithm": ALGORITHMS[cell.method],
    }


def histogram_ranges(module: torch.nn.Module, images: torch.Tensor) -> None:
    """Give every activation quantizer percentile 99.9 of its own histogram."""
    inputs = [
        part
        for name, part in module.named_modules()
        if isinstance(part, TensorQuantizer) and "input" in name and part.is_enabled
    ]
    for part in inputs:
        part._calibrator = HistogramCalibrator(part.num_bits, None, part.unsigned)
        part.disable_quant()
        part.enable_calib()
    forward(module, images)
    for part in inputs:
        part.load_calib_amax("percentile", percentile=99.9)
        part.enable_quant()
        part.disable_calib()


def forward(module: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        for batch in images.split(128):
            module(batch)


def quantize(cell: Cell) -> Predict:
    images = torch.from_numpy(cell.array("cal"))
    module = mtq.quantize(torch_model(), config(cell), lambda model: forward(model, images))
    if cell.method == "mse":
        histogram_ranges(module, images)
    return torch_predict(module)


if __name__ == "__main__":
    answer(quantize, "nvidia-modelopt", "torch")
