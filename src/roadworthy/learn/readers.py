"""Samples out of the layouts that data sets come in.

What `core` reads for judging (ImageFolder, COCO, YOLO, VOC, masks, depth) is read by the same code
here; captions are read here only.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.sources import decode, png, reason
from roadworthy.errors import BadData
from roadworthy.learn.sample import Sample


@dataclass(frozen=True)
class Origin:
    """Where samples are from: name of the source, its licence, and which split of it."""

    source: str
    licence: str = "unknown"
    split: str = "all"


def read_spec(spec: str, origin: Origin, numbers: Iterable[int] | None = None) -> Iterator[Sample]:
    """Samples of a data spec as `load_data` takes it.

    Only those of `numbers` are read, where they are given.

    Crowd boxes and boxes without area are no single object and are left out.

    Raises:
        BadData: a spec of texts or outlines, or whatever `load_data` refuses.
    """
    data = load_data(spec)
    if data.task in ("text", "instances"):
        raise BadData(
            f"data {spec} given; imagefolder:, npz:, builtin:, yolo:, coco:, voc:, masks: and "
            "depth: hold what samples are made of"
        )
    for index in range(len(data)) if numbers is None else numbers:
        yield sample_of(data, index, origin)


def sample_of(data: Dataset, index: int, origin: Origin) -> Sample:
    """Image `index` of a data set and what it says of it, as `read_spec` reads it."""
    content = data.content(index)
    image = content if isinstance(content, bytes) else png(decode(content, data.name(index)))
    said = _said(data, index)
    return Sample(image, data.name(index), origin.source, origin.licence, origin.split, **said)


def _said(data: Dataset, index: int) -> dict[str, Any]:
    truth = data.truth(index)
    if truth is None:
        return {}
    match data.task:
        case "detection":
            return _boxes(truth, data.classes)
        case "segmentation":
            return {"mask": truth, "mask_labels": data.classes}
        case "depth":
            return {"depth": truth}
        case _:
            label = int(truth[0])
            return {"labels": (data.classes[label] if data.classes else str(label),)}


def _boxes(rows: NDArray[Any], classes: Sequence[str]) -> dict[str, Any]:
    kept = rows[(rows[:, 4] == 0) & (rows[:, 2:4] > rows[:, :2]).all(1)]
    return {"boxes": kept[:, :4], "box_labels": tuple(classes[int(row[5])] for row in kept)}


def read_captions(listing: Path, images: Path, origin: Origin) -> Iterator[Sample]:
    """Images of `images` with the captions of `listing`: rows ``image,caption`` below that header.

    Raises:
        BadData: a listing that is none, an image that is missing, an empty caption.
    """
    try:
        rows = list(csv.reader(io.StringIO(listing.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"captions {listing} cannot be read: {reason(error)}") from error
    if not rows or rows[0] != ["image", "caption"] or len(rows) == 1:
        raise BadData(f"{listing} has no captions; a line image,caption and rows are needed")
    found: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not row[1].strip():
            raise BadData(f"{listing}, row {number}: {row} given; a file and a caption are needed")
        found.setdefault(row[0], []).append(row[1].strip())
    for name, captions in found.items():
        yield Sample(*opened(images / name, origin), captions=tuple(captions))


def opened(path: Path, origin: Origin) -> tuple[bytes, str, str, str, str]:
    """What every sample out of an image file begins with."""
    return content_of(path), str(path), origin.source, origin.licence, origin.split


def content_of(path: Path) -> bytes:
    """A file's bytes; BadData where there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"image {path} cannot be read: {reason(error)}") from error
