"""What the amateur lowers: DeCLIP's losses (arXiv 2110.05208) and SigLIP's (2303.15343).

Features are taken as they come and normalised here; all is computed in float32. Where training is
spread over ranks, `gather` brings together the rows of all of them, with gradients that are summed
over the ranks: the mean of the ranks' losses is then the loss of the whole batch, and so are the
gradients. No rank needs to know which one it is.

Small sets say the same of many images. Unlike in the papers, a text that is equal to an image's own
is not among those that it is to be told from.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.errors import BadInput

Features = Float[Tensor, "b d"]
Gather = Callable[[Tensor], Tensor]
"""``[b d]`` of each rank to ``[ranks*b d]``, differentiably."""
UNTOUCHED = -100
"""Target of a token that was not masked."""


class Texts(NamedTuple):
    """Features of texts, ``[b d]``, and a number for each text ``[b]`` that equal ones share."""

    features: Tensor
    keys: Tensor


def alone(rows: Tensor) -> Tensor:
    """The gather of a single process."""
    return rows


class Temperature(nn.Module):
    """The learned scale of cosines: at first 1 / 0.07, as in CLIP, or `scale`; 100 at most."""

    def __init__(self, scale: float = 1 / 0.07) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by."""
        return self.log_scale.clamp(max=math.log(100)).exp()


