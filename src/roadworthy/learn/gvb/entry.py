"""A data set of the benchmark: what is known of it, whether it is there, and how it is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadworthy.errors import BadData
from roadworthy.learn.batches import Task
from roadworthy.learn.gvb.measures import Measure
from roadworthy.learn.gvb.part import Half, Part, few
from roadworthy.learn.gvb.subsets import unlike
from roadworthy.learn.readers import Origin

Load = Callable[[Path, Half, Origin], Part]


@dataclass(frozen=True)
class Torchvision:
    """One of torchvision's classes downloads it.

    Args:
        name: of the class in ``torchvision.datasets``.
        splits: arguments of the class for each part that is needed.
        below: the folder below the root that the class is given.
    """

    name: str
    splits: tuple[Mapping[str, Any], ...]
    below: str = "."


@dataclass(frozen=True)
class ByHand:
    """Somebody must ask for it, agree to terms or place files; `steps` says how."""

    steps: str


@dataclass(frozen=True)
class Entry:
    """A data set of the benchmark.

    Args:
        name: as it is asked for.
        classes: how many there are; 0 of depth.
        sizes: training and test images of the official release.
        licence: its terms, in a few words.
        folder: where its files go, below the root.
        needs: what must be in that folder, "or" between names one of which will do.
        load: a part out of the folder.
        fetch: how to come by it.
    """

    name: str
    title: str
    task: Task
    metric: Measure
    classes: int
    sizes: tuple[int, int]
    licence: str
    home: str
    folder: str
    needs: tuple[str, ...]
    load: Load
    fetch: Torchvision | ByHand

    def lacking(self, root: Path) -> list[str]:
        """What must be in its folder below `root` and is not."""
        folder = root / self.folder
        return [e for e in self.needs if not any((folder / n).exists() for n in e.split(" or "))]

    def there(self, root: Path) -> bool:
        """Whether its files lie below `root`."""
        folder = root / self.folder
        return not self.lacking(root) and folder.is_dir() and any(folder.iterdir())

    def open(self, root: Path, half: Half) -> Part:
        """Its training or test images; none of them is read yet.

        Raises:
            BadData: another layout than the official one, other classes, a class without training
                images; says what was expected and what was found.
        """
        folder = root / self.folder
        lacking = self.lacking(root)
        if lacking:
            raise BadData(
                f"{self.title}: {', '.join(lacking)} expected in {folder}, {_content(folder)} found"
            )
        part = self.load(folder, half, Origin(self.name, self.licence, half))
        if len(part.classes) != self.classes:
            raise BadData(
                f"{self.title} in {folder}: {self.classes} classes expected, "
                f"{few(part.classes)} found"
            )
        if part.empty and half == "train":
            raise BadData(
                f"{self.title} in {folder}: no training image of classes {few(part.empty)}"
            )
        said = f"no image of classes {few(part.empty)}" if part.empty else ""
        official = self.sizes[half == "test"]
        other = f"{len(part)} images, {official} officially" if len(part) != official else ""
        return part.tell(said).tell(other or unlike(part))


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return (
        few(sorted(each.name for each in folder.iterdir())) if any(folder.iterdir()) else "nothing"
    )
