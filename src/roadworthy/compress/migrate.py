"""Gamma Migration: the gain of a LayerNorm moves into what reads it (arXiv 2209.13325, 4.1).

``LN(x) = gamma * x_hat + beta = g * LN'(x)`` with ``LN'(x) = (gamma / g) * x_hat + beta / g`` and,
channel by channel, ``g = gamma``. ``LN'`` is what gets quantized: gamma, which blows some channels
up, is gone from it. Linears take ``g`` into the columns of their weight, everything else reads
``g * LN'``, so the network computes what it did. All is read off the graph's operators and shapes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx

from roadworthy.compress.constants import Constants
from roadworthy.compress.readers import (
    can_absorb,
    inner_nodes,
    is_root_mean_square,
    path_of,
    reads_of,
    reason,
    value_of,
)
from roadworthy.core.fold import attribute

aten = torch.ops.aten

NEAR_ZERO = 1e-3
"""A gamma up to this share of the median one has silenced its channel: it stays in the norm."""
FAR = 20.0
"""Where ``|beta / gamma|`` is larger, ``LN'`` would be a constant far outside what x_hat spans."""

_Change = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Migration:
    """What became of one norm.

    Args:
        norm: its module path; a norm that runs twice is listed twice.
        absorbed: module paths of the linears that took its gamma.
        residual: whether something else reads it, through a multiplication by ``g``.
        kept_channels: channels whose gamma stayed in the norm (see `movable`).
        refused: why it was left as it was, None where it was migrated.
    """

    norm: str
    absorbed: tuple[str, ...] = ()
    residual: bool = False
    kept_channels: int = 0
    refused: str | None = None


def movable(gamma: Float[Tensor, " d"], beta: Float[Tensor, " d"]) -> Bool[Tensor, " d"]:
    """Channels whose gamma moves: ``|gamma| > 1e-3 median |gamma|`` and ``|beta| <= 20 |gamma|``.

    Elsewhere dividing by gamma would stretch the one range of the quantized tensor, for a channel
    that says next to nothing or for a constant. There ``g = 1``.

    >>> movable(torch.tensor([1.0, -2.0, 0.0, 0.1]), torch.tensor([0.0, 1.0, 0.0, 3.0]))
    tensor([ True,  True, False, False])
    """
    size = gamma.double().abs()
    return (size > NEAR_ZERO * size.median()) & (beta.double().abs() <= FAR * size)


def migrate(
    graph: fx.GraphModule, gains: Mapping[str, Float[Tensor, " d"]] | None = None
) -> tuple[Migration, ...]:
    """Migrate, in place, every LayerNorm of a captured graph that an inner linear reads.

    A linear absorbs ``g``, directly or behind operators that leave the channels last and in order,
    into a copy of its weight (computed in float64, kept in the weight's type); calls that share
    weight and norm share the copy. A head, the linear that no layer follows, absorbs nothing: the
    last norm stays, as in the paper, and a tied head stays tied.

    Args:
        graph: from `roadworthy.core.capture.capture`.
        gains: ``g`` by the name of a norm's gamma, in place of gamma itself; norms that are not
            named stay. Any ``g`` but 0 leaves the function as it is.

    Returns:
        One entry per norm in order of execution; those left alone say why.

    >>> from torch import nn
    >>> from roadworthy.core.capture import capture
    >>> net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> _ = nn.init.uniform_(net[0].weight, 1, 9)
    >>> graph = capture(net, torch.zeros(1, 4))
    >>> migrate(graph)
    (Migration(norm='0', absorbed=('1',), residual=False, kept_channels=0, refused=None),)
    >>> x = torch.randn(3, 4)
    >>> torch.allclose(graph(x), net(x), atol=1e-5)
    True
    """
    constants, inner = Constants(graph), inner_nodes(graph)
    found: list[Migration] = []
    for node in list(graph.graph.nodes):
        if node.target is aten.layer_norm.default:
            gain = _gain(graph, node, gains)
            found.append(_migrate(node, gain, constants, inner))
        elif node.target is aten.rms_norm.default or is_root_mean_square(node):
            reason = "RMSNorm: migration is stated for LayerNorm; without beta there is no LN'"
            found.append(Migration(path_of(node), refused=reason))
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return tuple(found)


