"""Equivalence classes: options that make the same of the user's own images are one option."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.data import Dataset
from roadworthy.core.inputs import Stages
from roadworthy.core.progress import track
from roadworthy.core.resizers import Raster
from roadworthy.core.texts import TextInput, Tokens
from roadworthy.errors import BadData
from roadworthy.noise.tree import sight, views

PROBES = 64
"""Images that options are compared on, spread evenly over the data."""
TEXTS = 4096
"""As many texts: they cost a ten-thousandth of a second each, and few are long."""


@dataclass(frozen=True)
class Grouping:
    """Which of several preprocessings are one.

    Args:
        members: for each, the number of the first that does the same.
        distance: mean absolute difference from the first on the image where it is largest, in
            levels of 255 ``[n]``; infinite where the shapes differ. Of texts, percent of tokens.
        probes: images that they were compared on.
    """

    members: tuple[int, ...]
    distance: NDArray[np.float64]
    probes: int


def group(
    dataset: Dataset, stages: Sequence[Stages], tolerance: float, probes: int | None = None
) -> Grouping:
    """Group `stages` that differ by at most `tolerance` levels on every probed image.

    Args:
        dataset: the user's images.
        stages: preprocessings, the training system's first.
        tolerance: mean absolute difference in levels of 255, or percent of the tokens of a text; 0
            joins what is equal to the byte.
        probes: how many to look at; None looks at `PROBES` images or `TEXTS` texts.

    Raises:
        BadData: none of them can be read by all.
    """
    probes = probes or (TEXTS if isinstance(stages[0], TextInput) else PROBES)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(probes, len(dataset))).astype(int))
    distance = np.zeros(len(stages))
    alike = np.ones((len(stages), len(stages)), np.bool_)
    looked = 0
    for index in track(chosen.tolist(), "comparing options"):
        try:
            made = views(dataset.content(index), dataset.name(index), stages)
        except BadData:
            continue
        looked += 1
        own = [made[sight(s)] for s in stages]
        distance = np.maximum(distance, [difference(own[0], each) for each in own])
        _tell_apart(alike, own, tolerance)
    if looked == 0:
        what = f"none of {len(chosen)} {dataset.things} of {dataset.spec}"
        raise BadData(f"{what} can be read by all options")
    return Grouping(_first_alike(alike), distance, looked)


def _tell_apart(
    alike: NDArray[np.bool_], made: Sequence[Raster | Tokens], tolerance: float
) -> None:
    """Strike the pairs that one image shows to differ; they need no second look."""
    for i, j in np.argwhere(np.tril(alike, -1)):
        alike[i, j] = alike[j, i] = difference(made[i], made[j]) <= tolerance


def difference(a: Raster | Tokens, b: Raster | Tokens) -> float:
    """Mean absolute difference in levels, infinite where shapes differ; of texts, see `moved`.

    >>> difference(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 3, np.uint8))
    3.0
    """
    if a is b:
        return 0.0
    if a.dtype == np.int64:
        return moved(a, b)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean(dtype=np.float64))


def moved(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Percent of the places at which two texts ``[r t]`` differ, up to the last token of either.

    What pads a text behind its last token changes no position and is masked.

    >>> short, long = np.array([[5, 6], [1, 1]]), np.array([[5, 7, 0], [1, 1, 0]])
    >>> moved(short, long)
    50.0
    """
    width = max(int(np.flatnonzero(each[1]).max(initial=0)) + 1 for each in (a, b))
    parts = [each[:, :width] for each in (a, b)]
    first, second = (np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in parts)
    return 100 * float((first != second).any(0).mean())


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
