"""Sources as they are named on the command line."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from roadworthy.core.data import Dataset, load_data
from roadworthy.errors import BadInput
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.captions import Captioned, hold_captions
from roadworthy.learn.holding import classes_of, hold
from roadworthy.learn.readers import Origin, read_captions, read_spec
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import render, scenes
from roadworthy.learn.shards import ShardSet


def source(spec: str, task: Task, size: int, classes: Sequence[str] = ()) -> Source:
    """The samples of a spec, held in memory for a task.

    ====================  =========================================================================
    ``scenes:FROM-TO``    rendered scenes of these numbers, the last one not among them
    ``shards:ADDRESS``    what `write_shards` wrote
    ``captions:FILE@DIR`` rows ``image,caption`` and the folder of the images
    a data spec           imagefolder:, npz:, yolo:, coco:, voc:, masks:, depth:, builtin:
    ====================  =========================================================================
    """
    return hold(samples(spec, size), task, size, classes)


def captioned(spec: str, size: int) -> Captioned:
    """The samples of a spec, as of `source`, held in memory with their captions."""
    return hold_captions(samples(spec, size), size)


def samples(spec: str, size: int) -> Iterable[Sample]:
    """The samples of a spec; rendered ones have `size` pixels a side."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "scenes":
            return scenes(number_range(rest), size)
        case "shards":
            return ShardSet(rest)
        case "captions":
            listing, _, images = rest.partition("@")
            return read_captions(Path(listing), Path(images), Origin(Path(listing).parent.name))
        case _:
            return read_spec(spec, Origin(spec))


def numbered(spec: str, size: int, numbers: Iterable[int]) -> Iterator[Sample]:
    """The samples of a spec that have these numbers, which rise; no other image is read."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "scenes":
            return (render(number_range(rest)[each], size) for each in numbers)
        case "shards":
            held = ShardSet(rest)
            return (held[each] for each in numbers)
        case "captions":
            wanted = frozenset(numbers)
            return (each for i, each in enumerate(samples(spec, size)) if i in wanted)
        case _:
            return read_spec(spec, Origin(spec), numbers=numbers)


def classes_in(spec: str) -> tuple[str, ...]:
    """Names of a data spec's classes in the order of its ids; () of what has names alone.

    A model that is to be judged by the spec answers in this order.
    """
    if spec.partition(":")[0] in ("scenes", "shards", "captions"):
        return ()
    return load_data(spec).classes


def classes_with(spec: str, held: Iterable[Sample], task: Task) -> tuple[str, ...]:
    """Classes of a data spec in the order of its ids, and behind them what else occurs in `held`.

    Raises:
        BadData: a sample that is to have a class and has none.
    """
    return tuple(dict.fromkeys([*classes_in(spec), *classes_of(held, task)]))


def names_of(spec: str) -> tuple[str, ...]:
    """Names of a spec's samples, the same wherever its files lie: what a share is drawn by.

    >>> names_of("scenes:7-9")
    ('scene-7', 'scene-8')
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "scenes":
            return tuple(f"scene-{i}" for i in number_range(rest))
        case "shards" | "captions":
            return tuple(map(str, range(count(spec))))
        case _:
            return keys(load_data(spec))


def keys(data: Dataset) -> tuple[str, ...]:
    """Names of the images of a data set, the same on every machine."""
    return tuple(map(data.source.key, data.indices))


def count(spec: str) -> int:
    """How many samples a spec has."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "scenes":
            return len(number_range(rest))
        case "shards":
            return len(ShardSet(rest))
        case "captions":
            return sum(1 for _ in samples(spec, 1))
        case _:
            return len(load_data(spec))


def number_range(text: str) -> range:
    """From one number to before another.

    >>> number_range("10-20")
    range(10, 20)
    """
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise BadInput(f"numbers {text!r} given; FROM-TO is needed, e.g. 0-1000")
    return range(int(first), int(last))
