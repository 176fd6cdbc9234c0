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
    """Fold every inference BatchNorm that follows a Conv or Linear used by nothing else.

    ``w' = w * g / sqrt(v + eps)`` and ``b' = (b - m) * g / sqrt(v + eps) + beta``; computed in
    double precision, so that the folded graph differs by float rounding alone.
    """
    for norm in list(graph.graph.nodes):
        if norm.target is not aten.batch_norm.default:
            continue
        layer = norm.args[0]
        weight = attribute(graph, layer.args[1]) if layer.target in FOLDABLE else None
        if weight is None or len(layer.users) > 1:
            continue
        _fold(graph, layer, norm, weight)


def _fold(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node, weight: Tensor) -> None:
    gain, shift, mean, variance = (attribute(graph, arg) for arg in norm.args[1:5])
    assert mean is not None
    assert variance is not None
    bias = attribute(graph, layer.args[2]) if len(layer.args) > 2 else None
    factor = (variance.double() + float(norm.args[7])).rsqrt()  # pyright: ignore[reportArgumentType]
    factor = factor if gain is None else factor * gain.double()
    base = torch.zeros_like(mean) if bias is None else bias
    folded = weight.double() * factor.view(-1, *[1] * (weight.ndim - 1))
    offset = (base.double() - mean.double()) * factor + (0.0 if shift is None else shift.double())
    target = str(layer.all_input_nodes[1].target)
    with graph.graph.inserting_before(layer):
        new_weight = graph.graph.get_attr(add_buffer(graph, target, folded.to(weight.dtype)))
        new_bias = graph.graph.get_attr(
            add_buffer(graph, target.removesuffix("weight") + "bias", offset.to(weight.dtype))
        )
    layer.args = (layer.all_input_nodes[0], new_weight, new_bias, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)
