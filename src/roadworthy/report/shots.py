"""The pictures of a road test, as pictures.json beside run.json holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from roadworthy.report.road import Row
from roadworthy.report.tree import Tree, read_json


@dataclass(frozen=True)
class Change:
    """What one class of options changes in a photo."""

    stage: str
    members: tuple[str, ...]
    picture: str
    note: str


@dataclass(frozen=True)
class Shot:
    """A crop of a photo as the model was trained on it, and the changes of each stage."""

    file: str
    picture: str
    stages: tuple[tuple[str, tuple[Change, ...]], ...]


def read_pictures(directory: Path) -> Tree:
    """pictures.json of a directory, or a Tree of None."""
    path = directory / "pictures.json"
    return Tree(read_json(path) if path.is_file() else None)


def shots(pictures: Tree, rows: Sequence[Row]) -> tuple[Shot, ...]:
    """The photos that changes are shown in, each with its changes in the order of the record."""
    found: list[Shot] = []
    for number, shot in enumerate(pictures.rows("shots")):
        changes = [
            _change(row, rows)
            for row in pictures.rows("differences")
            if row.count("shot") == number and _is_picture(row)
        ]
        if changes and _is_picture(shot):
            stages = dict.fromkeys(change.stage for change in changes)
            by_stage = ((s, tuple(c for c in changes if c.stage == s)) for s in stages)
            name = PurePath(shot.text("file") or "").name
            found.append(Shot(name, shot.text("picture") or "", tuple(by_stage)))
    return tuple(found)


def _is_picture(row: Tree) -> bool:
    return (row.text("picture") or "").startswith("data:image/")


def _change(row: Tree, rows: Sequence[Row]) -> Change:
    stage, option = row.text("stage") or "", row.text("option") or ""
    same = tuple(r.option for r in rows if (r.stage, r.member_of) == (stage, option))
    return Change(stage, same or (option,), row.text("picture") or "", _note(row))


def _note(row: Tree) -> str:
    factor, levels = row.count("factor"), row.number("levels")
    if factor is None:
        return "of another shape: as served"
    return f"×{factor}" + ("" if levels is None else f", {_levels(levels)} levels")


def _levels(value: float) -> str:
    return "under 0.01" if value < 0.01 else f"{value:.2f}"
