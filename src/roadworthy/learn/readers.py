"""Samples out of the layouts that data sets come in.

What `core` reads for judging (ImageFolder, COCO, YOLO, masks, depth) is read by the same code here;
captions and VOC's XML are read here only.
"""

import csv
import io
import xml.etree.ElementTree as Xml
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.sources import decode, reason
from roadworthy.errors import BadData
from roadworthy.learn.sample import Sample


@dataclass(frozen=True)
class Origin:
    """Where samples are from: name of the source, its licence, and which split of it."""

    source: str
    licence: str = "unknown"
    split: str = "all"


def read_spec(
    spec: str, origin: Origin, names: Sequence[str] = (), numbers: Iterable[int] | None = None
) -> Iterator[Sample]:
    """Samples of a data spec as `load_data` takes it; `names` are those of a mask's ids.

    Only those of `numbers` are read, where they are given.

    Crowd boxes and boxes without area are no single object and are left out.

    Raises:
        BadData: a spec of texts or outlines, or whatever `load_data` refuses.
    """
    data = load_data(spec)
    if data.task in ("text", "instances"):
        raise BadData(
            f"data {spec} given; imagefolder:, npz:, builtin:, yolo:, coco:, masks: and depth: "
            "hold what samples are made of"
        )
    for index in range(len(data)) if numbers is None else numbers:
        content = data.content(index)
        image = content if isinstance(content, bytes) else _png(data, index)
        said = _said(data, index, tuple(names))
        yield Sample(image, data.name(index), origin.source, origin.licence, origin.split, **said)


def _png(data: Dataset, index: int) -> bytes:
    held = io.BytesIO()
    decode(data.content(index), data.name(index)).save(held, "PNG")
    return held.getvalue()


def _said(data: Dataset, index: int, names: tuple[str, ...]) -> dict[str, Any]:
    truth = data.truth(index)
    if truth is None:
        return {}
    match data.task:
        case "detection":
            return _boxes(truth, data.classes)
        case "segmentation":
            return {"mask": truth, "mask_labels": names}
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
        yield Sample(*_opened(images / name, origin), captions=tuple(captions))


def _opened(path: Path, origin: Origin) -> tuple[bytes, str, str, str, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadData(f"image {path} cannot be read: {reason(error)}") from error
    return content, str(path), origin.source, origin.licence, origin.split


def read_voc(root: Path, origin: Origin) -> Iterator[Sample]:
    """Boxes of ``ROOT/Annotations/NAME.xml`` on ``ROOT/JPEGImages/NAME.jpg``.

    Names are those of ``ROOT/ImageSets/Main/SPLIT.txt``. VOC counts pixels from 1 and includes the
    last, so a box from 1 to 1 is the first pixel. Boxes that reach no area, as a few of BCCD do,
    are left out; edges that begin at 0 are clipped.

    Raises:
        BadData: no such split, an annotation that is missing or none.
    """
    listing = root / "ImageSets" / "Main" / f"{origin.split}.txt"
    if not listing.is_file():
        held = sorted(path.stem for path in listing.parent.glob("*.txt"))
        raise BadData(
            f"split {origin.split!r} of {root} given; {', '.join(held) or 'none'} is there"
        )
    for name in listing.read_text(encoding="utf-8").split():
        rows, labels = _voc_file(root / "Annotations" / f"{name}.xml")
        image = _opened(root / "JPEGImages" / f"{name}.jpg", origin)
        yield Sample(*image, boxes=rows, box_labels=labels)


def _voc_file(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    try:
        tree = Xml.fromstring(path.read_bytes())
        size = [float(tree.findtext(f"size/{side}", "")) for side in ("width", "height")]
        found = [(_corners(each), each.findtext("name", "")) for each in tree.iter("object")]
    except (OSError, Xml.ParseError, ValueError) as error:
        raise BadData(f"annotation {path} is missing or damaged: {reason(error)}") from error
    rows = np.array([row for row, _ in found], np.float64).reshape(-1, 4)
    rows = np.clip(rows, 0, [*size, *size])
    kept = np.flatnonzero((rows[:, 2:] > rows[:, :2]).all(1))
    return rows[kept], tuple(found[i][1] for i in kept)


def _corners(each: Xml.Element) -> list[float]:
    sides = ("xmin", "ymin", "xmax", "ymax")
    x1, y1, x2, y2 = (float(each.findtext(f"bndbox/{side}", "")) for side in sides)
    return [x1 - 1, y1 - 1, x2, y2]
