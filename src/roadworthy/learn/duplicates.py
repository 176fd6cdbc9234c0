"""Near duplicates: photos to train on that are of the test set: recompressed, resized, flipped."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64
from numpy.typing import NDArray
from PIL import Image, ImageOps

from roadworthy.core.sources import decode
from roadworthy.learn.sample import Sample

SIDE = 16
CLOSE = 40
"""Differing bits, of 256, up to which two pictures count as the same."""
Hashes = UInt64[NDArray[np.uint64], "n 4"]


def perceptual_hash(image: Image.Image) -> UInt64[NDArray[np.uint64], "4"]:
    """256 bits: whether each place of a 16 x 16 picture is darker than its neighbour on the right.

    Gray, averaged over areas (the difference hash). Turned left to right it has another hash.
    """
    gray = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    values = np.asarray(gray, np.int16)
    return np.packbits(values[:, 1:] > values[:, :-1]).view(np.uint64)


def hashes(images: Iterable[Image.Image]) -> Hashes:
    """Perceptual hashes of `images`."""
    return np.array([perceptual_hash(each) for each in images], np.uint64).reshape(-1, 4)


def both_ways(images: Iterable[Image.Image]) -> Hashes:
    """Perceptual hashes of `images`, and behind them of each turned left to right."""
    held = list(images)
    return hashes([*held, *map(ImageOps.mirror, held)])


def nearest(
    own: Hashes, others: UInt64[NDArray[np.uint64], "m 4"]
) -> tuple[Int[NDArray[np.int64], " n"], Int[NDArray[np.int64], " n"]]:
    """For each of `own` which of `others` is nearest, and by how many bits it differs.

    Raises:
        ValueError: there are no others.
    """
    which, bits = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    for i, row in enumerate(own):
        distances = np.bitwise_count(others ^ row).sum(1)
        which[i] = distances.argmin()
        bits[i] = distances[which[i]]
    return which, bits


def without_duplicates(
    upstream: Iterable[Sample], tests: Iterable[Sample], close: int = CLOSE
) -> Iterator[Sample]:
    """What of `upstream` resembles no picture of `tests`, the right way round or flipped."""
    known = both_ways(decode(each.image, each.name) for each in tests)
    for each in upstream:
        own = hashes([decode(each.image, each.name)])
        if not len(known) or nearest(own, known)[1][0] > close:
            yield each


class Repeat(NamedTuple):
    """A test image that resembles one to train on, and by how many of 256 bits they differ."""

    test: str
    train: str
    bits: int


def repeats(train: Iterable[Sample], tests: Iterable[Sample], close: int = CLOSE) -> list[Repeat]:
    """Which of `tests` also stand in `train`, the right way round or flipped; names files.

    Images are gone through one at a time; of each only its hashes are held.
    """
    names: list[str] = []
    known: list[NDArray[np.uint64]] = []
    for each in train:
        image = decode(each.image, each.name)
        names.append(each.name)
        known += [perceptual_hash(image), perceptual_hash(ImageOps.mirror(image))]
    held = np.array(known, np.uint64).reshape(-1, 4)
    found: list[Repeat] = []
    for each in tests if names else ():
        which, bits = nearest(hashes([decode(each.image, each.name)]), held)
        if bits[0] <= close:
            found.append(Repeat(each.name, names[which[0] // 2], int(bits[0])))
    return found
