"""From learned quantizers to a graph of integers: what is saved, simulated and exported."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.rounding import Bias, Table, WeightQuantizer
from roadworthy.core.fold import add_buffer
from roadworthy.core.grid import ops


def freeze(model: fx.GraphModule) -> fx.GraphModule:
    """Replace every quantizer module of `model` by its integer operator.

    Weights become ``roadworthy::dequantize`` of an integer buffer, activations
    ``roadworthy::fake_quantize``; all numbers are buffers of the result, which computes exactly
    what `model` computes in eval mode.
    """
    frozen = fx.GraphModule(model, fx.Graph(), class_name="Quantized")
    copied: dict[fx.Node, fx.Node] = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            copied[node] = _freeze_call(frozen, node, module, copied)
        elif node.op == "get_attr":
            value = model
            for part in str(node.target).split("."):
                value = getattr(value, part)
            assert isinstance(value, Tensor)
            copied[node] = _buffer(frozen, str(node.target), value.detach())
        else:
            copied[node] = frozen.graph.node_copy(node, copied.__getitem__)
    frozen.graph.lint()
    frozen.recompile()
    return frozen.eval()


def _buffer(frozen: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    return frozen.graph.get_attr(add_buffer(frozen, name, value.contiguous()))


def _freeze_call(
    frozen: fx.GraphModule, node: fx.Node, module: object, copied: dict[fx.Node, fx.Node]
) -> fx.Node:
    name = str(node.target)
    call: Callable[[Any, tuple[Any, ...]], fx.Node] = frozen.graph.call_function
    match module:
        case WeightQuantizer() | Table():
            grid = module.grid
            codes = _buffer(frozen, f"{name}_codes", module.codes())
            scale = _buffer(frozen, f"{name}_scale", module.scale.detach())
            zero = _buffer(frozen, f"{name}_zero_point", module.zero_point.to(grid.dtype))
            arguments = (codes, scale, zero, module.axis, grid.bits)
            made = call(ops.dequantize.default, arguments)
        case ActQuantizer():
            grid = module.grid
            scale = _buffer(frozen, f"{name}_scale", module.scale.detach())
            zero = _buffer(frozen, f"{name}_zero_point", module.zero_point.detach())
            source = copied[node.args[0]]  # pyright: ignore[reportArgumentType]
            arguments = (source, scale, zero, grid.qmin, grid.qmax)
            made = call(ops.fake_quantize.default, arguments)
        case Bias():
            made = _buffer(frozen, name, module.bias.detach())
        case _:
            raise TypeError(f"{name} is no quantizer")
    made.meta = dict(node.meta)
    return made
