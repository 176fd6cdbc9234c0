"""Images with the outlines of what is on them: Ultralytics' folders, COCO's annotation files.

Boxes, clipping and what counts as unlabelled are those of `boxes_data`; here every box has a mask.
An image without a file in ``instances/`` is unlabelled, since that folder may cover some images
only; without one in ``labels/`` it has nothing on it, as Ultralytics has it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import faster_coco_eval.mask_api_new_cpp as packed
import numpy as np
from faster_coco_eval.core import mask as masks
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.core.boxes_data import (
    Boxes,
    Outline,
    Rows,
    class_names,
    in_shares,
    label_lines,
    labelled_files,
    line_of,
    numbered,
    read_coco,
    upright_size,
)
from roadworthy.core.sources import MAX_CLASS_ID, reason
from roadworthy.errors import BadData

Rle = dict[str, Any]
"""A mask as COCO packs it: ``size``, height and width, and ``counts``, bytes."""
Polygon = Float[NDArray[np.float64], "_ 2"]
Shape = tuple[Polygon, ...] | Rle
"""Corners x y as shares of width and height, of each part; or a packed mask."""
INSTANCE = np.dtype([("row", np.float64, (6,)), ("mask", np.object_)])
"""A row of `boxes_data` or of an answer, in pixels, and its mask."""
_FARTHEST = 10
"""From the middle of an image to a corner of an outline, in sides of the image."""
_NEEDED = "class x1 y1 x2 y2 x3 y3 ... is needed, three corners or more (yolo: reads boxes)"


def instances(rows: Rows, held: Sequence[Rle]) -> NDArray[Any]:
    """Rows and their masks as one array of `INSTANCE`.

    >>> instances(np.zeros((1, 6)), [{"size": [1, 1], "counts": b"1"}])["mask"][0]["size"]
    [1, 1]
    """
    joined = np.empty(len(rows), INSTANCE)
    joined["row"] = rows
    for i, mask in enumerate(held):
        joined["mask"][i] = mask
    return joined


@dataclass(frozen=True, eq=False)
class Masks:
    """Image files, what is on them and its outlines.

    Args:
        boxes: the images and their boxes.
        shapes: one for each box, None where nobody knows.
    """

    boxes: Boxes
    shapes: tuple[tuple[Shape, ...] | None, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def read(self, index: int) -> bytes:
        """File content."""
        return self.boxes.read(index)

    def label(self, index: int) -> None:
        """None: there is no one class."""

    def name(self, index: int) -> str:
        """Full path."""
        return self.boxes.name(index)

    def key(self, index: int) -> str:
        """Path below the root and a hash of boxes and outlines."""
        total = hashlib.sha256()
        for shape in self.shapes[index] or ():
            parts = [shape["counts"]] if isinstance(shape, dict) else map(np.ndarray.tobytes, shape)
            total.update(b" ".join(parts) + b"\0")
        return f"{self.boxes.key(index)} {total.hexdigest()}"

    def known(self, index: int) -> bool:
        """Whether somebody says what is on image `index`."""
        return self.shapes[index] is not None

    def truth(self, index: int) -> NDArray[Any] | None:
        """`INSTANCE` of each object in pixels of the upright image, None where unknown."""
        shapes = self.shapes[index]
        if shapes is None:
            return None
        name = self.name(index)
        width, height = upright_size(self.read(index), name)
        rows = self.boxes.relative(index) * np.array([width, height, width, height, 1.0, 1.0])
        return instances(rows, [drawn(shape, (height, width), name) for shape in shapes])


def drawn(shape: Shape, size: tuple[int, int], name: str) -> Rle:
    """The mask of `shape` on an image of `size` (height, width).

    Raises:
        BadData: a packed mask of another size; blames the image `name`.

    >>> half = np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1.0]])
    >>> masks.decode(drawn((half,), (2, 4), "a.jpg")).tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    height, width = size
    if isinstance(shape, dict):
        if tuple(shape["size"]) != size:
            own = "x".join(map(str, shape["size"][::-1]))
            raise BadData(
                f"image {name} is {width}x{height} and has a run-length mask of {own}; give the "
                "image that was annotated, or polygons"
            )
        return shape
    corners = [(part * [width, height]).ravel().tolist() for part in shape]
    return masks.merge(cast("list[Rle]", masks.frPyObjects(corners, height, width)))


