"""Where in a photo a tensor was taken from: every usual geometry, ranked before any pixel is made.

Both are averaged over blocks of the tensor, which hides what resizer, decoder and colour path made
of single pixels and still shows half a pixel of displacement.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.core.images import Geometry, Placement, Preprocess, Size, placement

FILLS = ((114, 114, 114), (0, 0, 0), (128, 128, 128), (127, 127, 127), (255, 255, 255))
"""Levels that letterboxes are filled with."""
WIDEST = 1.5
"""The largest ratio of the resized short side to the crop that is looked for."""
_BLOCKS = 56
_FEWEST = 16


def geometries(size: Size, own: Size) -> dict[Placement, list[Preprocess]]:
    """Every usual way of an image of size `own` to a tensor of `size`, by where it takes pixels.

    Ways that take the same pixels are one as far as any tensor can tell. The resizer in them stands
    for all; there is none where nothing is resized.

    >>> ways = geometries((4, 4), (4, 4))
    >>> [way.geometry for way in ways[Placement((1.0, 1.0), (0, 0), (4, 4))]][:2]
    [None, 'short-side']
    """
    found: dict[Placement, list[Preprocess]] = {}
    for way in dict.fromkeys(_ways(size, own)):
        found.setdefault(placement(way, own), []).append(way)
    return found


def _ways(size: Size, own: Size) -> Iterator[Preprocess]:
    yield Preprocess() if size == own else Preprocess(crop=size)
    squash = Preprocess(resize="pillow-bilinear", geometry="squash", size=size)
    shorts = [g for g in get_args(Geometry) if g.startswith("short-side")]
    for side in range(min(size), int(max(size) * WIDEST) + 1):
        scaled = round(side * size[0] / min(size)), round(side * size[1] / min(size))
        for least in dict.fromkeys(((side, side), scaled)):
            yield from (replace(squash, geometry=g, size=least, crop=size) for g in shorts)
    yield squash
    yield from (replace(squash, geometry="letterbox", fill=fill) for fill in FILLS)


def inside(place: Placement, size: Size) -> tuple[slice, slice]:
    """Rows and columns of a tensor of `size` that show the image, the rest being filled.

    >>> inside(Placement((0.5, 0.5), (2, 0), (8, 16)), (8, 8))
    (slice(2, 6, None), slice(0, 8, None))
    """
    spans = [
        slice(max(0, offset), min(side, offset + round(own * scale)))
        for side, own, scale, offset in zip(
            size, place.size, place.scale, place.offset, strict=True
        )
    ]
    return spans[0], spans[1]


def left_over(
    luma: Float[NDArray[np.float64], "h w"],
    wanted: Float[NDArray[Any], "3 y x"],
    places: Iterable[Placement],
) -> dict[Placement, float]:
    """The share of the photo's brightness, seen from each place, that the tensor does not explain.

    Any affine mixture of the tensor's channels may stand for brightness, so that neither the order
    of channels nor matrix, range and normalisation matter.

    Args:
        luma: brightness of the photo.
        wanted: the tensor.
        places: where it may have been taken from.
    """
    sums = np.pad(luma, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    step = max(1, round(min(wanted.shape[1:]) / _BLOCKS))
    rows, columns = (np.arange(0, side + 1, step) for side in wanted.shape[1:])
    cut = wanted[:, : rows[-1], : columns[-1]].astype(np.float64)
    blocks = cut.reshape(3, len(rows) - 1, step, len(columns) - 1, step).mean((2, 4))
    basis = np.stack([*blocks, np.ones(blocks.shape[1:])], -1)
    bases: dict[tuple[int, ...], NDArray[np.float64]] = {}

    def unlike(place: Placement) -> float:
        y, x = inside(place, (wanted.shape[1], wanted.shape[2]))
        down, across = _within(rows, y), _within(columns, x)
        key = (down.start, down.stop, across.start, across.stop)
        part = basis[down, across].reshape(-1, 4)
        if len(part) < _FEWEST:
            return np.inf
        if key not in bases:
            bases[key] = np.linalg.qr(part)[0]
        seen = _means(sums, place, rows[down.start : down.stop + 1], 0)
        seen = _means(seen, place, columns[across.start : across.stop + 1], 1).ravel()
        seen = seen - seen.mean()
        left = seen - bases[key] @ (bases[key].T @ seen)
        return float(left @ left) / max(float(seen @ seen), 1e-9)

    return {place: unlike(place) for place in places}


def _within(edges: NDArray[np.int64], span: slice) -> slice:
    """The blocks between `edges` that lie in `span` altogether."""
    first, last = np.searchsorted(edges, span.start), np.searchsorted(edges, span.stop, "right") - 1
    return slice(int(first), max(int(first), int(last)))


def _means(
    sums: NDArray[np.float64], place: Placement, edges: NDArray[np.int64], axis: int
) -> NDArray[np.float64]:
    """Means of the photo between `edges` of the tensor along `axis`, out of its running sums."""
    scale, offset, own = place.scale[axis], place.offset[axis], place.size[axis]
    at = ((edges - offset) / scale).clip(0, own)
    low = np.minimum(at.astype(int), own - 1)
    share = np.expand_dims(at - low, 1 - axis)
    there = sums.take(low, axis) * (1 - share) + sums.take(low + 1, axis) * share
    return np.diff(there, axis=axis) / np.expand_dims(np.diff(at), 1 - axis)
