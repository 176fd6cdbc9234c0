"""Images with boxes: folders as YOLO lays them out, annotation files as COCO writes them.

Edges that jut out of the image are clipped to it, since labelling tools round; a box that lies
outside altogether is refused. A box without area stays and cannot be found, as in COCO's own
evaluation. An image with no label file, or no annotation, is an image with nothing on it; only a
YOLO folder without ``labels/`` is unlabelled.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.sources import MAX_CLASS_ID, Annotated, Files, image_paths, reason, text_lines
from roadworthy.errors import BadData, brief

Rows = Float[NDArray[np.float64], "_ 6"]
Outline = tuple[str, Any, tuple[int, int]]
"""Where an annotation stands, its segmentation as the file holds it, and its image's size."""


@dataclass(frozen=True, eq=False)
class Boxes(Annotated):
    """Image files and what is on them.

    Args:
        files: the images.
        rows: per image x1 y1 x2 y2 crowd class, the corners as shares of width and height; None
            where nobody knows.
    """

    rows: tuple[Rows | None, ...]

    def key(self, index: int) -> str:
        """Path below the root and a hash of the boxes."""
        rows = self.rows[index]
        held = "unknown" if rows is None else hashlib.sha256(rows.tobytes()).hexdigest()
        return f"{self.files.key(index)} {held}"

    def known(self, index: int) -> bool:
        """Whether somebody says what is on image `index`."""
        return self.rows[index] is not None

    def relative(self, index: int) -> Rows:
        """Boxes of image `index` with corners as shares of its sides; none where unknown."""
        rows = self.rows[index]
        return np.zeros((0, 6)) if rows is None else rows

    def truth(self, index: int) -> Rows | None:
        """Boxes of image `index` in pixels of the upright image, None where unknown."""
        if not self.known(index):
            return None
        width, height = upright_size(self.read(index), self.name(index))
        return self.relative(index) * np.array([width, height, width, height, 1.0, 1.0])


def upright_size(content: bytes, name: str) -> tuple[int, int]:
    """Width and height of an image as its EXIF tag turns it; BadData where it is none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = image.size
            return (height, width) if turned else (width, height)
    except Exception as error:
        raise BadData(f"image {name} is corrupt or no image: {reason(error)}") from error


def open_yolo(root: Path) -> tuple[Boxes, tuple[str, ...]]:
    """Images below ``images/``, boxes of the same name below ``labels/``, and the class names.

    A label file has lines of ``class cx cy w h``, the last four as shares of width and height.
    Names are those of ``classes.yaml`` (``names``, a list or a mapping from ids); without that file
    classes are called by their numbers.

    Raises:
        BadData: no images, or a label that is none; names file and line.
    """
    labels = root / "labels"
    files, listed = labelled_files(f"yolo:{root}", root, labels)
    names = class_names(root / "classes.yaml")
    limit = len(names) or MAX_CLASS_ID + 1
    rows = tuple(_label_file(path, limit) if labels.is_dir() else None for path in listed)
    return Boxes(files, rows), names or numbered(rows)


def labelled_files(spec: str, root: Path, labels: Path) -> tuple[Files, list[Path]]:
    """Images below ``images/`` of `root` and where in `labels` the file of each would lie.

    Raises:
        BadData: no images, or a folder `labels` without a file for any of them.
    """
    folder = root / "images"
    paths = image_paths(folder) if folder.is_dir() else []
    if not paths:
        raise BadData(f"{spec} has no images in {folder}; images/ and {labels.name}/ are needed")
    inside = [path.relative_to(folder) for path in paths]
    listed = [labels / path.with_suffix(".txt") for path in inside]
    if labels.is_dir() and not any(path.is_file() for path in listed):
        raise BadData(
            f"{spec} has no label file for any of {len(paths)} images, e.g. {listed[0]}; "
            f"give them the images' names, or remove {labels.name}/ to compare answers only"
        )
    keys = tuple(path.as_posix() for path in inside)
    return Files(folder, keys, (None,) * len(keys)), listed


def numbered(rows: Sequence[Rows | None]) -> tuple[str, ...]:
    """Names for classes that have none: their numbers, up to the highest."""
    highest = max((int(r[:, 5].max()) for r in rows if r is not None and len(r)), default=-1)
    return tuple(map(str, range(highest + 1)))


def class_names(path: Path) -> tuple[str, ...]:
    """Names of ``classes.yaml``, none where there is no such file; BadData names a damaged one."""
    if not path.is_file():
        return ()
    try:
        held: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadData(f"{path} cannot be read: {brief(error)}") from error
    match held:
        case {"names": [*names]} if names:
            return tuple(map(str, names))
        case {"names": {**names}} if names and sorted(names, key=str) == sorted(
            range(len(names)), key=str
        ):
            return tuple(str(names[i]) for i in range(len(names)))
        case _:
            raise BadData(f"{path} names no classes; give names: a list, or ids from 0 with names")


def names_beside(root: Path, listing: str | None = None) -> tuple[str, ...]:
    """Names of a file with one a line, in `root` or as the path says; else of ``classes.yaml``.

    Raises:
        BadData: a file that is missing, holds nothing or a name twice.
    """
    if listing is None:
        return class_names(root / "classes.yaml")
    inside = root / listing
    return name_lines(inside if inside.is_file() else Path(listing))


def name_lines(path: Path) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of their ids; BadData where one comes twice."""
    names = tuple(line.strip() for line in text_lines(path) if line.strip())
    if not names or len(set(names)) < len(names):
        raise BadData(
            f"{path} has {len(names)} names, {len(set(names))} of them different; one line for "
            "each class is needed"
        )
    return names