def open_instances(where: str) -> tuple[Masks, tuple[str, ...], bool]:
    """Images and outlines of ``DIR`` or ``IMAGES@annotations.json``, names, whether ids are ranks.

    ``DIR`` holds ``images/``, and in ``instances/``, else in ``labels/``, lines of ``class x1 y1 x2
    y2 ...``, corners as shares of width and height. With ``?ids=file`` classes are the files' ids,
    whatever ``classes.yaml`` and the ranks of categories say.

    Raises:
        BadData: images or outlines that are missing or none; names file and line, or annotation.
    """
    spec, _, query = where.partition("?")
    if query not in ("", "ids=file"):
        raise BadData(f"data instances:{where} given; only ?ids=file is allowed behind it")
    if "@" not in spec or Path(spec).is_dir():
        return (*_folder(Path(spec), query == "ids=file"), False)
    boxes, names, outlines = read_coco("instances", where)
    shapes = tuple(tuple(map(_segmentation, image)) for image in outlines)
    return Masks(boxes, shapes), names, not query


def _folder(root: Path, own_ids: bool) -> tuple[Masks, tuple[str, ...]]:
    some = (root / "instances").is_dir()
    labels = root / ("instances" if some else "labels")
    files, listed = labelled_files(f"instances:{root}", root, labels)
    names = () if own_ids else class_names(root / "classes.yaml")
    limit = len(names) or MAX_CLASS_ID + 1
    known = [path.is_file() if some else labels.is_dir() for path in listed]
    found = [
        [_line(where, text, limit) for where, text in label_lines(path)] if is_known else None
        for path, is_known in zip(listed, known, strict=True)
    ]
    rows = tuple(None if lines is None else _rows(lines) for lines in found)
    shapes = tuple(None if lines is None else tuple((p,) for _, p in lines) for lines in found)
    return Masks(Boxes(files, rows), shapes), names or numbered(rows)


def _rows(lines: Sequence[tuple[int, Polygon]]) -> Rows:
    rows = [[*p.min(0), *p.max(0), 0.0, float(label)] for label, p in lines]
    return np.array(rows, np.float64).reshape(-1, 6)


def _line(where: str, text: str, limit: int) -> tuple[int, Polygon]:
    label, values = line_of(where, text, limit, _NEEDED, "; ?ids=file takes any id")
    if len(values) < 6 or len(values) % 2:
        raise BadData(f"{where}: {text[:60]!r} given; {_NEEDED}")
    return label, np.array(in_shares(where, text, values, "corners")).reshape(-1, 2)


def _segmentation(outline: Outline) -> Shape:
    """A segmentation as COCO writes it: polygons, run lengths, packed run lengths."""
    where, given, (height, width) = outline
    match given:
        case [[*_], *_] if all(map(_is_polygon, given)):
            sides = np.array([width, height])
            parts = tuple(np.array(part, np.float64).reshape(-1, 2) / sides for part in given)
            # Drawing takes time and memory for every pixel of an outline, also outside the image.
            if all(np.abs(part - 0.5).max() <= _FARTHEST for part in parts):
                return parts
        case {"size": [int() as h, int() as w], "counts": list() | str() as counts}:
            if (h, w) == (height, width):
                return _run_lengths(where, (h, w), counts)
        case _:
            pass
    raise BadData(
        f"{where}: segmentation {str(given)[:60]} given on an image of {width}x{height}; lists of "
        "x y x y x y ..., three corners or more, in or near the image, or size and counts of run "
        "lengths are needed"
    )


def _is_polygon(part: Any) -> bool:
    right = isinstance(part, list) and len(part) >= 6 and not len(part) % 2
    numbers = right and all(isinstance(each, int | float) for each in part)
    return numbers and bool(np.isfinite(np.array(part, np.float64)).all())


def _run_lengths(where: str, size: tuple[int, int], counts: list[Any] | str) -> Rle:
    try:
        if isinstance(counts, list):
            mask = packed.frUncompressedRLE([{"size": list(size), "counts": counts}])[0]
        else:
            mask = {"size": list(size), "counts": counts.encode()}
        lengths = packed.toUncompressedRLE([mask])[0]["counts"]
    except (RuntimeError, ValueError, TypeError) as error:
        raise BadData(f"{where}: its run lengths are damaged: {reason(error)[:100]}") from error
    if sum(lengths) != size[0] * size[1]:
        raise BadData(
            f"{where}: its run lengths cover {sum(lengths)} pixels and its image has "
            f"{size[0] * size[1]}"
        )
    return mask
