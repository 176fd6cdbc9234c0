"""What a road test looks like: how each class of options moves a photo, and the photos that flip.

Everything is a data URI, so that a report stays one file.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageOps

from roadworthy.core.data import Dataset
from roadworthy.core.progress import track
from roadworthy.core.resizers import Raster
from roadworthy.errors import BadData
from roadworthy.noise.classes import PROBES, difference
from roadworthy.noise.options import Option
from roadworthy.noise.systems import System
from roadworthy.noise.tree import rasters, sight

SEEN = ("decode", "resize", "geometry", "colour")
"""Stages whose options change the raster; the others change numbers behind it."""
SIDE = 112
"""Pixels of the model's input that a crop shows, each of them as it is."""
THUMBNAIL = 128
TYPICAL = 12
"""Images to choose the shown one from; more are looked at only for what changed none of these."""
CLEAR = 0.1
"""Of its largest change, what an option must change in the shown image, or it gets its own."""

Levels = Float[NDArray[np.float64], " n"]
Picture = Mapping[str, Any]


def pictures(
    dataset: Dataset, base: System, chosen: Sequence[Option], flips: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What pictures.json holds, in JSON's types.

    Args:
        dataset: the images of the road test.
        base: the training system.
        chosen: the options that stand for a class.
        flips: rows with ``index``, ``label``, ``before`` and ``after``.

    Returns:
        ``shots``: crops of what the training system sees; ``differences``: of each class what it
        changes in one of them (`shot`), magnified by ``factor``, with the mean ``levels`` of 255 on
        that image; ``thumbnails``: photo of each flip by index; ``names``: class names by id.
    """
    seen = [option for option in chosen if option.stage in SEEN]
    shots, differences = _differences(dataset, base, seen)
    indices = dict.fromkeys(int(row["index"]) for row in flips)
    named = dataset.classes if dataset.task in ("classification", "text") else ()
    photos = {str(index): _thumbnail(dataset, index) for index in indices}
    return {
        "shots": shots,
        "differences": differences,
        "thumbnails": {index: photo for index, photo in photos.items() if photo},
        "names": _names(named, flips),
    }


def data_uri(pixels: Image.Image) -> str:
    """A JPEG with full colour resolution: chroma is part of what is shown.

    >>> data_uri(Image.new("RGB", (4, 4)))[:23]
    'data:image/jpeg;base64,'
    """
    stream = io.BytesIO()
    pixels.save(stream, "JPEG", quality=80, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def magnified(moved: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], int]:
    """Absolute differences ``[h w 3]`` in levels as a picture, and the power of two they took.

    The factor is the largest, up to 64, at which one value in a hundred is cut off.

    >>> bright, factor = magnified(np.full((2, 2, 3), 3.0))
    >>> bright.max(), factor
    (np.uint8(192), 64)
    """
    most = max(float(np.quantile(moved, 0.99)), 255 / 64)
    factor = 2 ** int(np.log2(255 / most)) if most < 255 else 1
    return np.clip(np.rint(moved * factor), 0, 255).astype(np.uint8), factor


def _differences(
    dataset: Dataset, base: System, options: Sequence[Option]
) -> tuple[list[Picture], list[Picture]]:
    levels = _levels(dataset, base, options)
    if not levels:
        return [], []
    typical = max(levels, key=lambda index: float(np.log1p(levels[index]).sum()))
    shown: dict[int, list[int]] = {}
    for number in range(len(options)):
        most = max(levels, key=lambda index: float(levels[index][number]))
        enough = levels[typical][number] > CLEAR * levels[most][number]
        index = typical if enough else most
        shown.setdefault(index, []).append(number)
    shots: list[Picture] = []
    drawn: dict[int, Picture] = {}
    for index, numbers in shown.items():
        shot, found = _draw(dataset, index, base, [options[n] for n in numbers])
        drawn |= {n: {**row, "shot": len(shots)} for n, row in zip(numbers, found, strict=True)}
        shots.append(shot)
    return shots, [drawn[number] for number in sorted(drawn)]


def _levels(dataset: Dataset, base: System, options: Sequence[Option]) -> dict[int, Levels]:
    """By image, how far each option moves it; at most 255, which another shape counts as."""
    if not options:
        return {}
    stages = [base.image, *(option.system.image for option in options)]
    count = min(PROBES, len(dataset))
    probes = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    found: dict[int, Levels] = {}
    for index in track(probes.tolist(), "taking pictures"):
        if len(found) >= TYPICAL and bool(np.all(sum(found.values()) > 0)):
            break
        try:
            views = rasters(dataset.content(index), dataset.name(index), stages)
        except BadData:
            continue
        first, *others = (views[sight(stage)] for stage in stages)
        found[index] = np.minimum([difference(first, other) for other in others], 255.0)
    return found


def _draw(
    dataset: Dataset, index: int, base: System, options: Sequence[Option]
) -> tuple[Picture, list[Picture]]:
    """The training system's crop of one image, and what each option changes in it."""
    stages = [base.image, *(option.system.image for option in options)]
    views = rasters(dataset.content(index), dataset.name(index), stages)
    first, *others = (np.asarray(views[sight(stage)], np.float32) for stage in stages)
    moved = [np.abs(other - first) if other.shape == first.shape else None for other in others]
    known = [each.mean(2) / max(float(each.mean()), 1e-9) for each in moved if each is not None]
    window = _busiest(np.sum(known, 0) if known else np.ones(first.shape[:2], np.float32))
    shot = {"file": dataset.name(index), "picture": _picture(first[window])}
    rows: list[Picture] = []
    for option, other, each in zip(options, others, moved, strict=True):
        row = {"stage": option.stage, "option": option.name}
        if each is None:  # another shape has no difference: what is served is shown itself
            rows.append({**row, "picture": _picture(other[window]), "factor": None, "levels": None})
            continue
        bright, factor = magnified(each[window])
        levels = float(each.mean())
        rows.append({**row, "picture": _picture(bright), "factor": factor, "levels": levels})
    return shot, rows


def _busiest(weight: NDArray[np.floating[Any]]) -> tuple[slice, slice]:
    """The crop of at most `SIDE` square that holds most of `weight` ``[h w]``."""
    height, width = (min(SIDE, side) for side in weight.shape)
    sums = np.pad(weight.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    rows = sums[height:] - sums[: len(sums) - height]
    held = rows[:, width:] - rows[:, : rows.shape[1] - width]
    top, left = divmod(int(held.argmax()), held.shape[1])
    return slice(top, top + height), slice(left, left + width)


def _picture(raster: Raster) -> str:
    return data_uri(Image.fromarray(np.clip(np.rint(raster), 0, 255).astype(np.uint8)))


def _thumbnail(dataset: Dataset, index: int) -> str | None:
    try:
        return data_uri(ImageOps.fit(dataset.load(index), (THUMBNAIL, THUMBNAIL)))
    except BadData:
        return None


def _names(classes: Sequence[str], flips: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of the classes in `flips`; a name that is only its number says nothing."""
    keys = ("label", "before", "after")
    said = {int(row[key]) for row in flips for key in keys if row[key] is not None}
    known = {id: classes[id] for id in sorted(said) if 0 <= id < len(classes)}
    return {str(id): name for id, name in known.items() if name != str(id)}
