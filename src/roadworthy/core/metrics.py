"""How good, and how surely better: metrics of a task and statistics of paired answers.

Every metric is a fraction between 0 and 1; differences are fractions too.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from roadworthy.errors import BadData


class Difference(NamedTuple):
    """What b gains over a on the same images, with its 95 % interval."""

    delta: float
    low: float
    high: float


def correct(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether each highest logit is the label's."""
    return logits.argmax(1) == labels


def accuracy(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Fraction of highest logits that are the label's.

    >>> import torch
    >>> accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    _some(len(labels))
    return correct(logits, labels).double().mean().item()


def agreement(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"]) -> float:
    """Fraction of images whose highest logit is the same class in `a` and `b`.

    >>> import torch
    >>> agreement(torch.eye(2), torch.ones(2, 2).tril())
    0.5
    """
    _some(len(a))
    return (a.argmax(1) == b.argmax(1)).double().mean().item()


def wilson(good: Bool[Tensor, " n"]) -> tuple[float, float]:
    """95 % interval of one accuracy (Wilson 1927), sound for few images and near 0 and 1.

    >>> import torch
    >>> low, high = wilson(torch.ones(20, dtype=torch.bool))
    >>> round(low, 2), high
    (0.84, 1.0)
    """
    n, z = _some(len(good)), 1.959963984540054
    p = good.double().mean().item()
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)


def paired_bootstrap(
    correct_a: Bool[Tensor, " n"], correct_b: Bool[Tensor, " n"], seed: int, n: int = 10_000
) -> Difference:
    """Accuracy of b minus accuracy of a, with the 95 % percentile interval of `n` resamples.

    Images are resampled in pairs. A resample's difference depends only on how many of the images
    that one side alone gets right it holds, so the counts are drawn from their multinomial: the
    same distribution as resampling images, at a cost that does not grow with them.

    >>> import torch
    >>> a = torch.arange(100) < 90
    >>> paired_bootstrap(a, a, seed=0)
    Difference(delta=0.0, low=0.0, high=0.0)
    """
    images = _some(len(correct_a))
    lost, won = _discordant(correct_a, correct_b)
    shares = np.array([lost, won, images - lost - won]) / images
    counts = np.random.default_rng(seed).multinomial(images, shares, size=n)
    low, high = np.quantile((counts[:, 1] - counts[:, 0]) / images, [0.025, 0.975])
    return Difference((won - lost) / images, float(low), float(high))


def mcnemar(
    correct_a: Bool[Tensor, " n"], correct_b: Bool[Tensor, " n"], mid_p: bool = True
) -> float:
    """Two-sided p-value that a and b are equally accurate, from their discordant pairs.

    The exact binomial test; `mid_p` counts the observed split half, which keeps the level and
    regains the power that the exact test gives away (Fagerland, Lydersen & Laake 2013).

    >>> import torch
    >>> a, b = torch.arange(100) < 90, torch.arange(100) < 80
    >>> mcnemar(a, b, mid_p=False) == 2 / 2**10
    True
    """
    _some(len(correct_a))
    few, many = sorted(_discordant(correct_a, correct_b))
    total = few + many
    if total == 0:
        return 1.0
    tail = sum(_half_binomial(total, i) for i in range(few + 1))
    p = min(1.0, 2 * tail) if not mid_p else 2 * tail - _half_binomial(total, few)
    return min(1.0, p)


def _half_binomial(n: int, i: int) -> float:
    return math.exp(
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
    )


def _discordant(a: Bool[Tensor, " n"], b: Bool[Tensor, " n"]) -> tuple[int, int]:
    """How many images a alone gets right, and b alone."""
    return int((a & ~b).sum()), int((b & ~a).sum())


def _some(n: int) -> int:
    if n == 0:
        raise BadData("no images to measure on; give a data spec with at least one")
    return n
