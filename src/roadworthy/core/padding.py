"""Texts of different length in one tensor: what is padding, and how little of it is computed.

Texts are rows ``[b r t]`` of ids, attention mask and types. Those that are answered by texts have
four rows: ids and mask of the text, and of what its answer begins with. Images ``[b c h w]`` have
no padding and pass through every function here as they are.
"""

from collections.abc import Callable
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from roadworthy.core.predict import Inputs, answered

ENCODED, DECODED = 1, 3
"""Rows of the masks of texts, and of their answers."""
IMPOSSIBLE = -1e9
"""A logit of no probability, whose differences are none."""


def text_mask(inputs: Tensor, row: int = ENCODED) -> Bool[Tensor, "b t"] | None:
    """Which tokens of texts are none of padding; None of images, and of what they became inside.

    Args:
        inputs: images or texts.
        row: of the mask, `ENCODED` or `DECODED`.
    """
    return None if inputs.is_floating_point() else inputs[:, row].bool()


def used(inputs: Tensor) -> Bool[Tensor, "b t"] | None:
    """Which columns of texts hold a token in some row; None of images."""
    mask = text_mask(inputs)
    return inputs[:, ENCODED::2].bool().any(1) if answered(inputs) else mask


def at_asked(answers: Float[Tensor, " b *s"], inputs: Tensor) -> Float[Tensor, " m *r"]:
    """Of answers ``[b t k]`` about tokens those at tokens that are none of padding ``[m k]``.

    Others ``[b k]`` are asked for as a whole.
    """
    if inputs.is_floating_point() or answers.ndim != 3:
        return answers
    return answers[inputs[:, DECODED if answered(inputs) else ENCODED].bool()]


def choices(answers: Float[Tensor, " m *k"], inputs: Inputs) -> Float[Tensor, " n *c"]:
    """Answers of `in_batches` with what is chosen from on the last axis: the classes, those of
    every place of a map ``[n h w k]``, or, where each token of texts is answered, the tokens of a
    text ``[n k t]``, `IMPOSSIBLE` at padding."""
    mask = text_mask(inputs)
    if mask is None and answers.ndim == 4:
        return answers.movedim(1, -1)
    if mask is None or answered(inputs) or len(answers) in (len(inputs), 0):
        return answers
    placed = answers.new_full((*mask.shape, answers.shape[-1]), IMPOSSIBLE)
    placed[mask] = answers
    return placed.transpose(1, 2)


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
    mask = used(inputs)
    return inputs if mask is None else cut(inputs, longest(mask))


def tokens_of(x: Float[Tensor, "..."], inputs: Tensor, row: int = ENCODED) -> Float[Tensor, "..."]:
    """Values of an activation ``[b t d]``, ``[b*t d]`` or ``[b h t d]`` at the tokens that are no
    padding.

    All of it where `inputs` are images, or it has no axis of tokens. `row` is that of their mask.
    """
    mask = text_mask(inputs, row)
    if mask is None:
        return x
    if x.ndim < 3:  # ``[b d]`` has no axis of tokens, though d may be their number
        return x[mask.flatten()] if x.ndim == 2 and len(x) == mask.numel() else x
    rows = x.transpose(1, 2) if x.ndim == 4 else x
    return rows[mask] if rows.shape[:2] == mask.shape else x


def by_length(inputs: Inputs, size: int) -> list[Int[Tensor, " _"]]:
    """Indices of texts of about equal length, `size` at a time; images in their order."""
    mask = used(inputs)
    places = torch.arange(len(inputs)) if mask is None else mask.sum(1).argsort(stable=True).cpu()
    return list(places.split(size))


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], inputs: Inputs, size: int = 64
) -> Float[Tensor, " m *k"]:
    """Answers of `function`, `size` inputs at a time, in the order of the inputs.

    Texts of about equal length are asked together, padding cut off: no answer depends on it. Of
    answers about tokens those at padding are left out.
    """
    order = by_length(inputs, size)
    answers = chain.from_iterable(_each(function, shortened(inputs[rows])) for rows in order)
    placed = dict(zip(torch.cat(order).tolist(), answers, strict=True))
    return torch.cat([placed[i] for i in range(len(inputs))])


def _each(function: Callable[[Tensor], Tensor], inputs: Inputs) -> list[Float[Tensor, " _ *k"]]:
    """What is asked of each input apart."""
    answers = function(inputs)
    return [at_asked(answers[i : i + 1], inputs[i : i + 1]) for i in range(len(inputs))]
