"""Who reads the channels of a norm: read off the graph's operators and shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.core.capture import module_path
from roadworthy.core.fold import attribute
from roadworthy.core.units import LAYERS

aten = torch.ops.aten

_COPIES = {
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten._to_copy.default,
}
# They keep the elements in row-major order, or cut other axes: if the last axis is as long behind
# them as before, it still is the channels.
_RESHAPES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.default,
    aten.expand.default,
    aten.slice.Tensor,
}
_PICKS = {aten.select.int, aten.mean.dim, aten.index.Tensor, aten.adaptive_avg_pool1d.default}
_FACTORS = {
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.mul.Tensor,
    aten.div.Tensor,
}
"""A summand does not get through: padding would have to be ``-z / g``, a mask would scale it."""
_MOVES = _COPIES | _RESHAPES | {aten.permute.default, aten.transpose.int}


@dataclass(frozen=True)
class Reads:
    """Linears that absorb a norm's gain; (tensor, reader) of all that needs it restored."""

    linears: list[fx.Node] = field(default_factory=list[fx.Node])
    others: list[tuple[fx.Node, fx.Node]] = field(default_factory=list[tuple[fx.Node, fx.Node]])


def gamma_of(node: fx.Node) -> str | None:
    """The name of a norm's gamma; None of any other node."""
    if node.target is not aten.layer_norm.default or len(node.args) < 3:
        return None
    given = node.args[2]
    return str(given.target) if isinstance(given, fx.Node) else None


def can_absorb(graph: fx.GraphModule, user: fx.Node, gain: Float[Tensor, " d"]) -> bool:
    """Whether `user` is a linear of constant weight whose type can hold the scaled columns."""
    if user.target is not aten.linear.default:
        return False
    weight, *bias = (attribute(graph, arg) for arg in user.args[1:] if arg is not None)
    if weight is None or None in bias:
        return False
    return bool((weight.double() * gain).to(weight.dtype).isfinite().all())


def reads_of(node: fx.Node, absorbs: Callable[[fx.Node], bool], shifted: bool = False) -> Reads:
    """Who reads the channels of `node`, here or behind what leaves them alone: what commutes with
    a factor per channel, and if `shifted` with a summand as well."""
    found = Reads()
    for user in node.users:
        passes = _passes(user, node) and not (shifted and user.target in _FACTORS)
        behind = reads_of(user, absorbs, shifted) if passes else Reads()
        if absorbs(user):
            found.linears.append(user)
        elif behind.linears:
            found.linears.extend(behind.linears)
            found.others.extend(behind.others)
        elif user.target is not aten.sym_size.int:
            found.others.append((node, user))
    return found


def _passes(user: fx.Node, node: fx.Node) -> bool:
    """Whether ``user(g * node) = g * user(node)``, the last axis being the channels of both."""
    if not isinstance(user.meta.get("val"), Tensor):
        return False
    before, after = value_of(node), value_of(user)
    if after.dtype != before.dtype or after.shape[-1:] != before.shape[-1:]:
        return False
    last = before.ndim - 1
    match user.target:
        case aten.permute.default:
            return _axes(user.args[1], before)[-1] == last
        case aten.transpose.int:
            return last not in _axes(user.args[1:3], before)
        case aten.roll.default:
            return len(user.args) > 2 and last not in _axes(user.args[2], before)
        case aten.pad.default | aten.constant_pad_nd.default:
            return _pads_zeros_elsewhere(user)
        case aten.mul.Tensor | aten.div.Tensor:
            return _is_row_factor(user, node)
        case _:
            return user.target in _COPIES | _RESHAPES


def _axes(axes: Any, of: Tensor) -> list[int]:
    return [axis % of.ndim for axis in axes]


def _pads_zeros_elsewhere(pad: fx.Node) -> bool:
    _, widths, *rest = pad.args
    zeros = all(value in ("constant", None, 0) for value in rest) and not pad.kwargs
    return zeros and list(cast("Sequence[object]", widths))[:2] == [0, 0]


def _is_row_factor(product: fx.Node, node: fx.Node) -> bool:
    """Whether `product` multiplies or divides each row of `node` by one number, as a mask does."""
    left, right = product.args
    if right is node and product.target is aten.mul.Tensor:
        left, right = right, left
    factor = right.meta.get("val") if isinstance(right, fx.Node) else right
    width = factor.shape[-1:] if isinstance(factor, Tensor) else ()
    return left is node and width in ((), (1,)) and value_of(node).shape[-1] != 1


def reason(readers: list[fx.Node], inner: set[fx.Node]) -> str:
    """Why a norm without an absorbing linear stays as it is."""
    ends = dict.fromkeys(_end(reader, inner) for reader in readers)
    last = all(end.startswith("the model's") for end in ends)
    return ("last norm: read by " if last else "no linear absorbs it: read by ") + ", ".join(ends)


def _end(reader: fx.Node, inner: set[fx.Node]) -> str:
    """What reads the norm, behind views and transposes."""
    while reader.target in _MOVES and len(reader.users) == 1:
        reader = next(iter(reader.users))
    if reader.op == "output":
        return "the model's output"
    name = str(reader.target).removeprefix("aten.").partition(".")[0]
    if reader.target in _PICKS:
        return f"the model's pooler ({name})"
    if reader.target is aten.linear.default and reader not in inner:
        return "the model's head"
    return name


def inner_nodes(graph: fx.GraphModule) -> set[fx.Node]:
    """Nodes that a layer follows."""
    found: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if any(user in found or user.target in LAYERS for user in node.users):
            found.add(node)
    return found


def is_root_mean_square(node: fx.Node) -> bool:
    """``rsqrt(mean(x ** 2) + eps)``; of a centred x it would be a LayerNorm."""
    if node.target is not aten.rsqrt.default:
        return False
    inside = node.all_input_nodes[0]
    mean = inside.all_input_nodes[0] if inside.target is aten.add.Tensor else inside
    square = mean.all_input_nodes[0] if mean.target is aten.mean.dim else mean
    if square.target is not aten.pow.Tensor_Scalar or square.args[1] != 2:
        return False
    return square.all_input_nodes[0].target is not aten.sub.Tensor


def value_of(node: fx.Node) -> Tensor:
    """The tensor that capture saw."""
    return node.meta["val"]


def path_of(node: fx.Node) -> str:
    """Module path of a node, its name where it has none."""
    stack = module_path(node)
    return stack[-1][0] if stack else node.name
