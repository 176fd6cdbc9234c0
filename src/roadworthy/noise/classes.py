"""Equivalence classes: options that make the same of the user's own images are one option."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.data import Dataset
from roadworthy.core.images import Preprocess
from roadworthy.core.progress import track
from roadworthy.core.resizers import Raster
from roadworthy.errors import BadData
from roadworthy.noise.tree import rasters, sight

PROBES = 64
"""Images that options are compared on, spread evenly over the data."""


@dataclass(frozen=True)
class Grouping:
    """Which of several preprocessings are one.

    Args:
        members: for each, the number of the first that does the same.
        distance: mean absolute difference from the first on the image where it is largest, in
            levels of 255 ``[n]``; infinite where the shapes differ.
        probes: images that they were compared on.
    """

    members: tuple[int, ...]
    distance: NDArray[np.float64]
    probes: int


def group(
    dataset: Dataset, stages: Sequence[Preprocess], tolerance: float, probes: int = PROBES
) -> Grouping:
    """Group `stages` that differ by at most `tolerance` levels on every probed image.

    Args:
        dataset: the user's images.
        stages: preprocessings, the training system's first.
        tolerance: mean absolute difference in levels of 255; 0 joins what is equal to the byte.
        probes: how many images to look at.

    Raises:
        BadData: none of them can be read by all.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(probes, len(dataset))).astype(int))
    distance = np.zeros(len(stages))
    alike = np.ones((len(stages), len(stages)), np.bool_)
    looked = 0
    for index in track(chosen.tolist(), "comparing options"):
        try:
            views = rasters(dataset.content(index), dataset.name(index), stages)
        except BadData:
            continue
        looked += 1
        own = [views[sight(s)] for s in stages]
        distance = np.maximum(distance, [difference(own[0], each) for each in own])
        _tell_apart(alike, own, tolerance)
    if looked == 0:
        raise BadData(f"none of {len(chosen)} images of {dataset.spec} can be read by all options")
    return Grouping(_first_alike(alike), distance, looked)


def _tell_apart(alike: NDArray[np.bool_], views: Sequence[Raster], tolerance: float) -> None:
    """Strike the pairs that one image shows to differ; they need no second look."""
    for i, j in np.argwhere(np.tril(alike, -1)):
        alike[i, j] = alike[j, i] = difference(views[i], views[j]) <= tolerance


def difference(a: Raster, b: Raster) -> float:
    """Mean absolute difference in levels, infinite where the shapes differ.

    >>> difference(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 3, np.uint8))
    3.0
    """
    if a is b:
        return 0.0
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean(dtype=np.float64))


def _first_alike(alike: NDArray[np.bool_]) -> tuple[int, ...]:
    """Each one's first partner among those that stand for a class."""
    heads: list[int] = []
    members: list[int] = []
    for i in range(len(alike)):
        head = next((h for h in heads if alike[i, h]), None)
        if head is None:
            heads.append(i)
            head = i
        members.append(head)
    return tuple(members)
