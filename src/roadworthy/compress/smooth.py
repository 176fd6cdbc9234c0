"""SmoothQuant for every LayerNorm: channels traded between what a norm writes and what reads it.

Source: SmoothQuant (arXiv 2211.10438), ``g = max|X|^a / max|W|^(1 - a)`` channel by channel. The
public code stops at norms that a residual branch reads (post-LN, as in BERT); behind `migrate` that
branch multiplies by ``g`` again, so that every norm can be smoothed.
"""

import torch
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.compress.migrate import Migration, migrate
from roadworthy.compress.outliers import watch_norms
from roadworthy.compress.readers import gamma_of
from roadworthy.core.fold import attribute
from roadworthy.core.predict import Inputs

aten = torch.ops.aten
LEAST = 1e-3
"""Of the median channel's size: what a silent channel counts as."""


def smooth(graph: fx.GraphModule, inputs: Inputs, alpha: float) -> tuple[Migration, ...]:
    """Smooth, in place, every norm of a captured graph that an inner linear reads.

    Args:
        graph: from `roadworthy.core.capture.capture`.
        inputs: calibration samples; padding does not count.
        alpha: how much of a channel's size leaves the activation: 1 makes all channels of a norm
            equally large, whatever that does to the weights; 0 does so to the weights.
    """
    return migrate(graph, gains(graph, inputs, alpha))


def gains(graph: fx.GraphModule, inputs: Inputs, alpha: float) -> dict[str, Float[Tensor, " d"]]:
    """``g`` of every norm by the name of its gamma, with a geometric mean of 1."""
    found = dict[str, Tensor]()
    for gamma, size in _sizes(graph, inputs).items():
        gain = _floored(size) ** alpha
        weight = _largest_weight(graph, gamma)
        if weight is not None:
            gain = gain / _floored(weight) ** (1 - alpha)
        found[gamma] = gain / gain.log().mean().exp()
    return found


def _floored(size: Tensor) -> Tensor:
    return size.double().clamp(min=max(LEAST * float(size.median()), 1e-12))


def _sizes(graph: fx.GraphModule, inputs: Inputs) -> dict[str, Tensor]:
    """Largest size of every channel behind each norm; norms that share a gamma count together."""
    found = dict[str, Tensor]()

    def keep(norm: fx.Node, values: Tensor, _: Tensor) -> None:
        gamma, size = gamma_of(norm), values.abs().amax(0)
        if gamma is not None:
            found[gamma] = torch.maximum(size, found.get(gamma, size))

    watch_norms(graph, inputs, keep)
    return found


def _largest_weight(graph: fx.GraphModule, gamma: str) -> Tensor | None:
    """Largest size of every column of the linears that read a norm directly."""
    norms = [node for node in graph.graph.nodes if gamma_of(node) == gamma]
    linears = [u for norm in norms for u in norm.users if u.target is aten.linear.default]
    weights = [w for u in linears if (w := attribute(graph, u.args[1])) is not None]
    return torch.stack([w.abs().amax(0) for w in weights]).amax(0) if weights else None
