"""Near duplicates: photos to train on that are of the test set: recompressed, resized, flipped."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int, UInt64
from numpy.typing import NDArray
from PIL import Image

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


def hashes(samples: Iterable[Sample]) -> Hashes:
    """Perceptual hashes of `samples`."""
    rows = [perceptual_hash(decode(each.image, each.name)) for each in samples]
    return np.array(rows, np.uint64).reshape(-1, 4)


def flipped_hashes(samples: Iterable[Sample]) -> Hashes:
    """Perceptual hashes of `samples`, each turned left to right."""
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    rows = [perceptual_hash(decode(each.image, each.name).transpose(flip)) for each in samples]
    return np.array(rows, np.uint64).reshape(-1, 4)


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
    held = list(tests)
    known = np.concatenate([hashes(held), flipped_hashes(held)])
    for each in upstream:
        if not len(known) or nearest(hashes([each]), known)[1][0] > close:
            yield each
