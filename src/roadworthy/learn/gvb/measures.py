"""Metrics of the benchmark, of answers in the pixels of the image files.

====================  ============================================================================
task                  an answer
====================  ============================================================================
classification        number of the class and its probability ``[2]``, or the number alone ``[1]``
detection             x1 y1 x2 y2 score class, in any order ``[n 6]``
segmentation          number of the class of each pixel ``[h w]``, 255 where nothing is said
depth                 metres ``[h w]``
====================  ============================================================================

These are the answers of `core.tasks`. Answers and images are gone through side by side, one at a
time, so that neither needs to be held.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from roadworthy.core.dense import overlap
from roadworthy.errors import BadData
from roadworthy.learn.gvb.part import Part, few

Answer = NDArray[Any]


@dataclass(frozen=True)
class Scored:
    """What answers are worth.

    Args:
        value: the metric; a share of 1, or metres.
        also: other numbers of the same answers.
        told: what it does not cover, a line each.
    """

    value: float
    also: dict[str, float] = field(default_factory=dict[str, float])
    told: tuple[str, ...] = ()


@runtime_checkable
class Measure(Protocol):
    """A metric: its name, whether higher is better, and how it is computed."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def higher(self) -> bool:
        """Whether higher is better."""
        ...

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """The metric of an answer to each image of `part`, in its order."""
        ...


@dataclass(frozen=True)
class Top1:
    """The share of the images whose class is right."""

    name: str = "top-1"
    higher: bool = True

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image."""
        return Scored(float(np.mean(_right(answers, part))))


@dataclass(frozen=True)
class MeanPerClass:
    """The share of each class that is right, averaged over the classes that occur."""

    name: str = "mean per class"
    higher: bool = True

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image; classes without an image, `part.empty`, are left out."""
        right = _right(answers, part)
        return Scored(mean_per_class(right, np.array(part.labels)), {"top-1": right.mean()})


def mean_per_class(right: Bool[NDArray[np.bool_], " n"], labels: NDArray[np.int64]) -> float:
    """The share of each class that is right, averaged over those that occur in `labels`.

    >>> mean_per_class(np.array([True, True, False]), np.array([0, 0, 7]))
    0.5
    """
    there, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return float((np.bincount(which, right, len(there)) / counts).mean())


def _right(answers: Iterable[Answer], part: Part) -> NDArray[np.bool_]:
    pairs = zip(answers, part.labels, strict=True)
    return np.array([int(answer[0]) == label for answer, label in pairs], np.bool_)


@dataclass(frozen=True)
class MeanIoU:
    """Intersection over union of each class over all images, averaged over the classes."""

    name: str = "mIoU"
    higher: bool = True

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image; a class that neither occurs nor is answered is told."""
        counts = np.zeros((len(part.classes), 3), np.int64)
        for answer, sample in zip(answers, part, strict=True):
            assert sample.mask is not None
            _same_size(answer, sample.mask, sample.name)
            counts += overlap(answer.astype(np.uint8), sample.mask, len(part.classes))
        shares = ious(counts)
        lost = [name for name, each in zip(part.classes, shares, strict=True) if np.isnan(each)]
        if len(lost) == len(shares):
            raise BadData(f"{part.origin.source} has no pixel of a class; mIoU is undefined")
        told = (f"{few(lost)} neither there nor answered; left out",) if lost else ()
        return Scored(float(np.nanmean(shares)), told=told)


def ious(counts: NDArray[np.int64]) -> Float[NDArray[np.float64], " k"]:
    """Intersection over union of each class, NaN where it is undefined.

    Args:
        counts: pixels of each class found rightly, answered, and there ``[k 3]``.

    >>> ious(np.array([[1, 1, 2], [0, 0, 0]])).tolist()
    [0.5, nan]
    """
    right, said, there = counts.T
    union = said + there - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


Crop = Literal["none", "garg", "eigen"]


@dataclass(frozen=True)
class Rmse:
    """Root of the mean squared error of an image's depths in metres, averaged over the images.

    Args:
        nearest, farthest: metres between which depths are judged; answers are clipped to them.
        crop: which pixels are judged; see `judged`.
    """

    nearest: float = 1e-3
    farthest: float = float("inf")
    crop: Crop = "none"
    name: str = "RMSE"
    higher: bool = False

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image; images without a depth to judge by are told."""
        found = [(e.name, self._error(*both)) for *both, e in self._pairs(answers, part)]
        lost = [name for name, each in found if np.isnan(each)]
        if len(lost) == len(found):
            raise BadData(f"{part.origin.source} has no depth to judge by; RMSE is undefined")
        told = (f"{few(lost)} without a depth to judge by; left out",) if lost else ()
        return Scored(float(np.nanmean([each for _, each in found])), told=told)

    def _pairs(self, answers: Iterable[Answer], part: Part) -> Iterator[tuple[Any, Any, Any]]:
        for answer, sample in zip(answers, part, strict=True):
            assert sample.depth is not None
            _same_size(answer, sample.depth, sample.name)
            yield answer, sample.depth, sample

    def _error(self, answer: Answer, truth: Answer) -> float:
        with np.errstate(invalid="ignore"):
            seen = (truth > self.nearest) & (truth < self.farthest)
        seen &= judged(truth.shape[0], truth.shape[1], self.crop)
        return rmse(answer[seen].clip(self.nearest, self.farthest), truth[seen])


def rmse(answer: Float[NDArray[Any], " n"], truth: Float[NDArray[Any], " n"]) -> float:
    """Root of the mean squared error; NaN of nothing.

    >>> rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0])) ** 2
    2.0000000000000004
    """
    if not len(truth):
        return float("nan")
    return float(np.sqrt(np.mean((answer.astype(np.float64) - truth) ** 2)))


def judged(height: int, width: int, crop: Crop) -> Bool[NDArray[np.bool_], "h w"]:
    """Which pixels count.

    ``garg`` is the part of KITTI's images that the laser reaches (Garg et al. 2016), ``eigen`` the
    part of NYUv2's 480 x 640 pixels that lies within both cameras (Eigen et al. 2014).

    >>> int(judged(480, 640, "eigen").sum()) == 426 * 560
    True
    """
    whole = np.zeros((height, width), np.bool_)
    match crop:
        case "garg":
            top, bottom = int(0.40810811 * height), int(0.99189189 * height)
            left, right = int(0.03594771 * width), int(0.96405229 * width)
        case "eigen":
            top, bottom, left, right = 45, 471, 41, 601
        case "none":
            top, bottom, left, right = 0, height, 0, width
    whole[top:bottom, left:right] = True
    return whole


def _same_size(answer: Answer, truth: Answer, name: str) -> None:
    if answer.shape != truth.shape:
        raise BadData(
            f"image {name} is answered {list(answer.shape)} and has {list(truth.shape)} pixels; "
            "an answer for each pixel of the file is needed"
        )
