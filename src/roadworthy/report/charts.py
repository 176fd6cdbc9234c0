"""Geometry of the charts: data in, positions out. The template draws them as inline SVG.

Across, positions are per cent of the plot, down, they are pixels: a chart is as wide as its column
and its text keeps its size, on a phone as on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

HEIGHT, FLOOR, CEILING = 220.0, 190.0, 8.0
MIRROR_HEIGHT, MIDDLE, REACH = 180.0, 78.0, 70.0


@dataclass(frozen=True)
class Tick:
    """A grid line: position (per cent across or pixels down) and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """Something drawn at one x, between two heights, with the words shown on hover."""

    x: float
    top: float
    bottom: float
    tip: str
    kind: str = ""
    width: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Marks over an axis."""

    height: float
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Map of [low, high] to [start, end], linear or logarithmic; what lies outside is clipped.

    >>> Scale(0.0, 50.0, 0.0, 100.0)(25.0)
    50.0
    >>> Scale(1.0, 100.0, 200.0, 0.0, log=True)(10.0)
    100.0
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        low, high, at = (self._place(v) for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + (self.end - self.start) * min(max(share, 0.0), 1.0), 2)

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-30)) if self.log else value


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover [low, high].

    >>> nice_ticks(0.0, 43.0)
    [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    span = max(high - low, 1e-9 * max(abs(high), 1.0), 1e-12)
    rough = span / wanted
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten that cover [low, high], at most seven.

    >>> decades(0.02, 3.0)
    [0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 6))
    powers = list(range(first, last + step, step))
    return [10.0**power for power in (powers if len(powers) > 1 else [first, first + 1])]


def stems(values: Sequence[float], tips: Sequence[str], kinds: Sequence[str], unit: str) -> Chart:
    """One stem per layer, in network order, from zero."""
    ticks = nice_ticks(min(0.0, *values), max(values))
    down = Scale(ticks[0], ticks[-1], FLOOR, CEILING)
    marks = tuple(
        Mark(_slot(i, len(values)), down(value), down(0.0), tip, kind)
        for i, (value, tip, kind) in enumerate(zip(values, tips, kinds, strict=True))
    )
    levels = tuple(Tick(down(t), f"{label(t)}{unit}") for t in ticks)
    return Chart(HEIGHT, marks, _order_ticks(len(values)), levels)


def dumbbells(pairs: Sequence[tuple[float, float]], tips: Sequence[str]) -> Chart:
    """First and last value per unit, joined, on a logarithmic axis."""
    floor = 1e-12
    flat = [max(value, floor) for pair in pairs for value in pair]
    powers = decades(min(flat), max(flat))
    down = Scale(powers[0], powers[-1], FLOOR, CEILING, log=True)
    marks = tuple(
        Mark(_slot(i, len(pairs)), down(first), down(last), tip, "up" if last > first else "")
        for i, ((first, last), tip) in enumerate(zip(pairs, tips, strict=True))
    )
    ticks = tuple(Tick(down(power), _power(power)) for power in powers)
    return Chart(HEIGHT, marks, _order_ticks(len(pairs)), ticks)


def strips(columns: Sequence[Sequence[tuple[float, str, str]]]) -> Chart:
    """A column of dots (value, tip and kind of each) per norm, on a logarithmic axis."""
    values = [max(value, 1e-12) for column in columns for value, _, _ in column]
    powers = decades(min(values), max(values))
    down = Scale(powers[0], powers[-1], FLOOR, CEILING, log=True)
    marks = tuple(
        Mark(_slot(i, len(columns)), down(value), down(value), tip, kind)
        for i, column in enumerate(columns)
        for value, tip, kind in column
    )
    ticks = tuple(Tick(down(power), _power(power)) for power in powers)
    return Chart(HEIGHT, marks, _order_ticks(len(columns)), ticks)


def curve(
    dots: Sequence[tuple[float, float]], line: Sequence[tuple[float, float]], unit: str = "step"
) -> Chart:
    """Values over steps: a dot for each, and a line, of kind ``line``, through others."""
    values = [value for _, value in (*dots, *line)]
    ticks = nice_ticks(min(0.0, *values), max(values), 4)
    across = Scale(0.0, max(at for at, _ in (*dots, *line)), 0.0, 100.0)
    down = Scale(ticks[0], ticks[-1], FLOOR, CEILING)
    marks = tuple(
        Mark(across(at), down(value), down(value), f"{unit} {at:.0f}: {value:.4g}", kind)
        for kind, points in (("", dots), ("line", line))
        for at, value in points
    )
    steps = [tick for tick in nice_ticks(0.0, across.high, 4) if tick <= across.high]
    levels = tuple(Tick(down(tick), label(tick)) for tick in ticks)
    return Chart(HEIGHT, marks, tuple(Tick(across(tick), label(tick)) for tick in steps), levels)


def scatter(dots: Sequence[tuple[float, float, str, str]], limit: float, unit: str) -> Chart:
    """Dots of (x, y, tip, kind), and a mark of kind ``limit`` at the most that x may be."""
    levels = nice_ticks(min(y for _, y, _, _ in dots), max(y for _, y, _, _ in dots), 4)
    places = nice_ticks(min(x for x, _, _, _ in dots), max(limit, *(x for x, _, _, _ in dots)), 4)
    across = Scale(places[0], places[-1], 0.0, 100.0)
    down = Scale(levels[0], levels[-1], FLOOR, CEILING)
    marks = (Mark(across(x), down(y), down(y), tip, kind) for x, y, tip, kind in dots)
    line = Mark(across(limit), CEILING, FLOOR, f"at most {label(limit)}{unit}", "limit")
    return Chart(
        HEIGHT,
        (line, *marks),
        tuple(Tick(across(tick), f"{label(tick)}{unit}") for tick in places),
        tuple(Tick(down(tick), label(tick)) for tick in levels),
    )


def mirror(edges: Sequence[float], above: Sequence[float], below: Sequence[float]) -> Chart:
    """Two histograms over the same bins: one grows up, one down, each to its own tallest bin."""
    edges, above, below = _trim(edges, above, below)
    across = Scale(edges[0], edges[-1], 0.0, 100.0)
    marks = [*_bars(edges, above, across, -1), *_bars(edges, below, across, 1)]
    ticks = [t for t in nice_ticks(edges[0], edges[-1], 4) if edges[0] <= t <= edges[-1]]
    return Chart(MIRROR_HEIGHT, tuple(marks), tuple(Tick(across(t), label(t)) for t in ticks))


def _bars(
    edges: Sequence[float], counts: Sequence[float], across: Scale, direction: int
) -> list[Mark]:
    tallest = max([*counts, 1e-12])
    marks: list[Mark] = []
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if count <= 0:
            continue
        end = round(MIDDLE + direction * max(REACH * count / tallest, 0.7), 2)
        start, width = across(left), round(across(right) - across(left), 3)
        tip = f"{left:.3g} to {right:.3g}: {count:g} weights"
        top, bottom = min(MIDDLE, end), max(MIDDLE, end)
        marks.append(Mark(start, top, bottom, tip, "up" if direction < 0 else "down", width))
    return marks


def _trim(
    edges: Sequence[float], above: Sequence[float], below: Sequence[float]
) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Without the outer bins that together hold next to nothing of either histogram."""
    totals = max(sum(above), 1e-12), max(sum(below), 1e-12)
    mass = [max(a / totals[0], b / totals[1]) for a, b in zip(above, below, strict=True)]
    first = min(_tail(mass), len(mass) - 1)
    last = len(mass) - min(_tail(mass[::-1]), len(mass) - 1 - first)
    return edges[first : last + 1], above[first:last], below[first:last]


