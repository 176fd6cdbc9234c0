"""onnx-neural-compressor, the ONNX half of neural-compressor, which needs no extension of torch:
static QDQ with its SmoothQuant (alpha .5) before it, weights per channel and, as it advises for
processors without VNNI, of 7 bits. It takes texts of one length only, so it sees padding."""

from __future__ import annotations

from pathlib import Path

from _cell import Cell
from _texts import NAMES, Tokens, answer, onnx_load
from onnx_neural_compressor.data_reader import CalibrationDataReader
from onnx_neural_compressor.quantization import QuantFormat, config
from onnx_neural_compressor.quantization import quantize as compress


class Texts(CalibrationDataReader):
    """Texts one by one, as often as asked."""

    def __init__(self, texts: list[Tokens]) -> None:
        self.texts = texts
        self.rewind()

    def get_next(self) -> Tokens | None:
        return next(self.feeds, None)

    def rewind(self) -> None:
        self.feeds = iter(self.texts)


def padded(cell: Cell) -> list[Tokens]:
    """The calibration texts at the length of the longest."""
    rows = cell.array(f"cal{cell.seed}")
    length = int(rows[:, 1].sum(1).max())
    return [dict(zip(NAMES, row[:, None, :length], strict=True)) for row in rows]


def quantize(cell: Cell, folder: Path) -> None:
    texts = padded(cell)
    settings = config.StaticQuantConfig(
        Texts(texts),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        calibration_sampling_size=len(texts),
        extra_options={"SmoothQuant": True, "SmoothQuantCalibIter": len(texts)},
    )
    compress(str(cell.onnx), str(folder / "model.onnx"), settings)


if __name__ == "__main__":
    answer(quantize, onnx_load, ("onnx-neural-compressor", "onnxruntime", "onnx"))
