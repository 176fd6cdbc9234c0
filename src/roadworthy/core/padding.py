"""Texts of different length in one tensor: what is padding, and how little of it is computed.

Texts are rows ``[b r t]`` of ids, attention mask and types; images ``[b c h w]`` have no padding
and pass through every function here as they are.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from roadworthy.core.predict import Inputs


def text_mask(inputs: Tensor) -> Bool[Tensor, "b t"] | None:
    """Which tokens of texts are none of padding; None of images, and of what they became inside."""
    return None if inputs.is_floating_point() else inputs[:, 1].bool()


def cut(rows: Tensor, length: int) -> Tensor:
    """The first `length` tokens of texts ``[b r t]`` or activations ``[b t d]``; others whole."""
    if not rows.is_floating_point():
        return rows[..., :length]
    return rows[:, :length] if rows.ndim == 3 else rows


def longest(mask: Bool[Tensor, "b t"]) -> int:
    """Tokens up to the last one that is not padding in some text; 1 where all are.

    >>> longest(torch.tensor([[True, True, False], [False, True, False]]))
    2
    """
    used = mask.any(0).nonzero()
    return int(used.max()) + 1 if len(used) else 1


def shortened(inputs: Inputs) -> Tensor:
    """Texts without the tokens at the right end that are padding in all of them.

    >>> shortened(torch.tensor([[[7, 8, 0, 0], [1, 1, 0, 0]]])).shape
    torch.Size([1, 2, 2])
    """
    mask = text_mask(inputs)
    return inputs if mask is None else cut(inputs, longest(mask))


def tokens_of(x: Float[Tensor, "..."], inputs: Tensor) -> Float[Tensor, "..."]:
    """Values of an activation ``[b t d]``, ``[b*t d]`` or ``[b h t d]`` at the tokens that are no
    padding.

    All of it where `inputs` are images, or it has no axis of tokens.
    """
    mask = text_mask(inputs)
    if mask is None:
        return x
    if x.ndim < 3:  # ``[b d]`` has no axis of tokens, though d may be their number
        return x[mask.flatten()] if x.ndim == 2 and len(x) == mask.numel() else x
    rows = x.transpose(1, 2) if x.ndim == 4 else x
    return rows[mask] if rows.shape[:2] == mask.shape else x


def by_length(inputs: Inputs, size: int) -> list[Int[Tensor, " _"]]:
    """Indices of texts of about equal length, `size` at a time; images in their order."""
    mask = text_mask(inputs)
    places = torch.arange(len(inputs)) if mask is None else mask.sum(1).argsort(stable=True).cpu()
    return list(places.split(size))


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], inputs: Inputs, size: int = 64
) -> Float[Tensor, " b *k"]:
    """Answers of `function`, `size` inputs at a time, in the order of the inputs.

    Texts of about equal length are asked together, padding cut off: no answer depends on it.
    """
    order = by_length(inputs, size)
    answers = torch.cat([function(shortened(inputs[rows])) for rows in order])
    return answers[torch.cat(order).argsort()]
