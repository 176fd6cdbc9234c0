"""From the record of a benchmark to its facts; a missing field is never an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roadworthy.report.facts import UNITS
from roadworthy.report.tree import Tree

Key = tuple[str, str | None]
TASKS = ("classification", "detection", "segmentation", "depth")
"""In the order in which they are shown; others follow."""
PUBLISHED = "{} (published)"
"""How a published backbone is told from those that were measured."""


@dataclass(frozen=True)
class Result:
    """What a backbone reached on a data set, the mean over seeds and its 95 % interval.

    Args:
        relative: its error divided by that of the first backbone.
    """

    backbone: str
    mean: float
    low: float | None
    high: float | None
    seeds: int | None
    relative: float | None


@dataclass(frozen=True)
class DataSet:
    """A data set, and what each backbone reached on it.

    Args:
        higher: whether more is better.
        published: what others have said that they reached.
        images: how many were learned from and judged by, in words.
    """

    name: str
    title: str
    task: str
    metric: str
    higher: bool
    results: tuple[Result, ...]
    published: tuple[tuple[str, float], ...]
    images: str

    @property
    def unit(self) -> str:
        """`` m`` of metres, nothing of shares, which are shown in points."""
        return UNITS.get(self.metric.lower(), "")

    @property
    def points(self) -> float:
        """What a value is multiplied with to be shown."""
        return 1.0 if self.metric.lower() in UNITS else 100.0

    def shown(self, value: float | None) -> str:
        """A value in figures, without its unit."""
        if value is None:
            return "–"
        said = f"{value * 100:.1f}" if self.points > 1 else f"{value:#.3g}"
        return said.replace("-", "−")

    def between(self, one: Result) -> str:
        """The interval of a result in figures; empty where there is none."""
        if one.low is None or one.high is None:
            return ""
        joint = " to " if one.low < 0 else "–"
        return f"{self.shown(one.low)}{joint}{self.shown(one.high)}"

    @property
    def best(self) -> float | None:
        """The best value that was measured."""
        means = [each.mean for each in self.results]
        return (max if self.higher else min)(means, default=None)

    def result(self, backbone: str) -> Result | None:
        """That of a backbone."""
        return next((each for each in self.results if each.backbone == backbone), None)

    @property
    def reached(self) -> dict[str, float]:
        """The value of each backbone, measured or published."""
        told = {PUBLISHED.format(name): value for name, value in self.published}
        return {**told, **{each.backbone: each.mean for each in self.results}}


@dataclass(frozen=True)
class Measured:
    """All that a benchmark measured.

    Args:
        backbones: those that were compared; the first is what others are set against.
        relative: of each task, the mean relative error of each backbone.
    """

    sets: tuple[DataSet, ...]
    backbones: tuple[str, ...]
    relative: tuple[tuple[str, dict[str, float]], ...]

    @property
    def published(self) -> tuple[str, ...]:
        """The published backbones that are there to compare with."""
        return tuple(dict.fromkeys(name for each in self.sets for name, _ in each.published))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task types that occur, in order."""
        return in_order([each.task for each in self.sets])

    def of(self, task: str) -> tuple[DataSet, ...]:
        """The data sets of a task type."""
        return tuple(each for each in self.sets if each.task == task)

    def overall(self, backbone: str) -> float | None:
        """The mean over the task types of a backbone's relative error; None where one is missing.

        >>> types = (("depth", {"a": 1.0, "b": 0.5}), ("detection", {"a": 1.0, "b": 0.7}))
        >>> Measured((), ("a", "b"), types).overall("b")
        0.6
        """
        known = [row[backbone] for _, row in self.relative if backbone in row]
        whole = known and len(known) == len(self.relative)
        return sum(known) / len(known) if whole else None


def read_measured(tree: Tree) -> Measured:
    """The facts of a run.json read by `read_run`; rows without a number are left out."""
    rows = [row for row in tree.rows("table") if row.text("dataset") and row.text("backbone")]
    rows = [row for row in rows if row.number("mean") is not None]
    keys = dict.fromkeys(map(_key, rows))
    told = dict(tree.entries("published"))
    sets = [
        _data_set([row for row in rows if _key(row) == key], told.get(key[0], Tree(None)))
        for key in keys
    ]
    there = dict.fromkeys(row.text("backbone") or "" for row in rows)
    asked = [name for name in tree.texts("config.models") if name in there]
    order = in_order([each.task for each in sets])
    return Measured(
        tuple(sorted(sets, key=lambda each: order.index(each.task))),
        tuple(dict.fromkeys([*asked, *there])),
        _types(tree.rows("types")),
    )


def in_order(tasks: Sequence[str]) -> tuple[str, ...]:
    """Task types, each once.

    >>> in_order(["depth", "depth", "classification", "poses"])
    ('classification', 'depth', 'poses')
    """
    there = dict.fromkeys(tasks)
    return (*(t for t in TASKS if t in there), *(t for t in there if t not in TASKS))


def _key(row: Tree) -> Key:
    """Name and task: one spec may be learned from for several tasks."""
    return row.text("dataset") or "", row.text("task")


def _data_set(rows: Sequence[Tree], published: Tree) -> DataSet:
    first = rows[0]
    name = first.text("dataset") or ""
    told = ((backbone, each.number("")) for backbone, each in published.entries(""))
    return DataSet(
        name=name,
        title=first.text("title") or name,
        task=first.text("task") or "other",
        metric=first.text("metric") or "value",
        higher=first.get("higher").value is not False,
        results=tuple(map(_result, rows)),
        published=tuple((backbone, value) for backbone, value in told if value is not None),
        images=", ".join(
            f"{n:,} {what}"
            for key, what in (("trained_on", "to learn from"), ("tested_on", "to test on"))
            if (n := first.count(key)) is not None
        ),
    )


def _result(row: Tree) -> Result:
    return Result(
        backbone=row.text("backbone") or "",
        mean=row.number("mean") or 0.0,
        low=row.number("low"),
        high=row.number("high"),
        seeds=row.count("seeds"),
        relative=row.number("relative"),
    )


def _types(rows: Sequence[Tree]) -> tuple[tuple[str, dict[str, float]], ...]:
    order = in_order([task for row in rows if (task := row.text("task"))])
    known = [(row.text("task"), row.text("backbone"), row.number("relative")) for row in rows]
    return tuple(
        (
            task,
            {
                name: value
                for one, name, value in known
                if one == task and name and value is not None
            },
        )
        for task in order
    )


def told(tree: Tree) -> tuple[tuple[str, str], ...]:
    """What was odd of each data set: its title and a line, said once.

    A line that not all backbones met names those that did.
    """
    met: dict[tuple[Key, str], dict[str, None]] = {}
    ran: dict[Key, set[str]] = {}
    titles: dict[Key, str] = {}
    for row in tree.rows("rows"):
        key, backbone = _key(row), row.text("backbone") or "–"
        titles[key] = row.first("title", "dataset") or "–"
        ran.setdefault(key, set()).add(backbone)
        for line in row.texts("told"):
            met.setdefault((key, line), {})[backbone] = None
    return tuple(
        (titles[key], line if len(names) == len(ran[key]) else f"{line} ({', '.join(names)})")
        for (key, line), names in met.items()
    )
