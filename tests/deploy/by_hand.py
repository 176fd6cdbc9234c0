"""Quantized graphs made by hand: min-max grids at every input of the operators that can use them."""

import operator

import torch
from torch import Tensor, fx, nn

from roadworthy.core.capture import capture
from roadworthy.core.grid import Grid, quantize

aten, ops = torch.ops.aten, torch.ops.roadworthy
WEIGHTED = {aten.conv2d.default, aten.linear.default}
RESIDUAL = {aten.add.Tensor}
CONSUMERS = WEIGHTED | {
    aten.matmul.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
}
CARRIERS = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}


def by_hand(
    module: nn.Module,
    example: Tensor,
    weight_bits: int = 8,
    act_bits: int = 8,
    signed: bool = True,
    adds: bool = True,
) -> fx.GraphModule:
    """Capture and quantize; `signed` chooses symmetric weights, else asymmetric unsigned ones."""
    consumers = CONSUMERS | RESIDUAL if adds else CONSUMERS
    graph = capture(module, example)
    ranges = observe(graph, example)
    for node in list(graph.graph.nodes):
        if node.target in WEIGHTED:
            put_weight(graph, node, Grid(weight_bits, signed=signed))
    done: dict[fx.Node, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target in consumers:
            for source in [arg for arg in node.args[:2] if isinstance(arg, fx.Node)]:
                put_activation(graph, node, source, ranges, Grid(act_bits), done)
    graph.graph.lint()
    graph.recompile()
    return graph


def observe(graph: fx.GraphModule, example: Tensor) -> dict[fx.Node, tuple[float, float]]:
    ranges = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.is_floating_point():
                ranges[n] = (min(0.0, float(value.min())), max(0.0, float(value.max())))
            return value

    with torch.no_grad():
        Watch(graph).run(example)
    return ranges


def buffer(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> fx.Node:
    name = f"{node.name}_{name}"
    graph.register_buffer(name, value)
    return graph.graph.get_attr(name)


def put_weight(graph: fx.GraphModule, node: fx.Node, grid: Grid) -> None:
    weight = operator.attrgetter(node.args[1].target)(graph).detach()
    rows = weight.flatten(1)
    if grid.signed:
        scale = rows.abs().amax(1).clamp(min=1e-6) / (64 if grid.bits == 8 else grid.qmax)
        zero = torch.zeros_like(scale)
    else:
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        scale = (high - low).clamp(min=1e-6) / grid.qmax
        zero = (-low / scale).round()
    codes = quantize(weight, scale, zero, grid).to(grid.dtype)
    with graph.graph.inserting_before(node):
        args = (
            buffer(graph, node, "codes", codes),
            buffer(graph, node, "scale", scale),
            buffer(graph, node, "zero", zero.to(grid.dtype)),
        )
        node.args = (
            node.args[0],
            graph.graph.call_function(ops.dequantize.default, (*args, 0, grid.bits)),
            *node.args[2:],
        )


def put_activation(graph, node, source, ranges, grid, done) -> None:  # noqa: ANN001
    while source.target in CARRIERS:
        node, source = source, source.args[0]
    if source.op == "get_attr" or source not in ranges:
        return
    if source not in done:
        low, high = ranges[source]
        scale = max(high - low, 1e-6) / (grid.qmax - grid.qmin)
        with graph.graph.inserting_after(source):
            zero = buffer(graph, source, "act_zero", torch.tensor(float(round(-low / scale))))
            step = buffer(graph, source, "act_scale", torch.tensor(scale))
        with graph.graph.inserting_after(zero):
            done[source] = graph.graph.call_function(
                ops.fake_quantize.default, (source, step, zero, grid.qmin, grid.qmax)
            )
        source.replace_all_uses_with(
            done[source], lambda user: user is not done[source], propagate_meta=False
        )
