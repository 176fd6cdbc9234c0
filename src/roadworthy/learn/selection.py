"""Which of many images to annotate: foreign ones are dropped, then value and variety decide.

Everything works on features of any backbone; labels are never asked for.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from roadworthy.errors import BadInput

Features = Float[NDArray[np.floating], "n d"]


def directions(features: Features) -> Float[NDArray[np.float64], "n d"]:
    """Features of length one, so that distances are those of directions.

    >>> directions(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float64) / np.maximum(lengths, 1e-12)


def squared_distances(
    one: Features, other: Float[NDArray[np.floating], "m d"]
) -> Float[NDArray[np.float64], "n m"]:
    """Squared Euclidean distance of each row of `one` to each of `other`."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)
    return np.maximum(squares - 2 * one @ other.T, 0)


def familiar(
    pool: Features,
    reference: Float[NDArray[np.floating], "m d"],
    nearest: int = 5,
    quantile: float = 0.95,
) -> Bool[NDArray[np.bool_], " n"]:
    """Which of `pool` lie as near to `reference` as its own members do.

    Near is the distance between directions to the neighbour number `nearest`; its bound is that
    `quantile` of the reference's members, each compared with the others (Sun et al., 2022,
    arXiv 2204.06507).

    Raises:
        BadInput: a reference of not more than `nearest` members, or no quantile.
    """
    if not 1 <= nearest < len(reference) or not 0 < quantile <= 1:
        raise BadInput(
            f"neighbour {nearest} of {len(reference)} members and quantile {quantile} given; more "
            "members than neighbours and a quantile in (0, 1] are needed"
        )
    known = directions(reference)
    among = np.partition(squared_distances(known, known), nearest, axis=1)[:, nearest]
    apart = squared_distances(directions(pool), known)
    return np.partition(apart, nearest - 1, axis=1)[:, nearest - 1] <= np.quantile(among, quantile)


def uncertainty(
    probabilities: Float[NDArray[np.floating], "n k"],
) -> Float[NDArray[np.float64], " n"]:
    """One less the margin between the two likeliest classes: 0 where sure, 1 where torn.

    >>> uncertainty(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 1.0]
    """
    best = np.sort(probabilities, axis=1)[:, -2:].astype(np.float64)
    return 1 - (best[:, 1] - best[:, 0])


def spread(
    features: Features,
    count: int,
    value: Float[NDArray[np.floating], " n"],
    random: np.random.Generator,
    known: Float[NDArray[np.floating], "m d"] | None = None,
) -> Int[NDArray[np.int64], " count"]:
    """`count` rows, one after the other, far from those before and of great value.

    Each is drawn with odds of value x squared distance between directions to the nearest row that
    is chosen or `known` (the seeding of k-means++, weighted). A copy of what is chosen is never.

    Raises:
        BadInput: fewer rows than asked for that differ and have a value.
    """
    own = directions(features)
    far = np.full(len(own), np.inf if known is None else 0.0)
    if known is not None:
        far = squared_distances(own, directions(known)).min(1)
    chosen: list[int] = []
    while len(chosen) < count:
        odds = value * np.where(np.isinf(far), 1.0, np.where(far < 1e-9, 0.0, far))
        if not odds.sum() > 0:
            raise BadInput(f"{count} images asked for; {len(chosen)} of the pool differ, ask less")
        chosen.append(int(random.choice(len(own), p=odds / odds.sum())))
        far = np.minimum(far, squared_distances(own, own[chosen[-1:]])[:, 0])
    return np.array(chosen, np.int64)


def select(
    pool: Features,
    reference: Float[NDArray[np.floating], "m d"],
    count: int,
    random: np.random.Generator,
    probabilities: Float[NDArray[np.floating], "n k"] | None = None,
    nearest: int = 5,
    quantile: float = 0.95,
) -> Int[NDArray[np.int64], " count"]:
    """Numbers of `count` images of `pool` to annotate next to those of `reference`.

    Args:
        reference: features of images that are surely of the domain, such as those annotated so far.
        probabilities: of classes by a model learned so far; unsure images are worth more.
        nearest: which neighbour tells how near an image is to the reference.
        quantile: of the reference's own distances, beyond which an image is foreign.

    Raises:
        BadInput: too few images that are familiar and differ.
    """
    kept = np.flatnonzero(familiar(pool, reference, nearest, quantile))
    value = np.ones(len(pool)) if probabilities is None else uncertainty(probabilities)
    return kept[spread(pool[kept], count, value[kept], random, reference)]
