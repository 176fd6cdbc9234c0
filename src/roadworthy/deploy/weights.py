"""dequantize -> integer initialisers in the smallest container, DequantizeLinear at run time.

The file keeps the codes as they are, packed. Between them and DequantizeLinear stands, where it
helps, a chain of Cast, Sub and Mul that a runtime folds once at load ("widening"). It makes signed
bytes about zero point 0 out of any grid, without changing one weight:

* onnxruntime has integer kernels for 8-bit weights only; on 4-bit weights it runs DequantizeLinear
  on every call (convolution chain: 13.0 ms, 5.2 ms widened) or replaces MatMul by MatMulNBits,
  which computes with 8-bit activations of its own; with 2-bit weights fused, it does not load;
* asymmetric bytes per channel have no fast depthwise kernel (MobileNetV2: 130 ms against 7 ms);
* bits that the byte has to spare go into a finer scale: the runtime rounds a bias to the product of
  input scale and weight scale, which is coarse where weights have 2 bits.

On x86 without VNNI, unsigned times signed bytes add up in pairs of 16 bits (vpmaddubsw), so two
neighbouring weights of one sign whose codes exceed 128 together can saturate. Such weights leave as
unsigned bytes about 128, whose kernel is exact and about 1.35 times slower; a range search that
keeps pairs within 128 (`saturates` tells) has exactness at full speed.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from roadworthy.core.grid import Grid
from roadworthy.deploy.writer import Array, Writer, array_of, int_of, name_of

_CONTAINERS = {
    ("int8", 8): np.dtype(np.int8),
    ("uint8", 8): np.dtype(np.uint8),
    ("int8", 4): np.dtype(ml_dtypes.int4),
    ("uint8", 4): np.dtype(ml_dtypes.uint4),
    ("int8", 2): np.dtype(ml_dtypes.int2),
    ("uint8", 2): np.dtype(ml_dtypes.uint2),
}
_INT16 = 32767


@dataclass(frozen=True)
class Target:
    """Bytes to widen to: ``(code - zero point) * factor + zero`` of `dtype`."""

    dtype: np.dtype[np.int8] | np.dtype[np.uint8]
    zero: int = 0
    factor: int = 1


@dataclass(frozen=True)
class Meeting:
    """Whom a weight meets: highest code of its input, and whether in a depthwise convolution."""

    highest: int = 255
    depthwise: bool = False


def saturates(codes: Array, axis: int = 0, limit: int = 128) -> bool:
    """Whether two codes of one sign in one output channel exceed `limit` together.

    Multiplied by activations up to 255 a pair above 128 leaves 16 bits: 255 * 129 > 32767.

    >>> saturates(np.array([[127, 1, -64, -64]])), saturates(np.array([[127, 2]]))
    (False, True)
    """
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int32)
    if rows.shape[1] < 2:
        return False
    ordered = np.sort(rows, axis=1)
    high = np.maximum(ordered[:, -2:], 0).sum(1).max()
    low = np.minimum(ordered[:, :2], 0).sum(1).min()
    return bool(high > limit or low < -limit)


def emit_weight(node: ir.Node, widen: bool = True) -> None:
    """Replace one Dequantize placeholder; without `widen` the codes are dequantized as they are."""
    name = name_of(node.outputs[0])
    if all(user.op_type == "Gather" for user in node.outputs[0].consumers()):
        _emit_table(node, name)
        return
    codes, scale, zero = (array_of(value, f"a part of weight {name}") for value in node.inputs)
    axis, bits = int_of(node, "axis"), int_of(node, "bits")
    dtype = _CONTAINERS[str(codes.dtype), Grid(bits).container_bits]
    zero = np.broadcast_to(zero, (codes.shape[axis],))
    scale = np.broadcast_to(scale, (codes.shape[axis],)).astype(np.float32)
    writer = Writer(node, name)
    value = writer.constant("codes", codes.astype(dtype))
    centred = codes.astype(np.int32) - _along(zero, axis, codes.ndim)
    meeting = Meeting(_highest_input(node), _is_depthwise(node))
    target = plan(centred, zero, axis, bits, meeting) if widen else None
    if target is None:
        offset = writer.constant("zero_point", zero.astype(dtype))
    else:
        value = _widen(writer, value, _along(zero, axis, codes.ndim).astype(dtype), target)
        offset = writer.constant("widened_zero", np.full(len(zero), target.zero, target.dtype))
        scale = scale / np.float32(target.factor)
    inputs = [value, writer.constant("scale", scale), offset]
    writer.replace(writer.node("DequantizeLinear", inputs, "float", {"axis": axis}))


def _emit_table(node: ir.Node, name: str) -> None:
    """Codes of an embedding are looked up as they are and dequantized behind the Gather: before it,
    the runtime would do so with the whole table. Narrow codes become bytes once, at load."""
    codes, scale, zero = (array_of(value, f"a part of table {name}") for value in node.inputs)
    bits = int_of(node, "bits")
    table = Writer(node, name).constant(
        "codes", codes.astype(_CONTAINERS[str(codes.dtype), Grid(bits).container_bits])
    )
    if Grid(bits).container_bits < 8:
        to = ir.DataType.from_numpy(codes.dtype)
        table = Writer(node, name).node("Cast", [table], "bytes", {"to": to})
    for user in list(node.outputs[0].consumers()):
        writer = Writer(user, name_of(user.outputs[0]))
        found = ir.node("Gather", [table, user.inputs[1]], {"axis": int_of(user, "axis")})
        grid = [
            writer.constant("scale", scale.astype(np.float32)),
            writer.constant("zero_point", zero.astype(codes.dtype)),
        ]
        inputs = [writer.insert(found, "codes_found"), *grid]
        writer.replace(writer.node("DequantizeLinear", inputs, "float", {"axis": -1}))
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)


def plan(centred: Array, zero: Array, axis: int, bits: int, meeting: Meeting) -> Target | None:
    """What to widen centred codes to; None where they already have the best form."""
    largest = int(np.abs(centred).max(initial=1))
    limit = _INT16 // meeting.highest
    risky = saturates(centred, axis, limit) and not meeting.depthwise
    if largest > 128 or int(centred.max(initial=0)) > 127:
        return None
    if risky:
        return Target(np.dtype(np.uint8), zero=128)
    if bits == 8 and not zero.any():
        return None
    return Target(np.dtype(np.int8), factor=max(1, min(127, limit // 2) // largest))


def _highest_input(node: ir.Node) -> int:
    """The highest stored code of the activations that meet this weight (placeholders in place)."""
    return max((_highest_code(user.inputs[0]) for user in node.outputs[0].consumers()), default=255)


def _highest_code(value: ir.Value | None) -> int:
    maker = None if value is None else value.producer()
    while maker is not None and maker.op_type in ("Reshape", "Transpose", "MaxPool"):
        maker = None if maker.inputs[0] is None else maker.inputs[0].producer()
    if maker is None or maker.op_type != "FakeQuantize":
        return 255
    low, high = int_of(maker, "qmin"), int_of(maker, "qmax")
    return high + 128 if low < 0 else high


def _is_depthwise(node: ir.Node) -> bool:
    """Whether all readers are depthwise convolutions: their kernel adds up in 32 bits."""
    users = node.outputs[0].consumers()
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return shape is not None and all(
        user.op_type == "Conv" and int_of(user, "group", 1) == shape[0] and shape[1] == 1
        for user in users
    )


def _along(values: Array, axis: int, ndim: int) -> Array:
    shape = [1] * ndim
    shape[axis] = -1
    return values.astype(np.int32).reshape(shape)


def _widen(writer: Writer, value: ir.Value, zero: Array, target: Target) -> ir.Value:
    wide = {"to": ir.DataType.INT32}
    value = writer.node("Cast", [value], "wide", wide)
    if zero.astype(np.int32).any():
        offset = writer.node("Cast", [writer.constant("zero_point", zero)], "wide_zero", wide)
        value = writer.node("Sub", [value, offset], "centred")
    if target.factor != 1:
        factor = writer.constant("factor", np.array(target.factor, np.int32))
        value = writer.node("Mul", [value, factor], "scaled")
    if target.zero:
        shift = writer.constant("shift", np.array(target.zero, np.int32))
        value = writer.node("Add", [value, shift], "shifted")
    to = ir.DataType.from_numpy(target.dtype)
    return writer.node("Cast", [value], "bytes", {"to": to})
