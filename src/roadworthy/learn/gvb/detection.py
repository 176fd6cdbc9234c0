"""Data sets of boxes: VOC 2007 and 2012, WIDER FACE, CityPersons.

Samples hold what is to be learned; a `Target` also holds what a metric neither asks for nor counts
against a detector.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from roadworthy.core.boxes_data import upright_size
from roadworthy.core.voc_data import VocObject, voc_objects
from roadworthy.errors import BadData
from roadworthy.learn.gvb.files import from_json, from_mat, lines
from roadworthy.learn.gvb.part import (
    Half,
    Part,
    Target,
    check_files,
    damaged,
    few,
    number_of,
    numbered,
)
from roadworthy.learn.readers import Origin, content_of
from roadworthy.learn.sample import Sample

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
ALL = "all"
"""The setting of a data set that has only one."""
EASES = ("easy", "medium", "hard")
REASONABLE, HEAVY = "reasonable", "heavy"
HEIGHTS = {REASONABLE: (50.0, math.inf), HEAVY: (50.0, math.inf)}
VISIBLE = {REASONABLE: (0.65, math.inf), HEAVY: (0.2, 0.65)}
"""Heights in pixels and visible shares of the pedestrians that must be found, ends included."""
Boxes = Float[NDArray[np.float64], "n 4"]


def voc(folder: Path, half: Half, origin: Origin) -> Part:
    """Trainval of ``VOC2007`` and ``VOC2012`` train, test of ``VOC2007`` tests.

    Difficult objects are neither learned nor judged.
    """
    sets = {"train": (("VOC2007", "trainval"), ("VOC2012", "trainval"))}
    names: list[str] = []
    for year, name in sets.get(half, (("VOC2007", "test"),)):
        path = folder / year / "ImageSets" / "Main" / f"{name}.txt"
        images = [image for image, *_ in lines(path, "an image")]
        check_files(folder / year / "Annotations", [f"{each}.xml" for each in images])
        names += [f"{year}/JPEGImages/{each}.jpg" for each in images]
    check_files(folder, names)
    numbers = numbered(VOC)

    def objects(number: int) -> tuple[bytes, list[VocObject], Boxes]:
        image = folder / names[number]
        path = image.parents[1] / "Annotations" / f"{image.stem}.xml"
        content, held = content_of(image), voc_objects(path)
        for each in held:
            number_of(numbers, each.name, path)
        shares = np.array([each.box for each in held], np.float64).reshape(-1, 4)
        return content, held, shares * (upright_size(content, str(image)) * 2)

    def read(number: int) -> Sample:
        content, held, boxes = objects(number)
        kept = [i for i, each in enumerate(held) if not each.difficult]
        said = [held[i].name for i in kept]
        return _sample(content, folder / names[number], origin, boxes[kept], said)

    def target(number: int) -> Target:
        _, held, boxes = objects(number)
        ids = np.array([numbers[each.name] for each in held], np.int64)
        return Target(boxes, ids, {ALL: np.array([each.difficult for each in held], np.bool_)})

    return Part(origin, "detection", VOC, tuple(names), read, target=target)


def _sample(
    content: bytes, path: Path, origin: Origin, boxes: Boxes, labels: Sequence[str]
) -> Sample:
    """What of boxes is seen in the image."""
    width, height = upright_size(content, str(path))
    seen = np.clip(boxes, 0, [width, height] * 2)
    kept = np.flatnonzero((seen[:, 2:] > seen[:, :2]).all(1)).tolist()
    said = tuple(labels[i] for i in kept)
    names = str(path), origin.source, origin.licence, origin.split
    return Sample(content, *names, boxes=seen[kept], box_labels=said)


_INVALID = 7
"""Column of a face that cannot be made out, as the readme of the annotations has it."""


def wider_face(folder: Path, half: Half, origin: Origin) -> Part:
    """``wider_face_split/`` lists the faces of ``WIDER_{train,val}/``; the latter test.

    Which faces are easy, medium and hard is said by the ground truth of the official evaluation,
    ``eval_tools/ground_truth/``; those of no such list are not judged. Invalid faces and those of
    no area are not learned.
    """
    name = "train" if half == "train" else "val"
    path = folder / "wider_face_split" / f"wider_face_{name}_bbx_gt.txt"
    faces = dict(_faces(path))
    names = tuple(faces)
    images = folder / f"WIDER_{name}" / "images"
    check_files(images, names)
    judged = _judged(folder / "eval_tools" / "ground_truth", names) if half == "test" else None

    def read(number: int) -> Sample:
        rows = faces[names[number]]
        kept = rows[rows[:, _INVALID] == 0]
        content = content_of(images / names[number])
        boxes = _corners(kept[:, :4])
        return _sample(content, images / names[number], origin, boxes, ("face",) * len(boxes))

    target = None if judged is None else judged.__getitem__
    return Part(origin, "detection", ("face",), names, read, target=target)


def _faces(path: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Images and rows x y w h blur expression illumination invalid occlusion pose."""
    needed = "an image, the number of its faces and a line of ten numbers for each"
    held = iter(lines(path, needed))
    for words in held:
        try:
            (name,) = words
            count = int(next(held)[0])
            rows = [[float(each) for each in next(held)] for _ in range(max(count, 1))]
            found = np.array(rows, np.float64).reshape(-1, 10)[:count]
        except (StopIteration, ValueError) as error:
            said = f"at {' '.join(words)!r}: {str(error) or 'the list ends'}"
            raise damaged(path, said, needed) from error
        yield name, found


