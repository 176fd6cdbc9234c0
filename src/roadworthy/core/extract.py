"""Copy a part of a captured graph into a module of its own, quantizers included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from roadworthy.core.units import data_nodes, side_nodes
from roadworthy.errors import BadModel

aten = torch.ops.aten


@dataclass(frozen=True)
class Placement:
    """Which quantizer sits where: behind a node's output, and in front of a layer's weight, or of
    an embedding's table.

    Values are names of sub-modules: an activation's is called with the tensor, a weight's and a
    bias's with nothing; all return the tensor to use instead.
    """

    activations: Mapping[fx.Node, str] = field(default_factory=dict[fx.Node, str])
    weights: Mapping[fx.Node, str] = field(default_factory=dict[fx.Node, str])
    biases: Mapping[fx.Node, str] = field(default_factory=dict[fx.Node, str])


@dataclass(frozen=True)
class Part:
    """`nodes` of a graph between `entry` (their only outside tensor) and `exit`.

    Of a text model they may ask for its tokens besides.
    """

    nodes: Sequence[fx.Node]
    entry: fx.Node
    exit: fx.Node


def whole(graph: fx.GraphModule) -> Part:
    """The graph as one part."""
    nodes = data_nodes(graph)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    result = output.args[0]
    return Part(nodes[1:], nodes[0], result[0] if isinstance(result, tuple | list) else result)


def extract(
    graph: fx.GraphModule,
    part: Part,
    quantizers: Mapping[str, nn.Module] | None = None,
    placement: Placement | None = None,
) -> fx.GraphModule:
    """A module that computes `part`, with `quantizers` inserted as `placement` says.

    Parameters, buffers and quantizers are shared with `graph`, not copied. Of a text model, a part
    that does not begin with the tokens takes them as its second argument.
    """
    copier = _Copier(graph, part, placement or Placement())
    for node in part.nodes:
        copier.take(node)
    copier.graph.output(copier.made[part.exit])
    for node in reversed(copier.graph.nodes):
        if node.op == "get_attr" and not node.users:
            copier.graph.erase_node(node)  # replaced by a quantizer
    root = nn.Module()
    for node in copier.graph.nodes:
        if node.op == "get_attr":
            _share(root, graph, str(node.target))
    for name, module in (quantizers or {}).items():
        if any(n.op == "call_module" and n.target == name for n in copier.graph.nodes):
            root.add_module(name, module)
    return fx.GraphModule(root, copier.graph, class_name="Part")


def _share(root: nn.Module, graph: fx.GraphModule, target: str) -> None:
    *path, leaf = target.split(".")
    source: Any = graph
    for part in path:
        source = getattr(source, part)
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    value = getattr(source, leaf)
    if not hasattr(root, leaf):
        if isinstance(value, nn.Parameter):
            root.register_parameter(leaf, value)
        else:
            root.register_buffer(leaf, value)


class _Copier:
    """Copies nodes one by one; what a node needs from outside is copied along or re-derived."""

    def __init__(self, source: fx.GraphModule, part: Part, placement: Placement) -> None:
        self.graph = fx.Graph()
        self.placement = placement
        self.entry = part.entry
        self.inside = set(part.nodes)
        self.data, self.side = set(data_nodes(source)), side_nodes(source)
        self.inputs = [self._placeholder("x", part.entry)]
        self.made: dict[fx.Node, fx.Node] = {part.entry: self.inputs[0]}
        if self.side and part.entry.op != "placeholder":
            tokens = data_nodes(source)[0]
            self.inputs.append(self._placeholder("tokens", tokens))
            self.made[tokens] = self.inputs[1]
        if part.entry.op == "placeholder":
            self._quantize_output(part.entry)

    def _placeholder(self, name: str, of: fx.Node) -> fx.Node:
        made = self.graph.placeholder(name)
        made.meta["val"] = of.meta.get("val")
        return made

    def take(self, node: fx.Node) -> fx.Node:
        self.made[node] = self._copied(node)
        self._quantize_output(node)
        return self.made[node]

    def _copied(self, node: fx.Node) -> fx.Node:
        made = self.graph.node_copy(node, self._argument)
        weight = 0 if node.target is aten.embedding.default else 1
        for position, names in ((weight, self.placement.weights), (2, self.placement.biases)):
            if node in names:
                with self.graph.inserting_before(made):
                    made.update_arg(position, self.graph.call_module(names[node]))
        return made

    def _quantize_output(self, node: fx.Node) -> None:
        name = self.placement.activations.get(node)
        if name is not None:
            made = self.graph.call_module(name, (self.made[node],))
            made.meta = dict(node.meta)
            self.made[node] = made

    def _argument(self, node: fx.Node) -> fx.Node:
        if node in self.made:
            return self.made[node]
        if node.target is aten.sym_size.int and node.args[0] not in self.inside:
            self.made[node] = self._size(node)
        elif node in self.data and node not in self.side:
            raise BadModel(f"{node.name} lies outside the part that starts at {self.entry.name}")
        else:
            self.made[node] = self._copied(node)
        return self.made[node]

    def _size(self, node: fx.Node) -> fx.Node:
        """A size of a tensor outside, asked of the part's own inputs where the two are equal."""
        wanted = node.meta["val"]
        for given in self.inputs:
            for axis, size in enumerate(given.meta["val"].shape):
                if str(size) == str(wanted):
                    return self.graph.call_function(aten.sym_size.int, (given, axis))
        raise BadModel(f"size {wanted} of {node.args[0]} is unknown at {self.entry.name}")
