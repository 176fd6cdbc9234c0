"""What runtimes get wrong inside a network: pooling's rounding and how maps are enlarged.

Changed in the captured graph, so that any architecture can be asked.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

# Where ceil_mode stands among the arguments, and what those before it are when left out.
_POOLS: dict[Any, tuple[int, tuple[Any, ...]]] = {
    aten.max_pool2d.default: (5, ([1, 1], [], [0, 0], [1, 1], False)),
    aten.avg_pool2d.default: (4, ([1, 1], [], [0, 0], False)),
}


def changes(graph: fx.GraphModule) -> tuple[str, ...]:
    """The changes that `graph` admits.

    >>> from roadworthy.core.capture import capture
    >>> net = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Upsample(scale_factor=2))
    >>> changes(capture(net, torch.zeros(1, 3, 7, 7)))
    ('ceil-mode', 'upsample-bilinear')
    """
    return tuple(name for name, change in _CHANGES.items() if any(map(change, _copied(graph))))


def changed(graph: fx.GraphModule, name: str) -> fx.GraphModule:
    """A copy of `graph` with the change in every place where it applies."""
    copied = copy.deepcopy(graph)
    for node in list(copied.graph.nodes):
        _CHANGES[name](node)
    copied.graph.lint()
    copied.recompile()
    return copied


def _copied(graph: fx.GraphModule) -> list[fx.Node]:
    return list(copy.deepcopy(graph.graph).nodes)


def _ceil_mode(node: fx.Node) -> bool:
    """Pools round the size of their output up; those that do already, or keep the size, stay."""
    if node.target not in _POOLS:
        return False
    place, defaults = _POOLS[node.target]
    given = [*node.args, *defaults[len(node.args) - 1 :]][: place + 1]
    stride = given[2] or given[1]
    if given[place] or node.kwargs.get("ceil_mode") or max(stride) == 1:  # pyright: ignore
        return False
    given[place] = True
    node.args = (*given, *node.args[place + 1 :])
    return True


def _bilinear(node: fx.Node) -> bool:
    if node.target is not aten.upsample_nearest2d.vec:
        return False
    x, size, factors = (*node.args, None)[:3]
    node.target = aten.upsample_bilinear2d.vec
    node.args = (x, size, False, factors)
    return True


def _nearest(node: fx.Node) -> bool:
    if node.target is not aten.upsample_bilinear2d.vec:
        return False
    x, size, _, factors = (*node.args, None)[:4]
    node.target = aten.upsample_nearest2d.vec
    node.args = (x, size, factors)
    return True


def _corners(node: fx.Node) -> bool:
    if node.target is not aten.upsample_bilinear2d.vec:
        return False
    x, size, aligned, factors = (*node.args, None)[:4]
    node.args = (x, size, not aligned, factors)
    return True


_CHANGES: dict[str, Callable[[fx.Node], Any]] = {
    "ceil-mode": _ceil_mode,
    "upsample-bilinear": _bilinear,
    "upsample-nearest": _nearest,
    "align-corners": _corners,
}
