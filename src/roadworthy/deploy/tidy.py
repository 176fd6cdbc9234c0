"""Rewrites after which onnxruntime finds its integer kernels; none changes what is computed.

* Flatten -> Reshape: quantizers are carried across Reshape, not across Flatten (a classifier behind
  pool, quantizer, flatten stays in floating point otherwise);
* ReduceMean and AveragePool over all of height and width -> GlobalAveragePool, which has an
  integer kernel;
* the bias of a quantized Gemm -> int32 at input scale times weight scale: QGemm with a float
  output is chosen only then. Convolution biases stay float: the runtime rounds them to the same
  grid, on which `bias.snap_biases` has put them;
* that rounding overflows where BatchNorm left a channel almost no weight and a bias (MobileNetV2
  and zero-initialised residuals have such): its weight scale is raised to what the bias needs, at
  which what rounds away is below 1e-6 of the bias per product;
* the runtime carries quantizers across Reshape and Transpose alone. Where a layer's input passes
  padding, slices or their concatenation on its way from a quantizer (shifted windows, class
  tokens), the same quantizer is put in front of the layer once more: values on a grid stay there.
"""

import numpy as np
import onnx_ir as ir

from roadworthy.deploy.translate import DOMAIN
from roadworthy.deploy.writer import Array, Writer, array_of, int_of, name_of

_BIAS_LIMIT = 2**30
_CARRIED = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_MOVED = {"Pad", "Slice", "Gather", "Concat", "Split", "Expand"}


def before_quantizers(graph: ir.Graph) -> None:
    """Rewrites that need the placeholders still in place."""
    for node in list(graph):
        if node.op_type == "Flatten" and int_of(node, "axis", 1) == 1:
            _reshape(node, node.inputs[0])
        elif node.op_type == "ReduceMean" and _is_global_mean(node):
            _global_pool(node, bool(int_of(node, "keepdims", 1)))
        elif node.op_type == "AveragePool" and _is_global_window(node):
            _global_pool(node, keep=True)
        elif node.op_type == "Dequantize" and node.domain == DOMAIN:
            _keep_bias_in_range(node)
        elif node.op_type in ("Conv", "Gemm", "MatMul"):
            for position, value in enumerate(node.inputs[:2]):
                _requantize(node, position, value)


def _requantize(layer: ir.Node, position: int, value: ir.Value | None) -> None:
    """Repeat, in front of `layer`, the quantizer whose values were padded, cut or joined."""
    quantizer, moved = _origin(value)
    if value is None or quantizer is None or not moved:
        return
    writer = Writer(layer, f"{name_of(layer.outputs[0])}.input{position}")
    again = ir.node(
        "FakeQuantize",
        [value, *quantizer.inputs[1:]],
        {name: int_of(quantizer, name) for name in ("qmin", "qmax")},
        domain=DOMAIN,
    )
    layer.replace_input_with(position, writer.insert(again, "again"))


def _origin(value: ir.Value | None) -> tuple[ir.Node | None, bool]:
    """The quantizer whose very values `value` holds, and whether the runtime loses sight of it."""
    node = None if value is None else value.producer()
    if node is None:
        return None, False
    if node.op_type == "FakeQuantize" and node.domain == DOMAIN:
        return node, False
    if node.op_type not in _CARRIED | _MOVED or not _pads_with_zero(node):
        return None, False
    sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    origins = {_origin(source) for source in sources}
    makers = {maker for maker, _ in origins}
    moved = node.op_type in _MOVED or any(lost for _, lost in origins)
    return (makers.pop(), moved) if len(makers) == 1 else (None, False)


