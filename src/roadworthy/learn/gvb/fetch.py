"""What the benchmark's data sets are, whether they are there, and how they come."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from roadworthy.core.sources import reason
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.gvb.entries import ENTRIES
from roadworthy.learn.gvb.entry import ByHand, Entry, Torchvision
from roadworthy.learn.gvb.published import published


def listing(root: Path) -> dict[str, Any]:
    """Everything that is known of each data set, and what of it lies below `root`."""
    return {"root": str(root), "datasets": [_row(each, root) for each in ENTRIES]}


def _row(known: Entry, root: Path) -> dict[str, Any]:
    lacking = known.lacking(root)
    train, test = known.sizes
    return {
        "name": known.name,
        "title": known.title,
        "task": known.task,
        "classes": known.classes,
        "train": train,
        "test": test,
        "metric": known.metric.name,
        "higher_is_better": known.metric.higher,
        "licence": known.licence,
        "home": known.home,
        "folder": known.folder,
        "there": known.there(root),
        "lacking": lacking,
        "download": isinstance(known.fetch, Torchvision),
        "by_hand": known.fetch.steps if isinstance(known.fetch, ByHand) else "",
        "published": published(known.name),
    }


def download(known: Entry, root: Path) -> dict[str, Any]:
    """Download and unpack a data set below `root`; what is there already is left alone.

    Raises:
        BadInput: a data set that must be placed by hand; says how.
        BadData: the download failed, or left another layout.
    """
    match known.fetch:
        case ByHand(steps):
            raise BadInput(
                f"{known.title} ({known.licence}) is not for this command to download: {steps}; "
                f"{known.home}; its files go to {root / known.folder}"
            )
        case Torchvision(name, splits, below):
            try:
                for split in splits:
                    _download(known, name, root / below, dict(split))
            except BadData:
                _tidy(root, Path(known.folder))
                raise
    lacking = known.lacking(root)
    if lacking:
        raise BadData(
            f"{known.title} was downloaded and {', '.join(lacking)} is not in {root / known.folder}"
        )
    said = {"name": known.name, "folder": str(root / known.folder)}
    return {**said, "licence": known.licence, "home": known.home}


def _download(known: Entry, name: str, root: Path, split: dict[str, Any]) -> None:
    import torchvision.datasets

    root.mkdir(parents=True, exist_ok=True)
    try:
        getattr(torchvision.datasets, name)(root, download=True, **split)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise BadData(
            f"{known.title} could not be downloaded: {reason(error)}; see {known.home}, and place "
            f"its files as {known.folder} below the root"
        ) from error


def _tidy(root: Path, folder: Path) -> None:
    """Remove folders below `root` that a download has left empty."""
    for each in (folder, *folder.parents[:-1]):
        with suppress(OSError):
            (root / each).rmdir()
