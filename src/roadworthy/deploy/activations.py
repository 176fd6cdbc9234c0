"""fake_quantize -> QuantizeLinear, integer Clip where the grid is narrower than a byte, Dequantize.

Every activation is an unsigned byte in the file, whatever its bits (onnxruntime 1.32, measured on a
chain of four 64-channel 3x3 convolutions after ReLU, W8):

* uint4 and uint2 activations do not load: QLinearConv is fused around them and refuses the type;
* a float Clip in front of QuantizeLinear keeps every convolution in floating point (13.1 ms);
* a Clip of the codes behind QuantizeLinear leaves all of them integer (5.4 ms; 5.2 ms at 8 bits);
* ReLU and ReLU6 in front become bounds of the codes, exactly, so they never stand in the way of
  fusion, wherever the grid ends (the runtime itself drops ReLU6 for grids that end within 6 only);
* signed bytes have no fast kernel on x86, so signed grids move up by 128, codes and zero point.
"""

import numpy as np
import onnx_ir as ir

from roadworthy.deploy.writer import Array, Writer, array_of, int_of, name_of
from roadworthy.errors import BadModel


def emit_activation(node: ir.Node, unsigned: bool = True) -> None:
    """Replace one FakeQuantize placeholder; without `unsigned`, signed grids stay signed bytes."""
    name = name_of(node.outputs[0])
    scale = array_of(node.inputs[1], f"the scale of {name}").astype(np.float32).reshape(())
    zero = float(array_of(node.inputs[2], f"the zero point of {name}").reshape(()))
    low, high = int_of(node, "qmin"), int_of(node, "qmax")
    dtype, (floor, ceiling) = (np.int8, (-128, 127)) if low < 0 else (np.uint8, (0, 255))
    _check(name, (zero, low, high), (floor, ceiling), float(scale))
    shift = 0
    if unsigned and low < 0:
        dtype, shift, floor, ceiling = np.uint8, 128, 0, 255
    writer = Writer(node, name)
    grid = [
        writer.constant("scale", scale),
        writer.constant("zero_point", np.array(zero + shift, dtype)),
    ]
    source, below, above = _absorb_clip(node)
    first = max(low, int(_code(below, scale, zero, low, high))) + shift
    last = min(high, int(_code(above, scale, zero, low, high))) + shift
    codes = writer.node("QuantizeLinear", [source, *grid], "codes")
    if (first, last) != (floor, ceiling):
        ends = [
            writer.constant("low", np.array(first, dtype)),
            writer.constant("high", np.array(last, dtype)),
        ]
        codes = writer.node("Clip", [codes, *ends], "clipped")
    writer.replace(writer.node("DequantizeLinear", [codes, *grid], "float"))


def _code(value: float, scale: Array, zero: float, low: int, high: int) -> float:
    return float(np.clip(np.rint(np.float32(value) / scale) + zero, low, high))


def _absorb_clip(node: ir.Node) -> tuple[ir.Value, float, float]:
    """What feeds the quantizer, seen through ReLU or ReLU6, and the bounds these set.

    Quantizing is monotone, so clipping values first or their codes afterwards is the same.
    """
    source = node.inputs[0]
    assert source is not None
    maker = source.producer()
    others = [user for user in source.consumers() if user.op_type != "FakeQuantize"]
    if maker is None or others or source.is_graph_output():
        return source, -np.inf, np.inf
    inner = maker.inputs[0] if maker.inputs else None
    bounds = _bounds(maker)
    return (source, -np.inf, np.inf) if inner is None or bounds is None else (inner, *bounds)


def _bounds(maker: ir.Node) -> tuple[float, float] | None:
    if maker.op_type == "Relu":
        return 0.0, np.inf
    if maker.op_type != "Clip" or len(maker.inputs) != 3 or None in maker.inputs:
        return None
    ends = [ir.convenience.get_const_tensor(value) for value in maker.inputs[1:] if value]
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return float(ends[0].numpy()), float(ends[1].numpy())


def _check(
    name: str, grid: tuple[float, int, int], container: tuple[int, int], scale: float
) -> None:
    zero, low, high = grid
    if not (container[0] <= low <= zero <= high <= container[1] and zero == int(zero)):
        raise BadModel(
            f"quantizer {name} has codes {low}..{high} and zero point {zero}; a grid of at most "
            "8 bits with a whole zero point inside it is allowed"
        )
    if not (np.isfinite(scale) and scale > 0):
        raise BadModel(f"quantizer {name} has scale {scale}; a positive finite number is allowed")
