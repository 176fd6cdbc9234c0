"""Units of reconstruction: a chain of sub-graphs, each with one input and one output.

The chain is cut where exactly one tensor is alive: whatever the model, a sub-graph between two
such places has a single entry and a single exit. The module hierarchy then says which neighbours
belong together: the stages of an inverted residual form one unit, the convolutions of a plain
stack do not (QDrop, arXiv 2203.05740, takes blocks as units).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from roadworthy.core.capture import module_path
from roadworthy.core.fold import attribute
from roadworthy.core.predict import answered
from roadworthy.errors import BadModel

aten = torch.ops.aten

LAYERS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.linear.default,
    aten.matmul.default,
    aten.bmm.default,
}
"""Operators that carry quantizers on their inputs."""

ELEMENTWISE = {
    aten.relu.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.silu.default,
    aten.gelu.default,
    aten.sigmoid.default,
    aten.leaky_relu.default,
    aten.elu.default,
}
_ANSWER_IDS = 2
"""Their row, where texts are answered by texts."""
_CONTAINERS = ("torch.nn.modules.container.Sequential", "torch.nn.modules.container.ModuleList")

Segment = list[fx.Node]


@dataclass(frozen=True)
class Unit:
    """A part of the graph: `nodes` in order, fed by `entry`, read at `exit`.

    `layers` are the quantizable operators in it; a unit without any is only passed through.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    entry: fx.Node
    exit: fx.Node
    layers: tuple[fx.Node, ...]


def partition(
    graph: fx.GraphModule, quantized: Iterable[fx.Node] = (), blocks: Sequence[str] = ()
) -> list[Unit]:
    """Cut `graph` into its chain of units.

    Args:
        graph: a captured graph of one input and one output.
        quantized: nodes whose output gets a quantizer; what computes one ahead of a layer joins
            the unit of that layer.
        blocks: module paths to take as units in place of those found.

    Raises:
        BadModel: a path of `blocks` is no module or cannot be cut out.
    """
    segments = _segments(graph)
    paths = _chosen_paths(segments, blocks)
    groups = _group(segments[1:], paths, set(quantized))
    return _units(groups, entry=segments[0][-1])


def data_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes that hold activations: everything that depends on the input and is no plain number."""
    found: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        fed = node.op == "placeholder" or any(s in found for s in node.all_input_nodes)
        if fed and not _is_number(node) and node.op != "output":
            found[node] = None
    return list(found)


def side_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """What the tokens of texts say without any weight, such as an attention mask.

    It is alive from end to end of a network; a unit makes what it needs of it out of the tokens.
    """
    entry, *nodes = data_nodes(graph)
    if entry.meta["val"].is_floating_point():
        return set()
    found, data = {entry}, {entry, *nodes}
    for node in nodes:
        inputs = node.all_input_nodes
        if all(s in found or (s not in data and not _is_weight(graph, s)) for s in inputs):
            found.add(node)
    return found


def decoder_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """What depends on the answer's ids, where texts are answered by texts."""
    entry, *nodes = data_nodes(graph)
    if not answered(entry.meta["val"]):
        return set()
    found, rows = set[fx.Node](), {entry}
    for node in nodes:
        of_rows = node.args[0] in rows
        if node.target is aten.slice.Tensor and of_rows:
            rows.add(node)
        ids = node.target is aten.select.int and of_rows and node.args[1:] == (1, _ANSWER_IDS)
        if ids or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _is_number(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt | int | float | bool)


def _is_weight(graph: fx.GraphModule, node: fx.Node) -> bool:
    value = attribute(graph, node)
    return value is not None and value.is_floating_point() and value.ndim > 0


def _segments(graph: fx.GraphModule) -> list[Segment]:
    """Shortest runs of data nodes between places where one tensor is alive; the input is first."""
    side, (entry, *rest) = side_nodes(graph), data_nodes(graph)
    nodes = [entry, *(node for node in rest if node not in side)]
    place = {node: index for index, node in enumerate(nodes)}
    last_use = [
        max((place.get(user, len(nodes)) for user in node.users if _reads(user, side)), default=i)
        for i, node in enumerate(nodes)
    ]
    segments: list[Segment] = []
    run: Segment = []
    furthest = 0  # last use of anything computed before the current node
    for index, node in enumerate(nodes):
        run.append(node)
        if furthest <= index:
            segments.append(run)
            run = []
        furthest = max(furthest, last_use[index])
    return [*segments, run] if run else segments


