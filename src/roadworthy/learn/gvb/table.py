"""Rows of the benchmark as a table: means over seeds with their intervals, and relative errors.

Metrics have no common unit and no common direction, so they are never averaged themselves; what is
averaged over the data sets of a task is the error in shares of the first backbone's.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]
_SHARED = ("dataset", "title", "task", "metric", "higher", "trained_on", "tested_on")


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row for each data set, its task and backbone.

    Beside ``mean`` and its 95 % interval over seeds stand ``relative``, the error as a share of the
    first backbone's, and ``gain`` over it, above 0 where better, of the same seeds, with its own
    interval. Intervals are Student's; None of one seed.
    """
    found: list[Row] = []
    for _, group in groupby(rows, key=lambda row: (row["dataset"], row["task"])):
        held = list(group)
        backbones = list(dict.fromkeys(row["backbone"] for row in held))
        values = {name: _by_seed(held, name) for name in backbones}
        base = values[backbones[0]]
        for name in backbones:
            own = values[name]
            first = next(row for row in held if row["backbone"] == name)
            found.append({
                **{key: first[key] for key in _SHARED},
                "backbone": name,
                "seeds": len(own),
                **_interval("mean", "low", "high", list(own.values())),
                "relative": _relative(own.values(), base.values(), first["higher"]),
                **_gain(own, base, first["higher"]),
            })  # fmt: skip
    return found


def _by_seed(rows: Iterable[Row], backbone: str) -> dict[int, float]:
    return {row["seed"]: row["value"] for row in rows if row["backbone"] == backbone}


def _gain(own: dict[int, float], base: dict[int, float], higher: bool) -> Row:
    sign = 1 if higher else -1
    both = [sign * (own[seed] - base[seed]) for seed in own if seed in base]
    return _interval("gain", "gain_low", "gain_high", both)


def _interval(middle: str, low: str, high: str, values: Sequence[float]) -> Row:
    """Mean and Student's 95 % interval, by these names.

    >>> found = _interval("mean", "low", "high", [0.1, 0.2, 0.3])
    >>> [round(found[name], 4) for name in ("mean", "low", "high")]
    [0.2, -0.0484, 0.4484]
    """
    if len(values) < 2:
        return {middle: values[0] if values else None, low: None, high: None}
    mean, half = student(values)
    return {middle: mean, low: mean - half, high: mean + half}


def student(values: Sequence[float]) -> tuple[float, float]:
    """Mean of two values or more and half of Student's 95 % interval around it.

    >>> [round(each, 4) for each in student([0.1, 0.2, 0.3])]
    [0.2, 0.2484]
    """
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values)), float(half)


def _relative(own: Iterable[float], base: Iterable[float], higher: bool) -> float | None:
    """The error as a share of the base's; None where the base has none.

    >>> round(_relative([0.9], [0.8], True), 4), _relative([3.0], [2.0], False)
    (0.5, 1.5)
    """
    mine, theirs = (float(np.mean(list(each))) for each in (own, base))
    if higher:
        mine, theirs = 1 - mine, 1 - theirs
    return mine / theirs if theirs else None


def by_task(table: Sequence[Row]) -> list[Row]:
    """The mean relative error of each backbone over the data sets of each task."""
    found: list[Row] = []
    for task in dict.fromkeys(row["task"] for row in table):
        for name in dict.fromkeys(row["backbone"] for row in table):
            errors = [
                row["relative"] for row in table if (row["task"], row["backbone"]) == (task, name)
            ]
            known = [each for each in errors if each is not None]
            mean = float(np.mean(known)) if known else None
            found.append({"task": task, "backbone": name, "datasets": len(known), "relative": mean})
    return found
