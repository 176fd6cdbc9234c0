"""BatchNorm folding in a captured graph."""

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

FOLDABLE = {aten.conv2d.default, aten.conv1d.default, aten.linear.default, aten.conv2d.padding}


def attribute(graph: fx.GraphModule, node: Any) -> Tensor | None:
    """The parameter or buffer behind a ``get_attr`` node, or None for any other node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()


def add_buffer(graph: fx.GraphModule, name: str, value: Tensor) -> str:
    """Register `value` under a free name derived from `name`; returns that name."""
    free = name.replace(".", "_")
    while hasattr(graph, free):
        free += "_"
    graph.register_buffer(free, value)
    return free


def fold_batch_norm(graph: fx.GraphModule) -> None:
    """Fold every inference BatchNorm that stands behind, or before, layers that can take it.

    Behind a Conv or Linear used by nothing else: ``w' = w * g / sqrt(v + eps)`` and ``b' = (b - m)
    * g / sqrt(v + eps) + beta``. Before convolutions without padding and linears, which read
    nothing else: their columns take the factor, their biases what the offset brings. Computed in
    double precision, so that the folded graph differs by float rounding alone.
    """
    for norm in list(graph.graph.nodes):
        if norm.target is not aten.batch_norm.default:
            continue
        layer = norm.args[0]
        if _weight(graph, layer) is not None and len(layer.users) == 1:
            _fold_behind(graph, layer, norm)
        elif norm.users and all(_unpadded(graph, user, norm) for user in norm.users):
            _fold_before(graph, norm)


def _weight(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The weight of a layer that folds, None of any other node."""
    return attribute(graph, node.args[1]) if node.target in FOLDABLE else None


def _unpadded(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> bool:
    """Whether each of its outputs sees `norm`'s channels everywhere: zeros around would not."""
    if _weight(graph, layer) is None or layer.args[0] is not norm:
        return False
    if layer.target is aten.linear.default:
        return norm.meta["val"].ndim == 2  # tokens have their channels last
    padding: Any = layer.args[4] if len(layer.args) > 4 else [0]
    return padding == "valid" if isinstance(padding, str) else not any(padding)


def _line(graph: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Factor and offset of each channel, in double precision."""
    gain, shift, mean, variance = (attribute(graph, arg) for arg in norm.args[1:5])
    assert mean is not None
    assert variance is not None
    factor = (variance.double() + float(norm.args[7])).rsqrt()  # pyright: ignore[reportArgumentType]
    factor = factor if gain is None else factor * gain.double()
    offset = -mean.double() * factor
    return factor, offset if shift is None else offset + shift.double()


def _fold_behind(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> None:
    weight, bias = _numbers(graph, layer)
    factor, offset = _line(graph, norm)
    folded = weight * factor.view(-1, *[1] * (weight.ndim - 1))
    _replace(graph, layer, layer.all_input_nodes[0], folded, bias * factor + offset)
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


def _fold_before(graph: fx.GraphModule, norm: fx.Node) -> None:
    factor, offset = _line(graph, norm)
    for layer in list(norm.users):
        weight, bias = _numbers(graph, layer)
        groups = len(factor) // weight.shape[1]
        rows = weight.unflatten(0, (groups, -1))
        along = (groups, 1, -1, *[1] * (weight.ndim - 2))
        brought = (rows * offset.view(along)).flatten(2).sum(2).flatten()
        folded = (rows * factor.view(along)).flatten(0, 1)
        _replace(graph, layer, norm.all_input_nodes[0], folded, bias + brought)
    graph.graph.erase_node(norm)


def _numbers(graph: fx.GraphModule, layer: fx.Node) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, zeros where it has none, in double precision."""
    weight = _weight(graph, layer)
    assert weight is not None
    bias = attribute(graph, layer.args[2]) if len(layer.args) > 2 else None
    return weight.double(), (weight.new_zeros(len(weight)) if bias is None else bias).double()


def _replace(
    graph: fx.GraphModule, layer: fx.Node, source: fx.Node, weight: Tensor, bias: Tensor
) -> None:
    """Let `layer` read `source` with these numbers."""
    target, kind = str(layer.all_input_nodes[1].target), attribute(graph, layer.args[1])
    assert kind is not None
    with graph.graph.inserting_before(layer):
        new_weight = graph.graph.get_attr(add_buffer(graph, target, weight.to(kind.dtype)))
        name = target.removesuffix("weight") + "bias"
        new_bias = graph.graph.get_attr(add_buffer(graph, name, bias.to(kind.dtype)))
    layer.args = (source, new_weight, new_bias, *layer.args[3:])