def _reads(user: fx.Node, side: set[fx.Node]) -> bool:
    """A size query keeps no tensor alive: a unit asks its own input instead."""
    return user.target is not aten.sym_size.int and user not in side


def _layers(segment: Iterable[fx.Node]) -> list[fx.Node]:
    return [node for node in segment if node.target in LAYERS]


def _chosen_paths(segments: list[Segment], blocks: Sequence[str]) -> list[str]:
    """Module paths that are units, from the hierarchy or as the user asked."""
    inside: dict[str, set[fx.Node]] = {}
    kinds: dict[str, str] = {}
    for node in (layer for segment in segments for layer in _layers(segment)):
        for path, kind in module_path(node):
            inside.setdefault(path, set()).add(node)
            kinds[path] = kind
    whole = {path for path, layers in inside.items() if _single_entry(segments, layers)}
    for path in blocks:
        if path not in whole:
            why = (
                "has more than one way in or out" if path in inside else "is no module with layers"
            )
            raise BadModel(f"block {path!r} {why}; see `roadworthy blocks MODEL` for the choice")
    if blocks:
        return list(blocks)
    sized = {p for p in whole if len(inside[p]) > 1 and kinds[p] not in _CONTAINERS}

    def holds_blocks(path: str) -> bool:
        """A stage repeats one kind of module; attention and MLP are parts of one block."""
        inner = {p for p in sized if p.startswith(path + ".") and inside[p] < inside[path]}
        by_kind: dict[str, list[str]] = {}
        for p in inner:
            by_kind.setdefault(kinds[p], []).append(p)
        repeated = [p for same in by_kind.values() if len(same) > 1 for p in same]
        covered = set[fx.Node]().union(*(inside[p] for p in repeated))
        return 2 * len(covered) > len(inside[path])

    candidates = [p for p in sized if not holds_blocks(p)]
    return [p for p in candidates if not any(p.startswith(q + ".") for q in candidates)]


def _single_entry(segments: list[Segment], layers: set[fx.Node]) -> bool:
    """Whether `layers` are all the layers of a run of neighbouring segments."""
    touched = [i for i, segment in enumerate(segments) if layers & set(segment)]
    span = segments[touched[0] : touched[-1] + 1]
    return all(layer in layers for segment in span for layer in _layers(segment))


def _group(
    segments: list[Segment], paths: list[str], quantized: set[fx.Node]
) -> list[list[Segment]]:
    """Join neighbouring segments: those of one block, and those without layers where they fit."""
    groups: list[list[Segment]] = []
    waiting: list[Segment] = []  # without a layer, place still open
    current: str | None = None
    for segment in segments:
        if not _layers(segment):
            waiting.append(segment)
            continue
        block = _block_of(segment, paths)
        if block is not None and block == current:
            groups[-1] += [*waiting, segment]
        else:
            ahead = _settle(groups, waiting, quantized)
            groups.append([*ahead, segment])
        waiting, current = [], block
    rest = _settle(groups, waiting, quantized)
    return [*groups, rest] if rest else groups


def _block_of(segment: Segment, paths: list[str]) -> str | None:
    stacks = [{path for path, _ in module_path(layer)} for layer in _layers(segment)]
    return next((p for p in paths if any(p in stack for stack in stacks)), None)


def _settle(
    groups: list[list[Segment]], waiting: list[Segment], quantized: set[fx.Node]
) -> list[Segment]:
    """Activations go behind the last layer, pooling and the like apart; returns what goes ahead."""
    behind = 0
    while groups and behind < len(waiting) and waiting[behind][-1].target in ELEMENTWISE:
        groups[-1].append(waiting[behind])
        behind += 1
    rest = waiting[behind:]
    first = next((i for i, s in enumerate(rest) if quantized & set(s)), len(rest))
    if first:
        groups.append(rest[:first])
    return rest[first:]


def _units(groups: list[list[Segment]], entry: fx.Node) -> list[Unit]:
    units: list[Unit] = []
    for group in groups:
        nodes = tuple(node for segment in group for node in segment)
        layers = tuple(_layers(nodes))
        units.append(Unit(_name(layers) or nodes[-1].name, nodes, entry, nodes[-1], layers))
        entry = nodes[-1]
    return units


def _name(layers: Sequence[fx.Node]) -> str:
    """Longest module path that all layers share."""
    stacks = [[path for path, _ in module_path(layer)] for layer in layers]
    shared = [path for path in (stacks[0] if stacks else []) if all(path in s for s in stacks)]
    return (shared or [*stacks[0], layers[0].name])[-1] if layers else ""
