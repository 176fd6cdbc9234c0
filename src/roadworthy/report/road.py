"""From the record of a road test to its rows and classes; a missing field is never an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from roadworthy.report.tree import Tree
from roadworthy.requests import StageName

STAGES: tuple[str, ...] = get_args(StageName)
"""In the order in which an image or a text meets them; others that a record names follow."""
AS_BASE = "training system"
"""The class of options that make the very images of training."""


@dataclass(frozen=True)
class Loss:
    """Points lost and their 95 % interval; negative where something was won."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One option against the training system.

    Args:
        stage, option: what was changed.
        member_of: the option that stands for its class.
        loss: None where it was not measured.
        measurable: whether the interval leaves out zero.
        p: of the hypothesis that nothing changed.
        flips: share of answers that are others.
        distance: from the training system's images, in levels of 255.
        missing: what keeps it from running here.
    """

    stage: str
    option: str
    member_of: str
    loss: Loss | None = None
    measurable: bool = False
    p: float | None = None
    flips: float | None = None
    distance: float | None = None
    missing: str | None = None

    @property
    def kind(self) -> str:
        """``missing``, ``same``, ``unknown``, ``calm`` or ``felt``."""
        if self.missing is not None:
            return "missing"
        if self.member_of == AS_BASE:
            return "same"
        if self.loss is None:
            return "unknown"
        return "felt" if self.measurable else "calm"


@dataclass(frozen=True)
class Group:
    """Options that are one: the row of the one that stands for them, and all their names."""

    row: Row
    members: tuple[str, ...]


def read_loss(
    tree: Tree, value: str = "value", low: str = "low", high: str = "high"
) -> Loss | None:
    """A loss and its interval out of the fields of those names."""
    number = tree.number(value)
    return None if number is None else Loss(number, tree.number(low), tree.number(high))


def read_rows(tree: Tree) -> tuple[Row, ...]:
    """The rows of a record, those without an option left out."""
    return tuple(_row(row) for row in tree.rows("rows") if row.text("option"))


def _row(tree: Tree) -> Row:
    option = tree.text("option") or ""
    loss = read_loss(tree, "delta", "ci_low", "ci_high")
    return Row(
        stage=tree.text("stage") or "other",
        option=option,
        member_of=tree.text("class") or option,
        loss=loss,
        measurable=_measurable(tree.get("measurable").value, loss),
        p=tree.number("p"),
        flips=tree.number("flip_rate"),
        distance=tree.number("distance"),
        missing=tree.text("missing"),
    )


def _measurable(said: object, loss: Loss | None) -> bool:
    if isinstance(said, bool) or loss is None:
        return said is True
    low, high = loss.low, loss.high
    return low is not None and high is not None and (low > 0 or high < 0)


def stages_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The stages that occur, in order.

    >>> stages_of([Row("colour", "bgr", "bgr"), Row("decode", "opencv", "opencv")])
    ('decode', 'colour')
    """
    present = dict.fromkeys(row.stage for row in rows)
    return (*(s for s in STAGES if s in present), *(s for s in present if s not in STAGES))


def groups(rows: Sequence[Row], stage: str) -> tuple[Group, ...]:
    """The classes of a stage: worst first, then those without effect, then what cannot run.

    >>> pair = [Row("decode", "a", "a", Loss(1.0)), Row("decode", "b", "a", Loss(1.0))]
    >>> [group.members for group in groups(pair, "decode")]
    [('a', 'b')]
    """
    found: dict[tuple[str, bool], Group] = {}
    for row in rows:
        key = row.member_of, row.missing is not None
        if row.stage != stage:
            continue
        if key in found:
            found[key] = replace(found[key], members=(*found[key].members, row.option))
        else:
            found[key] = Group(row, (row.option,))
    order = ("felt", "calm", "unknown", "same", "missing")
    return tuple(sorted(found.values(), key=lambda g: (order.index(g.row.kind), -_lost(g.row))))


def different(rows: Sequence[Row]) -> tuple[Row, ...]:
    """One measured row for each class that is not the training system's."""
    heads = {(row.stage, row.member_of): row for row in reversed(rows) if row.kind in _MEASURED}
    return tuple(row for row in rows if heads.get((row.stage, row.member_of)) is row)


_MEASURED = ("felt", "calm")


def mean_and_worst(rows: Sequence[Row], stage: str) -> tuple[float, float] | None:
    """Mean and largest loss over the different classes of a stage; None where none was measured.

    >>> rows = [Row("resize", n, n, Loss(v)) for n, v in (("a", 1.0), ("b", 3.0))]
    >>> mean_and_worst(rows, "resize")
    (2.0, 3.0)
    """
    lost = [_lost(row) for row in different(rows) if row.stage == stage]
    return (sum(lost) / len(lost), max(lost)) if lost else None


def _lost(row: Row) -> float:
    return row.loss.value if row.loss else 0.0
