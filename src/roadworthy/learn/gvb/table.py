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

    Beside ``mean`` and its 95 % interval over seeds stand ``ratios``, the error of each seed as a
    share of the first backbone's of the same seed, ``relative``, their mean, and ``gain`` over it,
    above 0 where better, with its own interval. Intervals are Student's; None of one seed.
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
                **_relative(own, base, first["higher"]),
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


def _relative(own: dict[int, float], base: dict[int, float], higher: bool) -> Row:
    """Errors as shares of the base's, and their mean; none where the base has no error.

    >>> _relative({0: 3.0, 1: 2.0}, {0: 2.0, 1: 2.0}, False)
    {'ratios': {'0': 1.5, '1': 1.0}, 'relative': 1.25}
    >>> _relative({0: 0.9}, {0: 1.0}, True)
    {'ratios': {}, 'relative': None}
    """
    errors = {
        seed: (1 - own[seed], 1 - base[seed]) if higher else (own[seed], base[seed])
        for seed in own
        if seed in base
    }
    if not all(theirs for _, theirs in errors.values()):
        errors = {}
    ratios = {str(seed): mine / theirs for seed, (mine, theirs) in errors.items()}
    return {"ratios": ratios, "relative": float(np.mean([*ratios.values()])) if ratios else None}


def by_task(table: Sequence[Row]) -> list[Row]:
    """The mean relative error of each backbone over the data sets of each task.

    Its interval, ``low`` to ``high``, is of the means of the seeds that all data sets have.
    """
    found: list[Row] = []
    for task in dict.fromkeys(row["task"] for row in table):
        for name in dict.fromkeys(row["backbone"] for row in table):
            ratios = [
                row["ratios"]
                for row in table
                if (row["task"], row["backbone"]) == (task, name) and row["ratios"]
            ]
            seeds = [seed for seed in ratios[0] if all(seed in e for e in ratios)] if ratios else []
            means = [float(np.mean([each[seed] for each in ratios])) for seed in seeds]
            shares = _interval("relative", "low", "high", means)
            found.append({"task": task, "backbone": name, "datasets": len(ratios), **shares})
    return found
