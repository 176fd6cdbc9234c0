"""Where quantizers go: a back end's spec applied to a captured graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.rounding import Bias, Table, WeightQuantizer
from roadworthy.core.backends import Backend
from roadworthy.core.capture import module_path
from roadworthy.core.extract import Placement
from roadworthy.core.fold import attribute
from roadworthy.core.padding import DECODED, ENCODED
from roadworthy.core.units import LAYERS, data_nodes, decoder_nodes

aten = torch.ops.aten

_POOLS = {
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
    aten.mean.dim,
}
_TRANSPARENT = _POOLS | {
    aten.max_pool2d.default,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.contiguous.default,
    aten.clone.default,
    aten.expand.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.pad.default,
    aten.roll.default,
}
_FUSED = {aten.relu.default, aten.hardtanh.default}
_CONVS = {aten.conv1d.default, aten.conv2d.default, aten.conv2d.padding}
_WEIGHTED = {*_CONVS, aten.linear.default}


@dataclass(frozen=True)
class Widths:
    """Bits of weights and activations; named layers and their inputs may keep more."""

    weights: int
    activations: int
    keep_8bit: tuple[str, ...] = ("first", "last")
    raised: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Layer:
    """A quantized operator: its quantizers by name, None where it has none."""

    name: str
    node: fx.Node
    weight: str | None
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Quantizers:
    """All quantizers of a model and where they sit."""

    modules: dict[str, nn.Module]
    placement: Placement
    layers: tuple[Layer, ...]
    float_ops: dict[str, int]


def layer_name(node: fx.Node) -> str:
    """Module path of a layer; products of two activations add their node's name."""
    path = module_path(node)[-1][0] if module_path(node) else node.name
    return path if node.target in _WEIGHTED else f"{path}.{node.name}"


def place(graph: fx.GraphModule, backend: Backend, widths: Widths) -> Quantizers:
    """Make the quantizers of `graph` (ranges still unset) and say where they sit."""
    layers = [node for node in data_nodes(graph) if node.target in LAYERS]
    weighted = [node for node in layers if attribute(graph, _weight(node)) is not None]
    tables = [n for n in graph.graph.nodes if attribute(graph, _table(n)) is not None]
    edge = {"first": tables or weighted[:1], "last": weighted[-1:]}
    kept = {node for key in widths.keep_8bit for node in edge.get(key, ())}
    last = {*edge["last"]} if "last" in widths.keep_8bit else set[fx.Node]()
    sources, decoded = _sources(graph, layers, backend), decoder_nodes(graph)
    modules: dict[str, nn.Module] = {}
    activations: dict[fx.Node, str] = {}
    for source, readers in sources.items():
        bits = max(
            widths.activations,
            8 if source.op == "placeholder" or last & readers else 0,
            *(widths.raised.get(layer_name(reader), 0) for reader in readers),
            0,
        )
        name = f"act_{source.name}"
        row = DECODED if source in decoded else ENCODED
        modules[name] = ActQuantizer(backend.activation_grid(bits), row)
        activations[source] = name
    weights: dict[fx.Node, str] = {}
    biases: dict[fx.Node, str] = {}
    for node in weighted:
        raised = widths.raised.get(layer_name(node), 0)
        bits = max(widths.weights, 8 if node in kept else 0, raised)
        name = f"weight_{node.name}"
        value = attribute(graph, _weight(node))
        assert value is not None
        modules[name] = WeightQuantizer(value, backend.weight_grid(bits))
        weights[node] = name
        bias = attribute(graph, node.args[2]) if len(node.args) > 2 else None
        if bias is not None:
            modules[f"bias_{node.name}"] = Bias(bias)
            biases[node] = f"bias_{node.name}"
    for node in tables:
        name, value = f"table_{node.name}", attribute(graph, _table(node))
        assert value is not None
        bits = max(widths.weights, 8 if node in kept else 0)
        modules[name] = Table(value, backend.weight_grid(bits))
        weights[node] = name
    placement = Placement(activations, weights, biases)
    return Quantizers(modules, placement, _layers(layers, placement), _float_ops(graph, placement))


def _layers(nodes: list[fx.Node], placement: Placement) -> tuple[Layer, ...]:
    found: list[Layer] = []
    for node in nodes:
        origins = [_source(arg) for arg in node.all_input_nodes]
        inputs = tuple(placement.activations[o] for o in origins if o in placement.activations)
        weight = placement.weights.get(node)
        if weight or inputs:
            found.append(Layer(layer_name(node), node, weight, inputs))
    return tuple(found)


def _weight(node: fx.Node) -> object:
    return node.args[1] if node.target in _WEIGHTED else None


def _table(node: fx.Node) -> object:
    return node.args[0] if node.target is aten.embedding.default else None


def _source(node: fx.Node) -> fx.Node:
    """The operator that computed the values of `node`, behind reshapes and pools."""
    while node.target in _TRANSPARENT:
        node = node.all_input_nodes[0]
    return node


def _sources(
    graph: fx.GraphModule, layers: list[fx.Node], backend: Backend
) -> dict[fx.Node, set[fx.Node]]:
    """Nodes whose output is quantized, each with the layers that read it."""
    data = set(data_nodes(graph))
    found: dict[fx.Node, set[fx.Node]] = {}
    if backend.quantize_results:
        for node in _integer_results(graph, data):
            found[node] = set()
    for layer in layers:
        for argument in layer.all_input_nodes:
            source = argument
            while source not in found and source.target in _TRANSPARENT:
                source = source.all_input_nodes[0]
            if source in data and (source.op != "placeholder" or backend.quantize_image):
                found.setdefault(source, set()).add(layer)
    return {node: found[node] for node in data_nodes(graph) if node in found}


def _integer_results(graph: fx.GraphModule, data: set[fx.Node]) -> list[fx.Node]:
    """Results that integer kernels write: convolutions, then adds and pools of such results."""
    results: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            results[node] = None
        convolution = node.target in _CONVS
        inputs = [_source_of_integer(a) for a in node.all_input_nodes if a in data]
        joined = node.target is aten.add.Tensor or node.target in _POOLS
        if convolution or (joined and inputs and all(i in results for i in inputs)):
            user = next(iter(node.users), None)
            fused = user is not None and len(node.users) == 1 and user.target in _FUSED
            results[user if fused and user is not None else node] = None
    return [node for node in results if node.op != "placeholder"]


def _source_of_integer(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0] if node.target is aten.max_pool2d.default else node


def _float_ops(graph: fx.GraphModule, placement: Placement) -> dict[str, int]:
    """Operators left in floating point, with their number."""
    quiet = _TRANSPARENT | _FUSED
    counts: dict[str, int] = {}
    for node in data_nodes(graph):
        if node.op != "call_function" or node.target in quiet or node in placement.weights:
            continue
        if not isinstance(node.target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
            continue
        inputs = [_source(arg) for arg in node.all_input_nodes]
        integer = node in placement.activations or node.target is aten.add.Tensor
        fed = all(source in placement.activations for source in inputs)
        if fed and (node.target in LAYERS or integer):
            continue
        name = str(node.target).removeprefix("aten.")
        counts[name] = counts.get(name, 0) + 1
    return counts
