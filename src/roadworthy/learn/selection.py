"""Which of many images to annotate: foreign ones are dropped, then rare classes and variety decide.

Everything works on features of any backbone, and on what a model learned so far takes the images
for; their labels are never asked for.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from roadworthy.errors import BadInput

Features = Float[NDArray[np.floating], "n d"]
Reference = Float[NDArray[np.floating], "m d"]


def directions(
    features: Features, centre: Float[NDArray[np.floating], " d"] | float = 0.0
) -> Float[NDArray[np.float64], "n d"]:
    """Features as seen from `centre`, of length one.

    >>> directions(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    seen = features.astype(np.float64) - centre
    return seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)


def squared_distances(one: Features, other: Reference) -> Float[NDArray[np.float64], "n m"]:
    """Squared Euclidean distance of each row of `one` to each of `other`."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)
    return np.maximum(squares - 2 * one @ other.T, 0)


def familiar(
    pool: Features, reference: Reference, nearest: int = 5, quantile: float = 0.95
) -> Bool[NDArray[np.bool_], " n"]:
    """Which of `pool` lie as near to `reference` as its own members do.

    Near is the distance between directions, as seen from the mean of the pool, to the neighbour
    number `nearest`; its bound is that `quantile` of the reference's members, each compared with
    the others (Sun et al., 2022, arXiv 2204.06507, where directions are seen from 0: what all
    images have in common then hides what sets foreign ones apart).

    Raises:
        BadInput: a reference of not more than `nearest` members, or no quantile.
    """
    if not 1 <= nearest < len(reference) or not 0 < quantile <= 1:
        raise BadInput(
            f"neighbour {nearest} of {len(reference)} members and quantile {quantile} given; more "
            "members than neighbours and a quantile in (0, 1] are needed"
        )
    own, known = (directions(each, pool.mean(0)) for each in (pool, reference))
    among = np.partition(squared_distances(known, known), nearest, axis=1)[:, nearest]
    apart = np.partition(squared_distances(own, known), nearest - 1, axis=1)[:, nearest - 1]
    return apart <= np.quantile(among, quantile)


def spread(
    pool: Features,
    known: Reference,
    count: int,
    random: np.random.Generator,
    taken_for: Int[NDArray[np.integer], " n"],
    annotated: Int[NDArray[np.integer], " k"],
) -> Int[NDArray[np.int64], " count"]:
    """`count` rows, one after the other, of classes that lack images and far from those before.

    Each is taken for the class of which fewest are annotated or chosen, and drawn with odds of the
    squared distance between directions to the nearest row that is chosen or known (the seeding of
    k-means++). A copy of what is chosen or known is never.

    Raises:
        BadInput: fewer rows than asked for that differ.
    """
    centre = pool.mean(0)
    own = directions(pool, centre)
    far = squared_distances(own, directions(known, centre)).min(1)
    have = annotated.astype(np.float64)
    chosen: list[int] = []
    while len(chosen) < count:
        odds = np.where(far < 1e-9, 0.0, far)
        left = np.bincount(taken_for, odds, len(have)) > 0
        if not left.any():
            raise BadInput(f"{count} images asked for; {len(chosen)} of the pool differ, ask less")
        least = np.flatnonzero(left & (have == have[left].min()))
        rare = random.choice(least)
        odds = odds * (taken_for == rare)
        chosen.append(int(random.choice(len(own), p=odds / odds.sum())))
        have[rare] += 1
        far = np.minimum(far, squared_distances(own, own[chosen[-1:]])[:, 0])
    return np.array(chosen, np.int64)


def select(
    pool: Features,
    known: Reference,
    count: int,
    random: np.random.Generator,
    taken_for: Int[NDArray[np.integer], " n"] | None = None,
    annotated: Int[NDArray[np.integer], " k"] | None = None,
    nearest: int = 5,
    quantile: float = 0.95,
) -> Int[NDArray[np.int64], " count"]:
    """Numbers of `count` images of `pool` to annotate next to the known ones.

    Few at a time, and a model learned anew in between, choose better than many at once.

    Args:
        known: features of the images of the domain that are annotated; `pool` has none of them.
        taken_for: the class that a model learned so far takes each image for; None: one and all.
        annotated: how many images each class has so far.
        nearest: which neighbour tells how near an image is to the known ones.
        quantile: of the known images' own distances, beyond which an image is foreign.

    Raises:
        BadInput: too few images that are familiar and differ.
    """
    taken_for = np.zeros(len(pool), np.int64) if taken_for is None else taken_for
    annotated = np.zeros(taken_for.max() + 1, np.int64) if annotated is None else annotated
    kept = np.flatnonzero(familiar(pool, known, nearest, quantile))
    return kept[spread(pool[kept], known, count, random, taken_for[kept], annotated)]