def _corners(rows: Boxes) -> Boxes:
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], 1)


def _judged(folder: Path, names: Sequence[str]) -> list[Target]:
    """Faces of the official evaluation and which of them each setting asks for."""
    columns = ("event_list", "file_list", "face_bbx_list")
    held = from_mat(folder / "wider_face_val.mat", *columns, squeeze=False)
    wanted = [from_mat(folder / f"wider_{e}_val.mat", "gt_list", squeeze=False)[0] for e in EASES]
    found: dict[str, Target] = {}
    for event, *cells in zip(*(each[:, 0] for each in (*held, *wanted)), strict=True):
        for file, faces, *numbers in zip(*(each[:, 0] for each in cells), strict=True):
            name = f"{event[0]}/{file[0]}.jpg"
            found[name] = _target(faces, dict(zip(EASES, numbers, strict=True)))
    absent = [name for name in names if name not in found]
    if absent:
        raise BadData(f"{folder / 'wider_face_val.mat'} lacks images: {few(absent)}")
    return [found[name] for name in names]


def _target(faces: Any, wanted: dict[str, Any]) -> Target:
    boxes = _corners(np.asarray(faces, np.float64).reshape(-1, 4))
    ignored = {ease: np.ones(len(boxes), np.bool_) for ease in wanted}
    for ease, numbers in wanted.items():
        ignored[ease][np.asarray(numbers, np.int64).reshape(-1) - 1] = False
    return Target(boxes, np.zeros(len(boxes), np.int64), ignored)


def citypersons(folder: Path, half: Half, origin: Origin) -> Part:
    """``leftImg8bit/{train,val}/`` and ``gtBboxCityPersons/{train,val}/``; the latter test.

    Pedestrians are learned. Riders, sitting persons, groups and ignored regions, and pedestrians
    beyond a setting's heights and visible shares, are not judged in it.
    """
    name = "train" if half == "train" else "val"
    images, listing = (folder / each / name for each in ("leftImg8bit", "gtBboxCityPersons"))
    names = tuple(
        f"{path.parent.name}/{path.name}" for path in sorted(images.glob("*/*_leftImg8bit.png"))
    )
    if not names:
        raise BadData(f"{images} holds no CITY/*_leftImg8bit.png; the images are expected there")
    end = "gtBboxCityPersons.json"
    files = [each.replace("leftImg8bit.png", end) for each in names]
    check_files(listing, files)

    def read(number: int) -> Sample:
        boxes, _, labels = _persons(listing / files[number])
        kept = np.array([label == "pedestrian" for label in labels], np.bool_)
        content = content_of(images / names[number])
        said = ("pedestrian",) * int(kept.sum())
        return _sample(content, images / names[number], origin, boxes[kept], said)

    def target(number: int) -> Target:
        boxes, visible, labels = _persons(listing / files[number])
        other = np.array([label != "pedestrian" for label in labels], np.bool_)
        height = boxes[:, 3] - boxes[:, 1]
        ignored = {
            each: other | _beyond(height, HEIGHTS[each]) | _beyond(visible, VISIBLE[each])
            for each in HEIGHTS
        }
        return Target(boxes, np.zeros(len(boxes), np.int64), ignored)

    return Part(origin, "detection", ("pedestrian",), names, read, target=target)


def _persons(path: Path) -> tuple[Boxes, Float[NDArray[np.float64], " n"], tuple[str, ...]]:
    """Boxes, the visible share of each, and what it is."""
    needed = "objects with bbox, bboxVis and label"
    try:
        held: Iterable[Any] = from_json(path, needed)["objects"]
        found = [(each["label"], each["bbox"], each["bboxVis"]) for each in held]
        rows, seen = (
            np.array([each[i] for each in found], np.float64).reshape(-1, 4) for i in (1, 2)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error, needed) from error
    visible = seen[:, 2:].prod(1) / np.maximum(rows[:, 2:].prod(1), 1)
    return _corners(rows), visible, tuple(str(label) for label, _, _ in found)


def _beyond(
    values: Float[NDArray[np.float64], " n"], ends: tuple[float, float]
) -> Bool[NDArray[np.bool_], " n"]:
    return (values < ends[0]) | (values > ends[1])
