"""How a stage of learning went, out of its log.jsonl: losses and images a second, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from roadworthy.report.charts import curve
from roadworthy.report.panels import Figure
from roadworthy.report.tree import Tree

LINES = "log.jsonl"
_ABOUT = {"step", "rate", "images_per_s", "seconds_left", "loss"}
_DOTS = 120

Points = list[tuple[float, float]]


def read_log(directory: Path) -> list[Tree]:
    """The rows of a stage's log; those that are no JSON object with a step are left out."""
    return [row for row in read_lines(directory / LINES) if row.number("step") is not None]


def read_lines(path: Path) -> list[Tree]:
    """The lines of a file of JSON lines; none where it is not there."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [Tree(_json(line)) for line in text.splitlines()]


def losses(log: Sequence[Tree]) -> tuple[Figure, ...]:
    """The loss of each source, in the order in which they were met."""
    names = dict.fromkeys(map(_source, log))
    found = [(name, [row for row in log if _source(row) == name]) for name in names]
    return _figures((name or "loss", _points(rows, "loss")) for name, rows in found)


def parts(log: Sequence[Tree]) -> tuple[Figure, ...]:
    """Each part of a loss that has several."""
    names = dict.fromkeys(key for row in log for key, _ in row.leaves("") if key not in _ABOUT)
    return _figures((name, _points(log, name)) for name in names)


def speed(log: Sequence[Tree]) -> Figure | None:
    """Images a second, each the mean of its attempt so far."""
    return next(iter(_figures([("images a second", _points(log, "images_per_s"))])), None)


def _source(row: Tree) -> str:
    return ", ".join(filter(None, (row.text("task"), row.text("source"))))


def _points(rows: Sequence[Tree], key: str) -> Points:
    known = ((row.number("step"), row.number(key)) for row in rows)
    return [(step, value) for step, value in known if step is not None and value is not None]


def _figures(series: Iterable[tuple[str, Points]]) -> tuple[Figure, ...]:
    return tuple(_figure(name, points) for name, points in series if len(points) > 1)


def _figure(name: str, points: Points) -> Figure:
    dots = means(points, _DOTS)
    line = running(dots, max(len(dots) // 10, 1))
    unit = -(-len(points) // _DOTS)
    note = f"{line[0][1]:.3g} → {line[-1][1]:.3g}".replace("-", "−")
    return Figure(curve(dots, line), note, name, (str(unit),))


def means(points: Points, most: int) -> Points:
    """Means of as many neighbours each as leave `most` points or fewer.

    >>> means([(0, 1.0), (1, 3.0), (2, 5.0)], 2)
    [(0.5, 2.0), (2.0, 5.0)]
    """
    each = -(-len(points) // most)
    groups = [points[at : at + each] for at in range(0, len(points), each)]
    return [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]


def running(points: Points, width: int) -> Points:
    """Means of each point and the `width` before and after it, of fewer at the ends.

    >>> running([(0, 0.0), (1, 3.0), (2, 3.0)], 1)
    [(0, 1.5), (1, 2.0), (2, 3.0)]
    """
    values = [y for _, y in points]
    around = (values[max(at - width, 0) : at + width + 1] for at in range(len(values)))
    return [(x, _mean(near)) for (x, _), near in zip(points, around, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:  # the half of a row that a kill left
        return None
