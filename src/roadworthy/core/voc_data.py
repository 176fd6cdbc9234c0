"""Images with boxes as Pascal VOC lays them out: an XML file for each image.

VOC counts pixels from 1 and includes the last, so that a box from 1 to 1 is the first pixel. An
object marked ``difficult`` is judged neither right nor wrong, like a crowd of COCO.
"""

import math
import xml.etree.ElementTree as Xml
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roadworthy.core.boxes_data import Boxes, clipped, names_beside
from roadworthy.core.dense_data import query_of
from roadworthy.core.sources import Files, image_paths, reason, text_lines
from roadworthy.errors import BadData

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """What an annotation says of one object; the box in shares of width and height."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def open_voc(where: str) -> tuple[Boxes, tuple[str, ...], bool]:
    """Images and boxes of ``DIR?split=train&names=LIST.txt``, class names, whether ids are ranks.

    ``DIR`` holds ``JPEGImages/`` and ``Annotations/``; a split is a list in ``ImageSets/Main/``,
    and without one all that is annotated is read. Names are those of ``names=``, a line for each
    class, or of ``classes.yaml`` in ``DIR``; else all that occur in ``DIR``, sorted, whichever
    split is read.

    Raises:
        BadData: no such split, an image or an annotation that is missing, damaged or of no class.
    """
    root, chosen = query_of("voc", where, {"split", "names"})
    held = {path.stem: path for path in sorted((root / "Annotations").glob("*.xml"))}
    if not held:
        raise BadData(f"voc:{root} has no XML file in {root / 'Annotations'}; it is needed")
    stems = _listed(root, chosen["split"]) if "split" in chosen else list(held)
    given = names_beside(root, chosen.get("names"))
    needed = stems if given else [*held, *(stem for stem in stems if stem not in held)]
    said = {
        stem: voc_objects(root / "Annotations" / f"{stem}.xml") for stem in dict.fromkeys(needed)
    }
    names = given or tuple(sorted({each.name for objects in said.values() for each in objects}))
    numbers = {name: number for number, name in enumerate(names)}
    rows = tuple(_rows(root / "Annotations" / f"{stem}.xml", said[stem], numbers) for stem in stems)
    return Boxes(_images(root, stems), rows), names, not given


def _listed(root: Path, split: str) -> list[str]:
    folder = root / "ImageSets" / "Main"
    listing = folder / f"{split}.txt"
    if not listing.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise BadData(f"split {split!r} of voc:{root} given; {there or 'none'} is there")
    lines = [line.split() for line in text_lines(listing) if line.strip()]
    if not lines or any(len(line) > 1 for line in lines):
        raise BadData(f"{listing} is no list of images; one name a line is needed")
    return [line[0] for line in lines]


def _images(root: Path, stems: list[str]) -> Files:
    folder = root / "JPEGImages"
    there = {path.stem: path.name for path in (image_paths(folder) if folder.is_dir() else [])}
    missing = next((stem for stem in stems if stem not in there), None)
    if missing is not None:
        raise BadData(f"voc:{root} has no image {missing} in {folder}; the annotation's is needed")
    return Files(folder, tuple(there[stem] for stem in stems), (None,) * len(stems))


def voc_objects(path: Path) -> list[VocObject]:
    """What an annotation says; BadData where it is missing or damaged."""
    try:
        tree = Xml.fromstring(path.read_bytes())
        width, height = (float(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
        return [_object(path, each, width, height) for each in tree.iter("object")]
    except (OSError, Xml.ParseError, ValueError) as error:
        raise BadData(f"annotation {path} is missing or damaged: {reason(error)}") from error


def _object(path: Path, each: Xml.Element, width: float, height: float) -> VocObject:
    name = each.findtext("name", "").strip()
    sides = x1, y1, x2, y2 = [float(each.findtext(f"bndbox/{side}", "")) for side in _SIDES]
    whole = all(map(math.isfinite, (*sides, width, height))) and min(width, height) > 0
    if not whole or not name or x1 > width or y1 > height or x2 < 0 or y2 < 0:
        raise BadData(
            f"annotation {path}: {name or 'no name'} at {sides} on {width:g}x{height:g} pixels "
            "given; a name and a box in the image are needed"
        )
    box = clipped((x1 - 1) / width, (y1 - 1) / height, x2 / width, y2 / height)
    return VocObject(name, (box[0], box[1], box[2], box[3]), each.findtext("difficult") == "1")


def _rows(path: Path, objects: list[VocObject], numbers: dict[str, int]) -> np.ndarray:
    unknown = next((each.name for each in objects if each.name not in numbers), None)
    if unknown is not None:
        raise BadData(f"annotation {path} has class {unknown!r}; {', '.join(numbers)} are known")
    rows = [[*each.box, float(each.difficult), float(numbers[each.name])] for each in objects]
    return np.array(rows, np.float64).reshape(-1, 6)