def _tail(mass: Sequence[float], share: float = 0.0005) -> int:
    return sum(total <= share for total in accumulate(mass))


def whiskers(rows: Sequence[tuple[str, float, float | None, float | None]]) -> Chart:
    """One dot per row with its interval across; `top` and `bottom` of a mark are the whisker."""
    ends = [v for _, value, low, high in rows for v in (value, low, high) if v is not None]
    size = max(map(abs, ends))  # metres lie closer together than points
    pad = max((max(ends) - min(ends)) * 0.15, size * 0.003, 0.001)
    bounds = (0.0, 100.0) if min(ends) >= 0 and max(ends) <= 100 else (-math.inf, math.inf)
    wanted = nice_ticks(min(ends) - pad, max(ends) + pad, 4)
    ticks = [tick for tick in wanted if bounds[0] <= tick <= bounds[1]]
    across = Scale(ticks[0], ticks[-1], 0.0, 100.0)
    marks = tuple(
        Mark(
            across(value),
            across(value if low is None else low),
            across(value if high is None else high),
            _with_interval(value, low, high),
            form,
        )
        for form, value, low, high in rows
    )
    labels = tuple(Tick(across(t), label(t)) for t in ticks)
    return Chart(44.0 * len(rows) + 26, marks, labels)


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f" ({low:#.4g}–{high:#.4g})"
    return f"{value:#.4g}{interval}"


def label(value: float) -> str:
    """A number on an axis, with a real minus sign."""
    return f"{value:g}".replace("-", "−")


def _slot(index: int, count: int) -> float:
    return round((index + 0.5) / count * 100, 3)


def _order_ticks(count: int) -> tuple[Tick, ...]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if count / s <= 8)
    shown = sorted({1, *range(step, count + 1, step)}) if step > 2 else range(1, count + 1, step)
    return tuple(Tick(_slot(i - 1, count), str(i)) for i in shown)


def _power(value: float) -> str:
    if 0.001 <= value < 10_000:
        return f"{value:g}"
    digits = str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"
