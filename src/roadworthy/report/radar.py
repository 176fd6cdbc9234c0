"""Geometry of the radar plot: an axis for each data set, a polygon for each backbone.

Positions are in units of the drawing, 600 wide and 384 high, whose centre is at 0, 0. An axis ends
at the best value that is shown on it; how far out another value lies is its share of that best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roadworthy.report import words
from roadworthy.report.bench import PUBLISHED, DataSet, Measured

RADIUS, ROOM = 150.0, 14.0
RINGS = (0.25, 0.5, 0.75, 1.0)
AXES = 3
"""Fewer than these are no polygon."""
MOST, MOST_PUBLISHED = 6, 3
"""Backbones that can be told apart in one drawing, and published ones beside them."""
NAMED, LETTERS = 12, 11
"""Axes that are named in the drawing, and letters of such a name; more are numbered."""


@dataclass(frozen=True)
class Axis:
    """A data set's: its end, and where its label stands."""

    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str
    label: str


@dataclass(frozen=True)
class Dot:
    """A value, with the words shown on hover."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True)
class Series:
    """A backbone: its line, broken where it has no value, and its dots; `kind` is its style."""

    name: str
    kind: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Radar:
    """What is drawn, with the number of backbones and published ones that are not."""

    axes: tuple[Axis, ...]
    rings: tuple[str, ...]
    series: tuple[Series, ...]
    left_out: int
    left_out_published: int
    numbered: bool


def radar(measured: Measured) -> Radar | None:
    """The drawing; None of fewer than three data sets."""
    count = len(measured.sets)
    if count < AXES:
        return None
    own, published = shown_of(measured)
    shares = [shares_of(each, {*own, *published}) for each in measured.sets]
    kinds = {name: f"own-{number}" for number, name in enumerate(own, 1)}
    kinds |= {name: f"told-{number}" for number, name in enumerate(published, 1)}
    labels = _labels(measured.sets)
    return Radar(
        axes=tuple(_axis(number, count, text) for number, text in enumerate(labels)),
        rings=tuple(_ring(count, share) for share in RINGS),
        series=tuple(_series(name, kind, measured.sets, shares) for name, kind in kinds.items()),
        left_out=len(measured.backbones) - len(own),
        left_out_published=len(measured.published) - len(published),
        numbered=labels[0] == "1",
    )


def shown_of(measured: Measured) -> tuple[list[str], list[str]]:
    """The backbones that are drawn, the best of them, and the published ones: best, middle, worst.

    What is best is told by the shares of the best value of each data set, added up.
    """
    shares = [shares_of(each, set(each.reached)) for each in measured.sets]

    def total(name: str) -> float:
        return sum(each.get(name, 0.0) for each in shares)

    ranked = sorted(measured.backbones, key=total, reverse=True)[:MOST]
    told = sorted(map(PUBLISHED.format, measured.published), key=total, reverse=True)
    if len(told) > MOST_PUBLISHED:
        told = [told[0], told[len(told) // 2], told[-1]]
    return [name for name in measured.backbones if name in ranked], told


def shares_of(one: DataSet, names: set[str]) -> dict[str, float]:
    """Of each of `names` that has a value, its share of the best: 1 of the best itself."""
    reached = {name: value for name, value in one.reached.items() if name in names}
    best = (max if one.higher else min)(reached.values(), default=0.0)
    return {name: share(value, best, one.higher) for name, value in reached.items()}


def share(value: float, best: float, higher: bool) -> float:
    """How much of the best a value is.

    >>> share(0.5, 0.8, True), share(4.0, 3.0, False), share(0.0, 0.0, False)
    (0.625, 0.75, 1.0)
    """
    part, whole = (value, best) if higher else (best, value)
    if value == best:
        return 1.0
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0


def place(number: int, count: int, distance: float) -> tuple[float, float]:
    """Where a point of an axis lies; the first axis points up, others follow clockwise.

    >>> place(0, 4, 10.0), place(1, 4, 10.0)
    ((0.0, -10.0), (10.0, -0.0))
    """
    angle = math.tau * number / count
    return round(distance * math.sin(angle), 2), -round(distance * math.cos(angle), 2)


def _axis(number: int, count: int, text: str) -> Axis:
    x, y = place(number, count, RADIUS)
    label_x, label_y = place(number, count, RADIUS + ROOM)
    side = round(math.sin(math.tau * number / count), 2)
    anchor = "middle" if abs(side) < 0.2 or text.isdigit() else "start" if side > 0 else "end"
    return Axis(x, y, label_x, round(label_y + 5, 2), anchor, text)


def _ring(count: int, share: float) -> str:
    corners = (place(number, count, RADIUS * share) for number in range(count))
    return " ".join(f"{x},{y}" for x, y in corners)


def _labels(sets: Sequence[DataSet]) -> list[str]:
    names = [words.elided(each.title if ":" in each.name else each.name, LETTERS) for each in sets]
    if len(names) <= NAMED and len(set(names)) == len(names):
        return names
    return [str(number) for number in range(1, len(names) + 1)]


def _series(
    name: str, kind: str, sets: Sequence[DataSet], shares: Sequence[Mapping[str, float]]
) -> Series:
    count = len(sets)
    places = [
        None if name not in each else place(number, count, RADIUS * each[name])
        for number, each in enumerate(shares)
    ]
    dots = (
        Dot(*at, _tip(name, one, each[name]))
        for at, one, each in zip(places, sets, shares, strict=True)
        if at is not None
    )
    return Series(name, kind, _path(places), tuple(dots))


def _path(places: Sequence[tuple[float, float] | None]) -> str:
    """A closed line, or one for each run of neighbours where some are missing."""
    known = [at for at in places if at is not None]
    if len(known) == len(places):
        return f"M{_joined(known)}Z"
    gap = places.index(None)
    runs: list[list[tuple[float, float]]] = [[]]
    for at in (*places[gap:], *places[:gap]):
        if at is None:
            runs.append([])
        else:
            runs[-1].append(at)
    return "".join(f"M{_joined(run)}" for run in runs if run)


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x} {y}" for x, y in places)


def _tip(name: str, one: DataSet, part: float) -> str:
    measured = one.result(name)
    interval = one.between(measured) if measured else ""
    value = f"{one.shown(one.reached[name])}{one.unit}" + (f" ({interval})" if interval else "")
    of = "the best" if part == 1 else f"{words.percent(part)} of the best"
    return f"{one.title}, {name}: {value}, {of}"
