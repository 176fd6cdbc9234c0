"""Token-wise clipping, coarse stage: one ratio for the whole network, judged by its answers.

Source: Outlier Suppression (arXiv 2209.13325), section 4.2. Few tokens carry the outliers, and to
cut them off costs little. Every token's extremes are known after one pass; a ratio says how many
tokens keep theirs; of a grid of ratios that one is taken with which the network, its activations
quantized, answers closest to the float one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx, nn

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.calibrate import check_finite, set_enabled
from roadworthy.compress.engine import Task, whole_model
from roadworthy.compress.learn import enable_weights
from roadworthy.compress.methods import TokenClipping
from roadworthy.compress.ranges import from_limits
from roadworthy.core.padding import at_asked, by_length, shortened, text_mask
from roadworthy.core.predict import Inputs

aten = torch.ops.aten
Extremes = tuple[Float[Tensor, " _"], Float[Tensor, " _"]]
"""Lowest and highest value of each token."""


def token_extremes(
    x: Float[Tensor, " b *s"], mask: Bool[Tensor, "b t"] | None, heads: bool = False
) -> list[Extremes]:
    """Extremes of every token that is none of padding, sample by sample.

    Args:
        x: an activation ``[b t d]``, ``[b h t d]`` of several heads, or ``[b d]`` of whole samples.
        mask: true where a token is none of padding; None where none is.
        heads: the second axis holds heads.
    """
    rows = x.transpose(1, 2).flatten(2) if heads else x.reshape(len(x), -1, x.shape[-1])
    low, high = rows.amin(-1), rows.amax(-1)
    if mask is None or mask.shape != low.shape:
        return list(zip(low, high, strict=True))
    return [(a[m], b[m]) for a, b, m in zip(low, high, mask, strict=True)]


def clip(batches: Sequence[Extremes], ratio: float) -> tuple[float, float]:
    """Limits averaged over batches: on either side the largest extreme within the quantile of
    their sizes at `ratio`.

    >>> clip([(torch.tensor([-1.0, -2.0, -9.0]), torch.tensor([1.0, 3.0, 50.0]))], 0.5)
    (-2.0, 3.0)
    """
    ends = [(-_within(-low, ratio), _within(high, ratio)) for low, high in batches]
    return sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)


def _within(ends: Float[Tensor, " _"], ratio: float) -> float:
    kept = ends[ends <= torch.quantile(ends.abs(), ratio)]
    return float(kept.max() if len(kept) else ends.min())


@torch.no_grad()
def clip_tokens(task: Task, inputs: Inputs, settings: TokenClipping) -> dict[float, float]:
    """Set the ranges of every activation quantizer by the best ratio, weights in floating point.

    Samples are run sorted by length, padding cut off: no answer depends on it. A ratio is given up
    as soon as it is worse than the best one.

    Args:
        task: a model and its quantizers.
        inputs: calibration samples, in the order in which they form batches.
        settings: the grid.

    Returns:
        Mean squared error of the answers by ratio; infinite where given up.
    """
    model, names = whole_model(task), task.quantizers.placement.activations
    acts = {node: _act(model, name) for node, name in names.items()}
    set_enabled(model, False)
    order = by_length(inputs, settings.batch_size)
    answers, seen = _watched(model, acts, inputs, order, settings.batch_size)
    set_enabled(model, True)
    enable_weights(model, False)
    ratios = settings.ratios(min(m.grid.bits for m in acts.values()), _length(inputs))
    errors: dict[float, float] = {}
    for ratio in ratios:
        _set(acts, seen, ratio)
        best = min(errors.values(), default=float("inf"))
        errors[ratio] = _error(model, inputs, order, answers, best)
    _set(acts, seen, min(ratios, key=lambda ratio: errors[ratio]))
    set_enabled(model, True)
    return errors


def _act(model: nn.Module, name: str) -> ActQuantizer:
    module = model.get_submodule(name)
    assert isinstance(module, ActQuantizer)
    return module


def _length(inputs: Inputs) -> int:
    """Tokens of a sample, as the step of the grid counts them: of a text what it is padded to."""
    return 1 if inputs.is_floating_point() else inputs.shape[-1]


def _watched(
    model: nn.Module,
    acts: dict[fx.Node, ActQuantizer],
    inputs: Inputs,
    order: Sequence[Tensor],
    size: int,
) -> tuple[list[Tensor], dict[fx.Node, list[Extremes]]]:
    """The float answers, and the tokens' extremes of each activation in batches of `size`."""
    answers: list[Tensor] = []
    found: dict[fx.Node, dict[int, Extremes]] = {node: {} for node in acts}
    for rows in order:
        x = shortened(inputs[rows])
        for module in acts.values():
            module.seen = []
        answers.append(at_asked(model(x), x))
        for node, module in acts.items():
            (value,), module.seen = module.seen or [], None
            check_finite(value)
            extremes = token_extremes(value, text_mask(x, module.row), heads=_has_heads(node))
            found[node].update(zip(rows.tolist(), extremes, strict=True))
    parts = torch.arange(len(inputs)).split(size)
    joined = {
        node: [_joined([each[int(i)] for i in part]) for part in parts]
        for node, each in found.items()
    }
    return answers, joined


def _joined(extremes: Sequence[Extremes]) -> Extremes:
    low, high = zip(*extremes, strict=True)
    return torch.cat(low), torch.cat(high)


def _has_heads(node: fx.Node) -> bool:
    """Whether an activation is ``[b h t d]``: operands and results of attention's products are."""
    near = (node, *node.users)
    return node.meta["val"].ndim == 4 and any(n.target is aten.matmul.default for n in near)


def _set(
    acts: dict[fx.Node, ActQuantizer], seen: dict[fx.Node, list[Extremes]], ratio: float
) -> None:
    """The ranges that `ratio` gives; probabilities are never clipped."""
    for node, module in acts.items():
        own = 1.0 if node.target is aten.softmax.int else ratio
        low, high = clip(seen[node], own)
        scale, zero = from_limits(torch.tensor([low]), torch.tensor([high]), module.grid)
        module.set_range(scale[0], zero[0])


def _error(
    model: nn.Module,
    inputs: Inputs,
    order: Sequence[Tensor],
    answers: Sequence[Tensor],
    best: float,
) -> float:
    """Mean squared error of the answers; infinite once it is known to be above `best`."""
    total, count = 0.0, sum(answer.numel() for answer in answers)
    for rows, answer in zip(reversed(order), reversed(answers), strict=True):
        x = shortened(inputs[rows])
        total += float((at_asked(model(x), x) - answer).square().sum())
        if total / count > best:
            return float("inf")
    return total / count