def _label_file(path: Path, limit: int) -> Rows:
    found = [_line(where, text, limit) for where, text in label_lines(path)]
    return np.array(found, np.float64).reshape(-1, 6)


def label_lines(path: Path) -> list[tuple[str, str]]:
    """File and number of each line that is not blank, and the line; none where no file is."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"label file {path} cannot be read as text: {reason(error)}") from error
    numbered_lines = enumerate(lines, 1)
    return [(f"{path}, line {number}", text) for number, text in numbered_lines if text.strip()]


def _line(where: str, text: str, limit: int) -> list[float]:
    label, values = line_of(where, text, limit, "class cx cy w h is needed, five numbers")
    if len(values) != 4:
        raise BadData(f"{where}: {text[:60]!r} given; class cx cy w h is needed, five numbers")
    x, y, w, h = in_shares(where, text, values, "cx cy w h")
    return [*clipped(x - w / 2, y - h / 2, x + w / 2, y + h / 2), 0.0, float(label)]


def line_of(
    where: str, text: str, limit: int, needed: str, hint: str = ""
) -> tuple[int, list[float]]:
    """Class, below `limit`, and numbers of a label line; BadData where either is none."""
    label, *numbers = text.split()
    values = [_number(each) for each in numbers]
    if not label.isdecimal() or not all(map(math.isfinite, values)):
        raise BadData(f"{where}: {text[:60]!r} given; {needed}")
    # int() refuses thousands of digits.
    if len(label) > 9 or int(label) >= limit:
        raise BadData(f"{where}: class {label[:20]} given; 0 to {limit - 1} are allowed{hint}")
    return int(label), values


def in_shares(where: str, text: str, values: list[float], what: str) -> list[float]:
    """`values`; BadData unless all lie between 0 and 1."""
    if not all(0 <= value <= 1 for value in values):
        raise BadData(
            f"{where}: {text[:60]!r} given; {what} are shares of width and height, 0 to 1"
        )
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def clipped(*corners: float) -> list[float]:
    """Corners in shares, moved to the image's edges where they jut out."""
    return [min(max(corner, 0.0), 1.0) for corner in corners]


def open_coco(where: str) -> tuple[Boxes, tuple[str, ...], bool]:
    """Images and boxes of ``IMAGES@annotations.json``, the class names, whether ids are ranks.

    Classes are the ranks of the category ids, as detectors number them that know no background;
    with ``?ids=file`` behind they are the file's ids, as torchvision's detectors answer.

    Raises:
        BadData: a file that is missing or no annotation file; names the annotation to blame.
    """
    boxes, names, _ = read_coco("coco", where)
    return boxes, names, not where.endswith("?ids=file")