@dataclass(frozen=True)
class _Gain:
    """``g`` of a norm in float64, 1 where gamma does not move; `key` says whose it is."""

    value: Float[Tensor, " d"]
    moves: Bool[Tensor, " d"]
    key: str


def _change(
    constants: Constants, reader: fx.Node, position: int, gain: _Gain, change: _Change
) -> None:
    """Let `reader` read ``change(constant, g)`` at `position`, in the constant's own type."""
    origin = reader.args[position]
    value = attribute(constants.graph, origin)
    assert isinstance(origin, fx.Node)
    assert value is not None
    changed = change(value.double(), gain.value).to(value.dtype)
    constants.put(reader, position, (str(origin.target), gain.key, change), changed)


def _migrate(
    norm: fx.Node, gain: _Gain | str, constants: Constants, inner: set[fx.Node]
) -> Migration:
    graph = constants.graph
    if isinstance(gain, str):
        return Migration(path_of(norm), refused=gain)
    reads = reads_of(norm, lambda user: user in inner and can_absorb(graph, user, gain.value))
    if not reads.linears:
        return Migration(path_of(norm), refused=reason([r for _, r in reads.others], inner))
    for source in dict.fromkeys(source for source, _ in reads.others):
        _restore(source, [r for s, r in reads.others if s is source], norm, gain, constants)
    for linear in reads.linears:
        _change(constants, linear, 1, gain, torch.mul)
    for position in _affine(norm):
        _change(constants, norm, position, gain, torch.div)
    names = tuple(path_of(linear) for linear in reads.linears)
    return Migration(path_of(norm), names, bool(reads.others), int((~gain.moves).sum()))


def _affine(norm: fx.Node) -> list[int]:
    """Positions of gamma and beta among the arguments, as far as they are given."""
    return [at for at, given in enumerate(norm.args[:4]) if at >= 2 and given is not None]


def _gain(graph: fx.GraphModule, norm: fx.Node, gains: Mapping[str, Tensor] | None) -> _Gain | str:
    """What moves out of `norm`, or why nothing does."""
    places = _affine(norm)
    given = [attribute(graph, norm.args[place]) for place in places]
    gamma, beta = (*given, None, None)[:2]
    if places[:1] != [2]:
        return "no gamma"
    if gamma is None or None in given[1:]:
        return "gamma or beta is computed in the graph"
    if gamma.ndim != 1 or gamma.dtype != value_of(norm).dtype:
        return (
            f"gamma has {gamma.ndim} axes and is {gamma.dtype}; one, of the values' type, may move"
        )
    names = [str(getattr(norm.args[place], "target", None)) for place in places]
    if gains is None:
        moves = movable(gamma, torch.zeros_like(gamma) if beta is None else beta)
        gain = torch.where(moves, gamma.double(), 1.0)
    else:
        gain = gains.get(names[0], torch.ones_like(gamma)).double()
        moves = gain != 1
    # A gain that was asked for moves even if it is one: which nodes there are is a matter of names.
    if names[0] not in (gains or {}) and bool((gain == 1).all()):
        return "nothing to move: every gamma is one, zero or far smaller than its beta"
    return _Gain(gain, moves, " ".join(names))


def _restore(
    source: fx.Node, readers: list[fx.Node], norm: fx.Node, gain: _Gain, constants: Constants
) -> None:
    """One ``g * source`` for all of `readers`."""
    graph = constants.graph.graph
    with graph.inserting_after(source):
        restored = graph.call_function(aten.mul.Tensor, (source, norm.args[2]))
    restored.meta = dict(source.meta)
    _change(constants, restored, 1, gain, _gain_itself)
    for reader in readers:
        reader.replace_input_with(source, restored)


def _gain_itself(_: Tensor, gain: Tensor) -> Tensor:
    return gain