def _pads_with_zero(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    if node.op_type != "Pad" or (mode is not None and mode.as_string() != "constant"):
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else None
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return value is None or (constant is not None and not constant.numpy().any())


def _keep_bias_in_range(node: ir.Node) -> None:
    """Raise the scales of near-dead channels, whose bias would overflow the runtime's int32."""
    readers = [user for user in node.outputs[0].consumers() if user.op_type in ("Conv", "Gemm")]
    steps = [_least_scale(reader) for reader in readers]
    least = np.max([step for step in steps if step is not None], axis=0, initial=0.0)
    codes, scale, zero = (array_of(value, "a part of a weight") for value in node.inputs)
    if int_of(node, "axis") != 0 or scale.ndim != 1 or not (scale < least).any():
        return
    raised = np.maximum(scale, least).astype(np.float32)
    shape = [-1] + [1] * (codes.ndim - 1)
    centred = codes.astype(np.float64) - zero.reshape(shape)
    moved = np.rint(centred * (scale / raised).reshape(shape)) + zero.reshape(shape)
    writer = Writer(node, f"{name_of(node.outputs[0])}.raised")
    node.replace_input_with(0, writer.constant("codes", moved.astype(codes.dtype)))
    node.replace_input_with(1, writer.constant("scale", raised))


def _least_scale(reader: ir.Node) -> Array | None:
    """Weight scale at which the bias of `reader` just fits; None where there is no such limit."""
    source = reader.inputs[0].producer() if reader.inputs[0] is not None else None
    bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    constant = None if bias is None else ir.convenience.get_const_tensor(bias)
    if source is None or source.op_type != "FakeQuantize" or constant is None:
        return None
    step = float(array_of(source.inputs[1], "a scale"))
    return np.abs(constant.numpy()).astype(np.float64) / (_BIAS_LIMIT * step)


def _reshape(node: ir.Node, source: ir.Value | None) -> None:
    assert source is not None
    writer = Writer(node, name_of(node.outputs[0]))
    shape = writer.constant("shape", np.array([0, -1], np.int64))
    writer.replace(writer.node("Reshape", [source, shape], "flat"))


def _is_global_mean(node: ir.Node) -> bool:
    source = node.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4 or len(node.inputs) < 2:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    return axes is not None and sorted(int(a) % 4 for a in axes.numpy().reshape(-1)) == [2, 3]


def _is_global_window(node: ir.Node) -> bool:
    source, kernel = node.inputs[0], node.attributes.get("kernel_shape")
    if source is None or source.shape is None or kernel is None:
        return False
    pads = node.attributes.get("pads")
    padded = pads is not None and any(pads.as_ints())
    return not padded and list(source.shape[2:]) == list(kernel.as_ints())


def _global_pool(node: ir.Node, keep: bool) -> None:
    """Pool over height and width; without `keep` the two ones that remain are dropped."""
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    writer = Writer(node, name_of(out))
    pooled = writer.node("GlobalAveragePool", [source], "pool")
    if keep:
        writer.replace(pooled)
        return
    shape = writer.constant("shape", np.array([0, -1], np.int64))
    writer.replace(writer.node("Reshape", [pooled, shape], "flat"))


def quantize_gemm_biases(graph: ir.Graph) -> None:
    """int32 biases for Gemm nodes whose input and weight are quantized."""
    for node in list(graph):
        if node.op_type == "Gemm" and len(node.inputs) == 3 and int_of(node, "transB"):
            _quantize_bias(node)


def _scale(value: ir.Value | None) -> Array | None:
    """Scale of what is dequantized to `value`; None where it is not."""
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in _CARRIED and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    return array_of(producer.inputs[1], "a scale").astype(np.float64)


def _quantize_bias(node: ir.Node) -> None:
    data, weight, bias = node.inputs
    left, right = _scale(data), _scale(weight)
    constant = None if bias is None else ir.convenience.get_const_tensor(bias)
    if left is None or right is None or constant is None or bias is None:
        return
    step = (left * right).astype(np.float32)
    codes = np.rint(constant.numpy() / step.astype(np.float64))
    if constant.shape.numpy() != step.shape or np.abs(codes).max() >= 2**31:
        return
    writer = Writer(node, f"{name_of(node.outputs[0])}.bias")
    inputs = [
        writer.constant("codes", codes.astype(np.int32)),
        writer.constant("scale", step),
        writer.constant("zero_point", np.zeros(step.shape, np.int32)),
    ]
    node.replace_input_with(2, writer.node("DequantizeLinear", inputs, "float", {"axis": 0}))
