"""Geometry of a waterfall: each row starts where the one before it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roadworthy.report.charts import Scale, Tick, label, nice_ticks


@dataclass(frozen=True)
class Step:
    """One row: a bar from `start` to `end`.

    Args:
        name, detail: what it is, and what is said of it below.
        shown: its number.
        start, end: in the unit of the axis.
        whisker: ends of an interval.
        alone: end of a second, thinner bar from zero.
        kind: class of the bar.
    """

    name: str
    shown: str
    start: float
    end: float
    whisker: tuple[float, float] | None = None
    alone: float | None = None
    detail: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Bar:
    """A length across the plot, in per cent."""

    left: float
    width: float


@dataclass(frozen=True)
class Line:
    """A step with its bars placed."""

    step: Step
    bar: Bar
    whisker: Bar | None
    alone: Bar | None


@dataclass(frozen=True)
class Cascade:
    """Lines over one axis; `zero` is where nothing is lost, per cent across."""

    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    zero: float


def cascade(steps: Sequence[Step]) -> Cascade | None:
    """Lines for `steps`, whose axis holds every bar and whisker; None without steps.

    >>> drawn = cascade([Step("a", "4", 0.0, 4.0), Step("b", "6", 4.0, 10.0)])
    >>> [(line.bar.left, line.bar.width) for line in drawn.lines]
    [(0.0, 40.0), (40.0, 60.0)]
    """
    if not steps:
        return None
    ends = [0.0, *(end for step in steps for end in _ends(step))]
    wanted = nice_ticks(min(ends), max(max(ends), min(ends) + 1e-6), 4)
    across = Scale(wanted[0], wanted[-1], 0.0, 100.0)
    lines = tuple(
        Line(
            step,
            _bar(across, step.start, step.end),
            None if step.whisker is None else _bar(across, *step.whisker),
            None if step.alone is None else _bar(across, 0.0, step.alone),
        )
        for step in steps
    )
    return Cascade(lines, tuple(Tick(across(tick), label(tick)) for tick in wanted), across(0.0))


def _ends(step: Step) -> list[float]:
    more = [] if step.alone is None else [step.alone]
    return [step.start, step.end, *(step.whisker or ()), *more]


def _bar(across: Scale, a: float, b: float) -> Bar:
    left, right = across(min(a, b)), across(max(a, b))
    return Bar(left, round(right - left, 2))
