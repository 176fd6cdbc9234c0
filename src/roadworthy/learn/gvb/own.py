"""A user's own data as an entry of the benchmark."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np

from roadworthy.core.boxes_data import Rows
from roadworthy.core.data import Dataset, load_data
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.batches import Task
from roadworthy.learn.gvb.box_measures import VocAP
from roadworthy.learn.gvb.detection import ALL
from roadworthy.learn.gvb.entry import ByHand, Entry
from roadworthy.learn.gvb.measures import MeanIoU, Measure, Rmse, Top1
from roadworthy.learn.gvb.part import Half, Part, Target, few, number_of, numbered
from roadworthy.learn.holding import by_names, check_annotated, class_of, classes_of
from roadworthy.learn.overview import short
from roadworthy.learn.readers import Origin, sample_of
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import render
from roadworthy.learn.shards import ShardSet
from roadworthy.learn.sources import keys, names_of, number_range


class _Read(NamedTuple):
    """A spec, opened."""

    names: tuple[str, ...]
    read: Callable[[int], Sample]
    classes: tuple[str, ...] | None
    """Where they are known without a look at every sample."""
    labels: tuple[str, ...] | None
    boxes: Callable[[int], Rows] | None = None
    """Where difficult objects or crowds are known, too: x1 y1 x2 y2 crowd class."""
    crowded: bool = False
    """Whether what is marked is a crowd, not a difficult object."""
    sha256: str = ""
    """Of the contents, where it is known without reading them."""


_LICENCE = "the user's"


def own(task: Task, train: str, test: str, size: int = 64) -> Entry:
    """An entry of a spec to learn from and one to be judged by, as `sources.source` takes them.

    Its metric is top-1 of classes, AP50 by VOC's rule of 2007 with COCO's crowds, mIoU, or RMSE
    without caps. The classes are those of the training images.

    Args:
        size: pixels a side of rendered scenes.

    Raises:
        BadInput: a spec of captions.
        BadData: what cannot be read, or says nothing for the task.
    """
    learned = _part(train, task, size, Origin(train, _LICENCE, "train"), None)
    judging = _part(test, task, size, Origin(test, _LICENCE, "test"), learned.classes)
    parts: dict[str, Part] = {"train": learned, "test": judging}

    def load(folder: Path, half: Half, origin: Origin) -> Part:
        return parts[half]

    sizes, classes = (len(learned), len(judging)), len(learned.classes)
    name, title = (", test ".join(dict.fromkeys(map(say, (train, test)))) for say in (str, short))
    return Entry(
        name, title, task, measure_of(task), classes, sizes, _LICENCE, "", ".",
        (), load, ByHand("it is yours"),
    )  # fmt: skip


def measure_of(task: Task) -> Measure:
    """The metric of a task."""
    match task:
        case "classification":
            return Top1()
        case "detection":
            return VocAP()
        case "segmentation":
            return MeanIoU()
        case "depth":
            return Rmse()
        case _:
            assert_never(task)


def _part(
    spec: str, task: Task, size: int, origin: Origin, classes: tuple[str, ...] | None
) -> Part:
    held = _opened(spec, task, size, origin)
    if not held.names:
        raise BadData(f"{spec} has no images; one or more are needed")
    check_annotated(held.read(0), task)
    known = classes
    if known is None:
        known = held.classes or classes_of(map(held.read, range(len(held.names))), task)
    if task == "detection" and not known:
        raise BadData(f"{spec} has no object to learn from; boxes of one class or more are needed")
    numbers, where = numbered(known), Path(spec)
    said: Iterable[str] = ()
    if task == "classification":
        said = held.labels or [class_of(held.read(i)) for i in range(len(held.names))]
    labels = tuple(number_of(numbers, each, where) for each in said)
    target = partial(_target, held, numbers, where) if task == "detection" else None
    read = partial(_renumbered, held.read, known) if task == "segmentation" else held.read
    return Part(origin, task, known, held.names, read, labels, target, sha256=held.sha256)


def _renumbered(read: Callable[[int], Sample], classes: tuple[str, ...], number: int) -> Sample:
    """A sample whose mask has the numbers of `classes`, which judge."""
    sample = read(number)
    if sample.mask is None or sample.mask_labels in ((), classes):
        return sample
    return replace(sample, mask=by_names(sample.mask, sample, classes), mask_labels=classes)


def _opened(spec: str, task: Task, size: int, origin: Origin) -> _Read:
    kind, _, rest = spec.partition(":")
    match kind:
        case "scenes":
            span = number_range(rest)
            return _Read(names_of(spec), lambda i: render(span[i], size), None, None)
        case "shards":
            shards = ShardSet(rest)
            return _Read(names_of(spec), shards.__getitem__, None, None, sha256=shards.sha256)
        case "captions":
            raise BadInput(f"{spec} given, which has captions; a data spec of {task} is needed")
        case _:
            data = load_data(spec)
            names = keys(data)
            ids = [data.label(i) for i in range(len(data))]
            labels = tuple(
                data.classes[each] if data.classes else str(each)
                for each in ids
                if each is not None
            )
            if task == "classification" and len(labels) < len(names):
                lost = [k.partition(" ")[0] for k, i in zip(names, ids, strict=True) if i is None]
                raise BadData(f"{spec}: {few(lost)} without a class; one for each image is needed")
            read = partial(sample_of, data, origin=origin)
            boxes = partial(_truth, data) if task == "detection" else None
            known = data.classes or None
            return _Read(names, read, known, labels or None, boxes, crowded=kind == "coco")


def _truth(data: Dataset, number: int) -> Rows:
    rows = data.truth(number)
    assert rows is not None, "checked before"
    return rows[(rows[:, 2:4] > rows[:, :2]).all(1)]


def _target(held: _Read, numbers: dict[str, int], where: Path, number: int) -> Target:
    if held.boxes is None:
        sample = held.read(number)
        boxes = np.zeros((0, 4)) if sample.boxes is None else np.asarray(sample.boxes, np.float64)
        labels, crowds = sample.box_labels, np.zeros(len(boxes), np.bool_)
    else:
        rows = held.boxes(number)
        boxes, crowds = rows[:, :4], rows[:, 4] > 0
        names = held.classes or ()
        labels = tuple(names[int(each)] for each in rows[:, 5])
    ids = np.array([number_of(numbers, each, where) for each in labels], np.int64)
    return Target(boxes, ids, {ALL: crowds}, crowds if held.crowded else None)
