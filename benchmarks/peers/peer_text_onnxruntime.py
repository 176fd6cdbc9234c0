"""onnxruntime's quantization of a text model, with weights per channel.

`dynamic` is what it advises for transformers, `minmax` its static QDQ with signed codes and ranges
by extremes, its default. `-7bit` codes weights with 7 bits (`reduce_range`), as it advises for
processors with AVX2 and no VNNI. `matmul-nbits`: 4-bit weights in blocks of 32, embeddings too,
activations to 8 bits as they come (accuracy level 4).
"""

from __future__ import annotations

from pathlib import Path

import onnx
from _cell import Cell, RefusedError
from _texts import Tokens, answer, calibration, onnx_load
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

BOTH = ("MatMul", "Gather")


class Texts(CalibrationDataReader):
    """The calibration texts, one by one."""

    def __init__(self, texts: list[Tokens]) -> None:
        self.feeds = iter(texts)

    def get_next(self) -> Tokens | None:
        return next(self.feeds, None)


def quantize(cell: Cell, folder: Path) -> None:
    if cell.act_bits != 8 or cell.weight_bits not in (4, 8):
        raise RefusedError("8 and 4 bit only")
    ready, out = folder / "ready.onnx", folder / "model.onnx"
    # Its symbolic shapes stop at what torch exports; the fusions do not need them.
    quant_pre_process(str(cell.onnx), str(ready), skip_symbolic_shape=True)
    if cell.weight_bits == 4:
        narrow(ready, out)
    elif cell.method == "dynamic":
        quantize_dynamic(ready, out, per_channel=True, weight_type=QuantType.QInt8)
    else:
        static(cell, ready, out)
    ready.unlink()


def narrow(ready: Path, out: Path) -> None:
    made = MatMulNBitsQuantizer(
        str(ready),
        block_size=32,
        accuracy_level=4,
        op_types_to_quantize=BOTH,
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    made.process()
    onnx.save(made.model.model, out)


def static(cell: Cell, ready: Path, out: Path) -> None:
    reduced = cell.method.endswith("-7bit")
    texts = Texts(calibration(cell))
    quantize_static(ready, out, texts, per_channel=True, reduce_range=reduced)


if __name__ == "__main__":
    answer(quantize, onnx_load, ("onnxruntime", "onnx"))