def info_nce(
    images: Features, texts: Texts, scale: Tensor | float, gather: Gather = alone
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: each row is to find its partner among all other rows of the other side.

    >>> texts = Texts(torch.eye(2), torch.arange(2))
    >>> float(info_nce(torch.eye(2), texts, 100.0)) < 1e-6
    True
    """
    with torch.autocast(images.device.type, enabled=False):
        a, b, same = _unit(images), _unit(texts.features), _same(texts.keys, gather)
        right = scale * (a * b).sum(1, keepdim=True)
        across = torch.stack([
            torch.cat([right, (scale * x @ gather(y).T).masked_fill(same, -torch.inf)], 1)
            for x, y in ((a, b), (b, a))
        ])  # fmt: skip
        return (across.logsumexp(2).mean(0) - right[:, 0]).mean()


def siglip(
    images: Features,
    texts: Texts,
    scale: Tensor | float,
    bias: Tensor | float,
    gather: Gather = alone,
) -> Float[Tensor, ""]:
    """Sigmoid loss: every pair is judged by itself, partners or not (equation 1)."""
    with torch.autocast(images.device.type, enabled=False):
        a, b = _unit(images), _unit(texts.features)
        right = scale * (a * b).sum(1) + bias
        others = F.softplus(scale * a @ gather(b).T + bias)
        others = others.masked_fill(_same(texts.keys, gather), 0)
        return (others.sum(1) + F.softplus(-right)).mean()


def simsiam(
    predicted: tuple[Features, Features], projected: tuple[Features, Features]
) -> Float[Tensor, ""]:
    """SimSiam (arXiv 2011.10566): each view predicts the other's projection, -1 at best.

    No gradient goes through what is predicted.
    """
    first = F.cosine_similarity(predicted[0].float(), projected[1].float().detach())
    second = F.cosine_similarity(predicted[1].float(), projected[0].float().detach())
    return -(first.mean() + second.mean()) / 2


def multi_view(
    images: tuple[Features, Features],
    texts: tuple[Texts, Texts],
    scale: Tensor | float,
    gather: Gather = alone,
) -> Float[Tensor, ""]:
    """Mean InfoNCE of the three pairs of views that L_CLIP, of the first views, leaves out."""
    pairs = [(images[1], texts[0]), (images[0], texts[1]), (images[1], texts[1])]
    return torch.stack([info_nce(*pair, scale, gather) for pair in pairs]).mean()


class TextQueue(nn.Module):
    """The last `size` texts, first in, first out; a neighbour in it supervises an image.

    >>> queue = TextQueue(2, 2)
    >>> rows = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    >>> queue.push(Texts(rows, torch.tensor([7, 8, 9])))
    >>> queue.nearest(Texts(torch.tensor([[1.0, 2.0]]), torch.tensor([5])))
    Texts(features=tensor([[0., 1.]]), keys=tensor([8]))
    """

    rows: Tensor
    keys: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise BadInput(f"a queue of {size} texts given; 1 or more is allowed")
        self.register_buffer("rows", torch.zeros(size, width))
        self.register_buffer("keys", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, texts: Texts) -> None:
        """Take in the texts of all ranks; the oldest ones leave."""
        size, new = len(self.rows), len(texts.keys)
        last = min(new, size)
        first = self.pushed + new - last
        slots = (first + torch.arange(last, device=self.rows.device)) % size
        self.rows[slots] = _unit(texts.features[-last:])
        self.keys[slots] = texts.keys[-last:]
        self.pushed += new

    @torch.no_grad()
    def nearest(self, texts: Texts) -> Texts:
        """For each text the one of the queue with the highest cosine; itself while it is empty."""
        with torch.autocast(texts.features.device.type, enabled=False):
            asked = _unit(texts.features)
            cosines = asked @ self.rows.T
            empty = torch.arange(len(self.rows), device=asked.device) >= self.pushed
            best = cosines.masked_fill(empty, -torch.inf).argmax(1)
            filled = self.pushed > 0
            rows = torch.where(filled, self.rows[best], asked)
            return Texts(rows, torch.where(filled, self.keys[best], texts.keys))


def nearest_neighbour(
    images: tuple[Features, Features],
    neighbours: Texts,
    scale: Tensor | float,
    gather: Gather = alone,
) -> Float[Tensor, ""]:
    """Mean InfoNCE of both views of the images with what `TextQueue.nearest` found."""
    return torch.stack([info_nce(view, neighbours, scale, gather) for view in images]).mean()


def masked(
    ids: Int[Tensor, "b t"],
    maskable: Int[Tensor, " n"],
    mask: int,
    random: torch.Generator,
    share: float = 0.15,
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Texts with some tokens hidden, and what they were (BERT, arXiv 1810.04805).

    Of every hundred hidden tokens eighty become `mask`, ten any other one, ten stay.

    Args:
        ids: tokens of the texts.
        maskable: ids of the tokens that may be hidden, and stand in for others.
        mask: id of the mask.
        random: of the device of `ids`.
        share: of the tokens to hide.

    Returns:
        The texts, and the hidden tokens' ids, `UNTOUCHED` elsewhere.
    """
    chance, kind = torch.rand(2, *ids.shape, generator=random, device=ids.device)
    hidden = (chance < share) & torch.isin(ids, maskable)
    picks = torch.randint(len(maskable), ids.shape, generator=random, device=ids.device)
    shown = torch.where(hidden & (kind < 0.8), mask, ids)
    shown = torch.where(hidden & (kind >= 0.9), maskable[picks], shown)
    return shown, torch.where(hidden, ids, UNTOUCHED)


def masked_language(logits: Float[Tensor, "n v"], hidden: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Cross entropy of each text's hidden tokens, the mean over the texts; 0 of one without.

    Args:
        logits: of the hidden tokens alone, row by row: those where `gaps` is true.
        hidden: what they were.
    """
    there = gaps(hidden)
    own = there.sum(1, keepdim=True).expand_as(hidden)[there]
    each = F.cross_entropy(logits.float(), hidden[there], reduction="none")
    return (each / own).sum() / len(hidden)


def gaps(hidden: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """Where tokens are hidden."""
    return hidden != UNTOUCHED


@dataclass(frozen=True)
class Weights:
    """How much the terms beside L_CLIP count; L_CLIP has what they leave of 1.

    Args:
        within: of images with themselves and of texts with themselves, each.
        views: of further views.
        neighbours: of the nearest texts.
    """

    within: float = 0.2
    views: float = 0.2
    neighbours: float = 0.2

    def __post_init__(self) -> None:
        given = (self.within, self.views, self.neighbours)
        if min(given) < 0 or sum(given) > 1:
            raise BadInput(
                f"weights {given} given; 0 or more each and 1 at most together are allowed"
            )


@dataclass(frozen=True, eq=False)
class Terms:
    """The five terms of DeCLIP."""

    clip: Tensor
    images: Tensor
    texts: Tensor
    views: Tensor
    neighbours: Tensor

    def total(self, weights: Weights) -> Float[Tensor, ""]:
        """(1-a-b-c) L_CLIP + a (L_ISS + L_TSS) + b L_MVS + c L_NNS.

        >>> one = torch.tensor(1.0)
        >>> round(float(Terms(one, one, one, one, one).total(Weights())), 6)
        1.2
        """
        a, b, c = weights.within, weights.views, weights.neighbours
        within = self.images + self.texts
        return (1 - a - b - c) * self.clip + a * within + b * self.views + c * self.neighbours


def _same(keys: Int[Tensor, " b"], gather: Gather) -> Bool[Tensor, "b n"]:
    """Which texts of all ranks say what a row's own does; its own among them."""
    return keys[:, None] == gather(keys)


def _unit(rows: Features) -> Features:
    return F.normalize(rows.float(), dim=1)
