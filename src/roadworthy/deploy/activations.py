"""fake_quantize -> QuantizeLinear, integer Clip where the grid is narrower than a byte, Dequantize.

Every activation is an unsigned byte in the file, whatever its bits (onnxruntime 1.32, measured on a
chain of four 64-channel 3x3 convolutions after ReLU, W8):

* uint4 and uint2 activations do not load: QLinearConv is fused around them and refuses the type;
* a float Clip in front of QuantizeLinear keeps every convolution in floating point (13.1 ms);
* a Clip of the codes behind QuantizeLinear leaves all of them integer (5.4 ms; 5.2 ms at 8 bits);
* signed bytes have no fast kernel on x86, so signed grids move up by 128, codes and zero point.
"""

import numpy as np
import onnx_ir as ir

from roadworthy.deploy.writer import Writer, array_of, int_of, name_of
from roadworthy.errors import BadModel


def emit_activation(node: ir.Node) -> None:
    """Replace one FakeQuantize placeholder."""
    name = name_of(node.outputs[0])
    scale = array_of(node.inputs[1], f"the scale of {name}").astype(np.float32).reshape(())
    zero = float(array_of(node.inputs[2], f"the zero point of {name}").reshape(()))
    low, high = int_of(node, "qmin"), int_of(node, "qmax")
    shift = 128 if low < 0 else 0
    _check(name, zero + shift, low + shift, high + shift, float(scale))
    writer = Writer(node, name)
    grid = [
        writer.constant("scale", scale),
        writer.constant("zero_point", np.array(zero + shift, np.uint8)),
    ]
    source = node.inputs[0]
    assert source is not None
    codes = writer.node("QuantizeLinear", [source, *grid], "codes")
    if (low + shift, high + shift) != (0, 255):
        ends = [
            writer.constant("low", np.array(low + shift, np.uint8)),
            writer.constant("high", np.array(high + shift, np.uint8)),
        ]
        codes = writer.node("Clip", [codes, *ends], "clipped")
    writer.replace(writer.node("DequantizeLinear", [codes, *grid], "float"))


def _check(name: str, zero: float, low: int, high: int, scale: float) -> None:
    if not (0 <= low <= high <= 255 and low <= zero <= high and zero == int(zero)):
        raise BadModel(
            f"quantizer {name} has codes {low}..{high} and zero point {zero}; a grid of at most "
            "8 bits with a whole zero point inside it is allowed"
        )
    if not (np.isfinite(scale) and scale > 0):
        raise BadModel(f"quantizer {name} has scale {scale}; a positive finite number is allowed")
