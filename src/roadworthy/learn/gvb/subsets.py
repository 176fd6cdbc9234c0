"""Which tenth of the images: lists that anyone draws again by the seed, and can check by hashes.

Images are ordered by the hash of seed and name, and the first of each class are taken. So a list
depends on no library's random numbers nor on the order in which files were found, and for one seed
a smaller share is contained in a larger one.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roadworthy.core.runs import write_atomically
from roadworthy.core.sources import reason
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.gvb.part import Part, few

LISTS = Path(__file__).parent / "lists"
"""Those that came with the package."""


def stratified(
    names: Sequence[str], labels: Sequence[int], fraction: float, seed: int
) -> list[int]:
    """Numbers of a share of the images, the same share of each class, rising.

    Args:
        names: of the images, none twice; what is drawn depends on nothing else of them.
        labels: a class for each, or () where images have none.
        fraction: above 0, at most 1; of n images of a class ``n * fraction`` are taken, rounded.

    Raises:
        BadInput: a share that is not allowed, or that leaves a class without an image.

    >>> stratified(["a", "b", "c", "d"], [0, 0, 1, 1], 0.5, seed=0)
    [0, 3]
    """
    if not 0 < fraction <= 1:
        raise BadInput(f"fraction {fraction} given; above 0 and at most 1 is allowed")
    groups = by_class(labels or [0] * len(names))
    counts = {label: round(fraction * len(held)) for label, held in groups.items()}
    if not all(counts.values()):
        least = min(map(len, groups.values()))
        lost = [str(label) for label, count in counts.items() if not count]
        raise BadInput(
            f"fraction {fraction} given, which leaves class numbers without an image: {few(lost)}; "
            f"a class has {least}, so {math.floor(5000 / least + 1) / 10000} or more is needed"
        )
    drawn = (first(names, held, counts[label], seed) for label, held in groups.items())
    return sorted(number for each in drawn for number in each)


def by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """Numbers of the images of each class, classes rising."""
    found: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for number, label in enumerate(labels):
        found[label].append(number)
    return found


def first(names: Sequence[str], numbers: Sequence[int], count: int, seed: int) -> list[int]:
    """The `count` of `numbers` that come first by the hash of seed and name."""
    return sorted(numbers, key=lambda i: _sha256(f"{seed}\n{names[i]}"))[:count]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Subset:
    """Images that were drawn from a part of a data set.

    Args:
        dataset: its name.
        half: train or test.
        of: how many images the part has.
        whole: hash of all of its names and classes, sorted.
        images: names of those that were drawn, sorted, and the hash of them and their classes.
    """

    dataset: str
    half: str
    fraction: float
    seed: int
    of: int
    whole: str
    images: tuple[str, ...]
    sha256: str


def listed(part: Part) -> str:
    """Hash of the names and classes of all images, whatever their order."""
    labels = part.labels or ("",) * len(part)
    rows = sorted(
        f"{name}\t{part.classes[label] if isinstance(label, int) else label}"
        for name, label in zip(part.names, labels, strict=True)
    )
    return _sha256("\n".join(rows))


def draw(part: Part, fraction: float, seed: int) -> Subset:
    """A seeded share of a part; fails as `stratified` does."""
    drawn = part.some(stratified(part.names, part.labels, fraction, seed))
    return Subset(
        dataset=part.origin.source,
        half=part.origin.split,
        fraction=fraction,
        seed=seed,
        of=len(part),
        whole=listed(part),
        images=tuple(sorted(drawn.names)),
        sha256=listed(drawn),
    )


def write_subset(subset: Subset, path: Path) -> None:
    """As JSON, a line for each image."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(asdict(subset), indent=0) + "\n", encoding="utf-8")


def read_subset(path: Path) -> Subset:
    """What `write_subset` wrote.

    Raises:
        BadData: it is not there, or is none.
    """
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        images = tuple(map(str, held.pop("images")))
        return Subset(images=images, **held)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"list {path} is missing or damaged: {reason(error)}") from error


@cache
def shipped(dataset: str) -> Subset | None:
    """The list of seed 0 and a tenth of a training part that came with the package, if one did.

    Its `whole` stands for the lists of all seeds and shares: they follow from names and classes.
    """
    path = LISTS / f"{dataset}.json"
    return read_subset(path) if path.is_file() else None


def unlike(part: Part) -> str:
    """What to tell of a training part that has as many images as the official release, and others:
    '' where it has the same, or no list of it is shipped.
    """
    known = shipped(part.origin.source) if part.origin.split == "train" else None
    if known is None or len(part) != known.of or listed(part) == known.whole:
        return ""
    return "names or classes of images are not those of the shipped list: rows will not compare"


def take(part: Part, subset: Subset) -> Part:
    """The images of a list.

    Raises:
        BadData: a list of another part, or of other files or classes than are there now.
    """
    own = part.origin.source, part.origin.split
    if own != (subset.dataset, subset.half):
        raise BadData(
            f"a list of {subset.dataset} {subset.half} given for {' '.join(own)}; one of it is "
            "needed"
        )
    numbers = {name: number for number, name in enumerate(part.names)}
    absent = [name for name in subset.images if name not in numbers]
    if absent:
        raise BadData(f"{' '.join(own)}: {few(absent)} of the list are not there")
    found = part.some(sorted(numbers[name] for name in subset.images))
    if listed(found) != subset.sha256 or listed(part) != subset.whole:
        raise BadData(
            f"{' '.join(own)} has other images or classes than when the list was drawn: {len(part)}"
            f" images, {subset.of} then; draw it again"
        )
    return found
