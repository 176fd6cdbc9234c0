"""A frozen graph as a CPU runtime computes it fastest: fewer tokens, and tokens as rows.

* What treats tokens one by one (linears, norms, activations, sums of alike) gets them as rows
  ``[b*t d]`` instead of ``[b t d]``. A product of two matrices with a bias is a Gemm, for which
  onnxruntime has a kernel that adds the bias to the integers and may write the next quantizer's
  codes itself; for three axes it has one that does neither. And a norm behind a sum of rows is not
  fused into SkipLayerNormalization, which takes three times as long as the two (docs/LOG.md).
* Where one token is read of all that the last layers write (a class token), those layers are asked
  for that token alone.

Both change the order of nothing that is added up. Simulation and file are made of the same graph,
so they agree about where biases join.
"""

import sys
from typing import Any, cast

import torch
from torch import fx, nn

from roadworthy.core.fold import attribute
from roadworthy.core.grid import ops

aten = torch.ops.aten
_ALIKE = {aten.add.Tensor, aten.mul.Tensor}
_ALONE = {
    aten.linear.default,
    aten.layer_norm.default,
    aten.gelu.default,
    aten.relu.default,
    aten.silu.default,
    aten.tanh.default,
    ops.fake_quantize.default,
}
_VIEWS = {aten.view.default, aten.reshape.default}
_TOKENS = 1
"""The axis of tokens."""


def by_rows(module: fx.GraphModule) -> fx.GraphModule:
    """The same function and the same weights; graphs without shapes stay as they are."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    answer = graph.graph_copy(module.graph, copied)
    graph.output(answer[0] if isinstance(answer, tuple | list) else answer)
    for node in graph.nodes:
        if node.op == "get_attr":  # freezing does not keep the shapes of these
            node.meta["val"] = attribute(module, node)
    for node in reversed(list(graph.nodes)):
        if node.target is aten.slice.Tensor and node.args[2:] == (0, sys.maxsize):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        _ask_less(node)
    _Rows(graph).rewrite()
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(module, graph, class_name=type(module).__name__)


def in_rows(module: nn.Module) -> nn.Module:
    """A frozen graph by rows; a module that holds no integers is written as it is."""
    if not isinstance(module, fx.GraphModule):
        return module
    frozen = any(node.target is ops.dequantize.default for node in module.graph.nodes)
    return by_rows(module) if frozen else module


def _shape(node: Any) -> list[Any] | None:
    """The shape of a tensor's node; quantizers put in later have that of what they quantize."""
    if not isinstance(node, fx.Node):
        return None
    if "val" not in node.meta and node.target is ops.fake_quantize.default:
        return _shape(node.args[0])
    return list(getattr(node.meta.get("val"), "shape", ())) or None


def _tokens(node: fx.Node) -> list[fx.Node] | None:
    """The operands ``[... d]`` whose rows `node` treats one by one; None where it does not."""
    own = _shape(node)
    if own is None or len(own) < 3 or (node.target not in _ALIKE and node.target not in _ALONE):
        return None
    if node.target is aten.layer_norm.default and len(cast("list[int]", node.args[1])) > 1:
        return None
    if node.target in _ALONE:
        first = node.args[0]
        return [first] if isinstance(first, fx.Node) and _shape(first) is not None else None
    found: list[fx.Node] = []
    for operand in node.args[:2]:
        shape = _shape(operand)
        if shape is not None and str(shape) == str(own):
            found.append(cast(fx.Node, operand))
        elif isinstance(operand, fx.Node) and (operand.op != "get_attr" or len(shape or own) > 1):
            return None
    return found or None


def _ask_less(node: fx.Node) -> None:
    """Where all readers of `node` take the same tokens of it, take them of its operands instead."""
    operands, readers = _tokens(node), list(node.users)
    if operands is None or not readers or not all(map(_takes_tokens, readers)):
        return
    if len({str((reader.target, reader.args[1:])) for reader in readers}) > 1:
        return
    taken = readers[0]
    with node.graph.inserting_before(node):
        made = {operand: _taken(operand, taken) for operand in operands}
        less = node.graph.node_copy(node, lambda arg: made.get(arg, arg))
    less.meta["val"] = taken.meta["val"]
    for reader in readers:
        reader.replace_all_uses_with(less)
        node.graph.erase_node(reader)
    node.graph.erase_node(node)


def _takes_tokens(node: fx.Node) -> bool:
    kinds = (aten.select.int, aten.slice.Tensor)
    return node.target in kinds and node.args[1:2] == (_TOKENS,) and "val" in node.meta


def _taken(operand: fx.Node, like: fx.Node) -> fx.Node:
    """What the node `like` takes, of another operand."""
    target = cast(Any, like.target)
    made = operand.graph.call_function(target, (operand, *like.args[1:]))
    made.meta = dict(operand.meta)
    source = operand if "val" in operand.meta else cast(fx.Node, operand.args[0])
    made.meta["val"] = target(source.meta["val"], *like.args[1:])
    return made


class _Rows:
    """Rewrites linears of three axes and more, and what follows them row by row."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._flat: dict[fx.Node, fx.Node] = {}
        self._input = next(node for node in graph.nodes if node.op == "placeholder")

    def rewrite(self) -> None:
        """Node by node, in order: operands are rewritten before what reads them."""
        for node in list(self._graph.nodes):
            operands = _tokens(node)
            starts = node.target is aten.linear.default
            follows = operands is not None and any(o in self._flat for o in operands)
            if operands is not None and (starts or follows) and self._sizes(node) is not None:
                self._flatten(node, operands)
            else:
                self._restore(node)

    def _flatten(self, node: fx.Node, operands: list[fx.Node]) -> None:
        """Put a twin of `node` that works on rows in front of it."""
        with self._graph.inserting_before(node):
            rows = {operand: self._rows(operand) for operand in operands}
            self._flat[node] = self._graph.node_copy(node, lambda arg: rows.get(arg, arg))
        self._flat[node].meta.pop("val", None)

    def _rows(self, operand: fx.Node) -> fx.Node:
        if operand not in self._flat:
            width = cast("list[Any]", _shape(operand))[-1]
            with self._graph.inserting_after(operand):
                flat = self._graph.call_function(aten.reshape.default, (operand, [-1, width]))
            self._flat[operand] = flat
        return self._flat[operand]

    def _restore(self, node: fx.Node) -> None:
        """Give `node`, which is not rewritten, its operands in their own shape; views need none."""
        for operand in node.all_input_nodes:
            flat = self._flat.get(operand)
            if flat is None or flat.target is aten.reshape.default:
                continue
            if node.target in _VIEWS:
                node.replace_input_with(operand, flat)
                continue
            with self._graph.inserting_before(node):
                sizes = [self._asked(size) for size in cast("list[Any]", self._sizes(operand))]
                whole = self._graph.call_function(aten.view.default, (flat, sizes))
            node.replace_input_with(operand, whole)

    def _sizes(self, node: fx.Node) -> list[Any] | None:
        """Its shape: numbers, -1 once for a size that changes, and axes of the input."""
        sizes: list[Any] = []
        for size in cast("list[Any]", _shape(node)):
            given = self._input.meta["val"].shape
            axes = [str(axis) for axis, other in enumerate(given) if str(other) == str(size)]
            if isinstance(size, int):
                sizes.append(size)
            elif -1 not in sizes:
                sizes.append(-1)
            elif axes:
                sizes.append(axes[0])
            else:
                return None
        return sizes

    def _asked(self, size: int | str) -> Any:
        if isinstance(size, int):
            return size
        return self._graph.call_function(aten.sym_size.int, (self._input, int(size)))
