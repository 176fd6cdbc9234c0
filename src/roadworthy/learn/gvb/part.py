"""A part of a data set: what images there are, and each of them only when it is asked for."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.sources import SUFFIXES, png, reason
from roadworthy.errors import BadData
from roadworthy.learn.batches import Task
from roadworthy.learn.readers import Origin, content_of
from roadworthy.learn.sample import Sample

Half = Literal["train", "test"]
Row = tuple[str, int]
"""An image below the data set's folder, and the number of its class."""
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Target:
    """The boxes that judge a detector on one image.

    Args:
        boxes: x1 y1 x2 y2 in pixels.
        classes: number of the class of each.
        ignored: by the name of a setting, the boxes that need not be found in it.
        crowds: boxes that stand for many objects: an answer that mostly lies in one does not count;
            None where there are none.
    """

    boxes: Float[NDArray[np.float64], "n 4"]
    classes: Int[NDArray[np.int64], " n"]
    ignored: Mapping[str, Bool[NDArray[np.bool_], " n"]]
    crowds: Bool[NDArray[np.bool_], " n"] | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """The training or the test images of a data set.

    Args:
        origin: name of the data set, its licence, train or test.
        classes: their names, in the order of their numbers; () of depth.
        names: of the images, the same on every machine, none of them twice.
        read: sample by number.
        labels: number of the class of each image; () where images have none as a whole.
        target: what judges boxes, by number.
        told: what is odd about it, a line each.
        sha256: of what is in the files, where it is known without reading them.
    """

    origin: Origin
    task: Task
    classes: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[int], Sample]
    labels: tuple[int, ...] = ()
    target: Callable[[int], Target] | None = None
    told: tuple[str, ...] = ()
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        """Sample `number`, read now."""
        return self.read(number)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    def some(self, numbers: Sequence[int]) -> "Part":
        """The images of these numbers, in their order."""
        held, target = tuple(numbers), self.target
        return replace(
            self,
            names=tuple(self.names[i] for i in held),
            read=lambda i: self.read(held[i]),
            labels=tuple(self.labels[i] for i in held) if self.labels else (),
            target=None if target is None else lambda i: target(held[i]),
        )

    def tell(self, line: str) -> "Part":
        """The same with one more odd thing told, where the line is not empty."""
        return replace(self, told=(*self.told, line)) if line else self

    @property
    def empty(self) -> tuple[str, ...]:
        """Classes that no image is of, where images are of classes."""
        there = set(self.labels)
        return tuple(name for i, name in enumerate(self.classes) if self.labels and i not in there)


def pictures(
    folder: Path,
    rows: Iterable[Row],
    classes: Sequence[str],
    origin: Origin,
    own: bool = False,
    content: Callable[[Path], bytes] | None = None,
) -> Part:
    """Image files of classes.

    Args:
        folder: that the names of `rows` are below.
        own: no other images lie beside these, so that one that has no row is told.
        content: an image file out of a file of another kind.

    Raises:
        BadData: files that are not there, an image named twice, a class that is not known.
    """
    held = list(rows)
    names = tuple(name for name, _ in held)
    labels = tuple(label for _, label in held)
    check_labels(labels, classes, folder)
    extra = check_files(folder, names)

    def read(number: int) -> Sample:
        path, said = folder / names[number], (classes[labels[number]],)
        image = (content or content_of)(path)
        return Sample(image, str(path), origin.source, origin.licence, origin.split, labels=said)

    part = Part(origin, "classification", tuple(classes), names, read, labels)
    return part.tell(f"{few(extra)} without a class" if own and extra else "")


def stored(
    images: Callable[[int], UInt8[NDArray[np.uint8], "h w *c"]],
    labels: Iterable[Any],
    classes: Sequence[str],
    origin: Origin,
    where: Path,
) -> Part:
    """Images that lie as pixels in one file, each with the number of a class; a sample's file is a
    PNG.
    """
    held = tuple(map(int, labels))
    check_labels(held, classes, where)
    names = tuple(f"{origin.split}/{i}" for i in range(len(held)))

    def read(number: int) -> Sample:
        name = f"{where}, image {number}"
        content = png(Image.fromarray(np.ascontiguousarray(images(number))))
        said = (classes[held[number]],)
        return Sample(content, name, origin.source, origin.licence, origin.split, labels=said)

    return Part(origin, "classification", tuple(classes), names, read, held)


def check_labels(labels: Sequence[int], classes: Sequence[str], where: Path) -> None:
    """BadData where there is no image, or one of a class that has no name."""
    wrong = [label for label in set(labels) if not 0 <= label < len(classes)]
    if wrong:
        raise BadData(
            f"{where} has images of class number {min(wrong)}; 0 to {len(classes) - 1} have a name"
        )
    if not labels:
        raise BadData(f"{where} has no images of a class; one or more are needed")


def check_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Images of the same folders that are not among `names`.

    Raises:
        BadData: one of `names` is not there, or is named twice.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadData(f"{folder}: {few(twice)} listed twice; once is needed")
    places = sorted({str(PurePosixPath(name).parent) for name in names})
    there = {str(PurePosixPath(place) / name) for place in places for name in _in(folder / place)}
    absent = [name for name in names if name not in there]
    if absent:
        raise BadData(
            f"{folder}: {few(absent)} listed and not there; {len(names)} images are expected"
        )
    return sorted(each for each in there - set(names) if Path(each).suffix.lower() in SUFFIXES)


def _in(folder: Path) -> list[str]:
    try:
        return [each.name for each in os.scandir(folder) if not each.is_dir()]
    except OSError:
        return []


def few(names: Sequence[str]) -> str:
    """How many there are, and the first of them.

    >>> few(["a", "b", "c", "d"])
    '4 (a, b, c ...)'
    """
    more = " ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def number_of(numbers: Mapping[str, int], name: str, where: Path) -> int:
    """The number of a class by its name.

    Raises:
        BadData: there is no such class; names file and class.
    """
    if name not in numbers:
        raise BadData(f"{where} names class {name!r}; {few(list(numbers))} are expected")
    return numbers[name]


def numbered(classes: Iterable[str]) -> dict[str, int]:
    """Numbers of classes.

    >>> numbered(["cat", "dog"])
    {'cat': 0, 'dog': 1}
    """
    return {name: number for number, name in enumerate(classes)}


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` but hidden ones, sorted; BadData where there is none."""
    there = sorted(each.name for each in folder.glob("*/")) if folder.is_dir() else []
    found = [name for name in there if not name.startswith(".")]
    if not found:
        raise BadData(f"{folder} holds no folder; one for each class is expected")
    return found


def foldered(folder: Path, classes: Sequence[str], suffixes: Sequence[str]) -> Iterator[Row]:
    """Images of a folder for each class, sorted by name.

    Raises:
        BadData: a folder that is none of the classes.
    """
    numbers = numbered(classes)
    for name in subfolders(folder):
        label = number_of(numbers, name, folder)
        found = sorted(_in(folder / name))
        yield from ((f"{name}/{each}", label) for each in found if each.endswith(tuple(suffixes)))


def damaged(path: Path, error: Exception | str, needed: str) -> BadData:
    """What to raise where a listing cannot be used."""
    said = error if isinstance(error, str) else reason(error)
    return BadData(f"{path} is missing or damaged: {said}; {needed} is expected")


def array(values: Any) -> NDArray[Any]:
    """At least one axis, whatever was squeezed."""
    return np.atleast_1d(np.asarray(values))