def read_coco(
    kind: str, where: str
) -> tuple[Boxes, tuple[str, ...], tuple[tuple[Outline, ...], ...]]:
    """Boxes and class names of ``IMAGES@annotations.json`` and, per image, what outlines them."""
    spec, _, query = where.partition("?")
    folder, _, listing = spec.rpartition("@")
    allowed = f"{kind}:IMAGES@annotations.json"
    if not folder or not listing or query not in ("", "ids=file"):
        raise BadData(f"data {kind}:{where} given; {allowed} is allowed, ?ids=file behind it")
    root, own_ids = Path(folder), query == "ids=file"
    path = root / listing if (root / listing).is_file() else Path(listing)
    held = _annotations(path)
    ids = sorted(_integer(path, "category", each, "id") for each in held["categories"])
    classes = {own: own if own_ids else rank for rank, own in enumerate(ids)}
    images: dict[int, Mapping[str, Any]] = {
        _integer(path, "image", each, "id"): each for each in held["images"]
    }
    if len(images) < len(held["images"]):
        raise BadData(f"{path} gives several images the same id; number them anew")
    found: dict[int, list[list[float]]] = {image: [] for image in images}
    outlines: dict[int, list[Outline]] = {image: [] for image in images}
    for each in held["annotations"]:
        image = _integer(path, "annotation", each, "image_id")
        label = _integer(path, "annotation", each, "category_id")
        where = f"{path}, annotation {each.get('id')}"
        if image not in images or label not in classes:
            raise BadData(f"{where}: image {image}, category {label} given; one is not in the file")
        row = _bbox(where, each.get("bbox"), images[image])
        found[image].append([*row, float(bool(each.get("iscrowd"))), float(classes[label])])
        size = int(images[image]["height"]), int(images[image]["width"])
        outlines[image].append((where, each.get("segmentation"), size))
    keys = tuple(str(each.get("file_name")) for each in images.values())
    if not any((root / key).is_file() for key in keys):
        raise BadData(f"none of the {len(keys)} images of {path} is in {root}; give {allowed}")
    rows = tuple(np.array(found[image], np.float64).reshape(-1, 6) for image in images)
    by_id = {classes[each["id"]]: str(each.get("name")) for each in held["categories"]}
    names = tuple(by_id.get(i, str(i)) for i in range(max(by_id) + 1))
    boxes = Boxes(Files(root, keys, (None,) * len(keys)), rows)
    return boxes, names, tuple(map(tuple, outlines.values()))


def _annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(f"annotation file {path} cannot be read: {reason(error)}") from error
    match held:
        case {"images": [_, *_], "annotations": [*_], "categories": [_, *_]}:
            entries = [*held["images"], *held["annotations"], *held["categories"]]
            if all(isinstance(each, dict) for each in entries):
                return cast("dict[str, list[dict[str, Any]]]", held)
        case _:
            pass
    raise BadData(
        f"{path} is no annotation file; images, annotations and categories are needed, lists of "
        "objects"
    )


def _integer(path: Path, kind: str, entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if not isinstance(value, int) or not 0 <= value <= (
        MAX_CLASS_ID if kind == "category" else 2**63
    ):
        raise BadData(f"{path}: {kind} {entry.get('id')} has {name} {value!r}; a number is needed")
    return value


def _bbox(where: str, bbox: Any, image: Mapping[str, Any]) -> list[float]:
    match bbox, image:
        case (
            [
                float() | int() as x,
                float() | int() as y,
                float() | int() as w,
                float() | int() as h,
            ],
            {"width": int() as width, "height": int() as height},
        ) if all(map(math.isfinite, bbox)) and min(width, height) > 0 and min(w, h) >= 0:
            if x >= width or y >= height or x + w < 0 or y + h < 0:
                raise BadData(f"{where}: bbox {bbox} is outside the image of {width}x{height}")
            return clipped(x / width, y / height, (x + w) / width, (y + h) / height)
        case _:
            raise BadData(
                f"{where}: bbox {bbox} given on an image of {image.get('width')}x"
                f"{image.get('height')}; [x, y, width, height] in pixels are needed, and both sizes"
            )
