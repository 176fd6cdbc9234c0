"""How sure a difference between two systems is: paired resampling of the images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from roadworthy.core.tasks import Evidence, Task

RESAMPLES = 1_000


def draws(images: int, seed: int, resamples: int = RESAMPLES) -> Int[NDArray[np.int64], "r n"]:
    """How often each image is drawn in each bootstrap resample; the first row is every image once.

    >>> draws(3, 0, 2).shape, draws(3, 0, 2)[0].tolist()
    ((3, 3), [1, 1, 1])
    """
    shares = np.full(images, 1 / images)
    drawn = np.random.default_rng(seed).multinomial(images, shares, size=resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


@dataclass(frozen=True)
class Estimate:
    """A number of points and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def measurable(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def estimate(resampled: Float[NDArray[np.float64], " r"]) -> Estimate:
    """From the value on all images, first, and on the resamples behind it."""
    low, high = np.quantile(resampled[1:], [0.025, 0.975])
    return Estimate(float(resampled[0]), float(low), float(high))


def points(
    task: Task, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]
) -> Float[NDArray[np.float64], " r"]:
    """The metric in points, more being better, on all images and on every resample."""
    return task.points * np.asarray(task.values(evidence, counts), np.float64)
