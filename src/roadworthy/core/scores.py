"""What answers to texts are worth by GLUE's conventions, and how surely."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core.metrics import accuracy, correct, wilson

RESAMPLES = 1_000
_NOISE = 1e-12
"""A variance below this share of the mean square is float32's rounding."""


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval, and others of the same answers."""

    metric: str
    value: float
    low: float
    high: float
    also: dict[str, float] = field(default_factory=dict[str, float])

    def to_dict(self) -> dict[str, Any]:
        """The numbers for ``run.json``."""
        ends = {"ci": [self.low, self.high]}
        return {"metric": self.metric, "value": self.value, **ends, **self.also}


def score(outputs: Float[Tensor, "n k"], told: Tensor, texts: bool, seed: int) -> Score:
    """Accuracy of logits, of texts with F1 and Matthews' coefficient beside it; the correlations
    with `told` where a model answers one number.

    Args:
        outputs: logits, or one number for each text.
        told: class ids, or numbers ``[n]``.
        texts: whether texts are judged.
        seed: of the resamples behind the interval of a correlation.
    """
    if outputs.shape[1] > 1:
        low, high = wilson(correct(outputs, told))
        also = classified(outputs.argmax(1), told, outputs.shape[1]) if texts else {}
        return Score("top1", accuracy(outputs, told), low, high, also)
    said = outputs[:, 0]
    found = correlations(said, told, counts(len(told), seed))
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return Score(
        "pearson", float(found[0]), float(low), float(high), {"spearman": spearman(said, told)}
    )


def classified(said: Int[Tensor, " n"], told: Int[Tensor, " n"], classes: int) -> dict[str, float]:
    """F1 of class 1 where there are two classes, else averaged over the classes, and Matthews'
    coefficient.

    >>> import torch
    >>> classified(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0]), 2)["f1"]
    0.6666666865348816
    """
    from torchmetrics.functional.classification import (
        binary_f1_score,
        multiclass_f1_score,
        multiclass_matthews_corrcoef,
    )

    f1 = binary_f1_score(said, told) if classes == 2 else multiclass_f1_score(said, told, classes)
    return {"f1": float(f1), "matthews": float(multiclass_matthews_corrcoef(said, told, classes))}


def spearman(said: Float[Tensor, " n"], told: Tensor) -> float:
    """Correlation of the ranks; 0 where all are equal.

    >>> import torch
    >>> round(spearman(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([3.0, 4.0, 5.0])), 4)
    1.0
    """
    from torchmetrics.functional.regression import spearman_corrcoef

    return float(spearman_corrcoef(said.double(), told.double()).nan_to_num())


def counts(n: int, seed: int, resamples: int = RESAMPLES) -> Int[NDArray[np.int64], "r n"]:
    """How often each text is drawn in each bootstrap resample; the first row is every text once."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, n), np.int64), drawn])


def correlations(
    said: Float[Tensor, " n"], told: Tensor, counted: Int[NDArray[np.int64], "r n"]
) -> Float[NDArray[np.float64], " r"]:
    """Pearson's correlation with text i counted ``counted[r, i]`` times; 0 where all are equal."""
    return _correlations(said.double().numpy(), told.double().numpy(), counted)


def _correlations(x: NDArray[Any], y: NDArray[Any], counted: NDArray[Any]) -> NDArray[np.float64]:
    w = counted / counted.sum(1, keepdims=True)
    x, y = x - x.mean(), y - y.mean()
    mx, my = w @ x, w @ y
    spread = (w @ x**2 - mx**2).clip(0) * (w @ y**2 - my**2).clip(0)
    told = spread > 1e-24 * (x**2).mean() * (y**2).mean()
    return np.where(told, (w @ (x * y) - mx * my) / np.sqrt(np.where(told, spread, 1.0)), 0.0)


def explained(a: Float[Tensor, " n *k"], b: Float[Tensor, " n *k"]) -> float:
    """Share of the variance of `a` over the samples that `b` explains: 1 less squared error over
    variance, 0 at least. It is below the squared correlation, and an offset or a factor costs it
    too. Of maps and boxes what all samples have in common is no variance; where samples do not
    differ, as one alone, it is that of all numbers of an answer, and of one number its square.

    >>> import torch
    >>> explained(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.0]]))
    0.75
    >>> round(explained(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 4.0]])), 4)
    0.875
    """
    a, b = a.double(), b.double()
    error, size = float((a - b).square().mean()), float(a.square().mean())
    spreads = (float(a.var(0, unbiased=False).mean()), float(a.var(unbiased=False)), size)
    spread = next((each for each in spreads if each > _NOISE * size), 0.0)
    return max(0.0, 1 - error / spread) if spread else float(error == 0)
