"""Differences of paired seeds in a few characters."""

from collections.abc import Sequence

from roadworthy.learn.gvb.table import student


def signed(differences: Sequence[float]) -> str:
    """Mean and Student's 95 % interval; of one difference no interval.

    >>> signed([0.01, 0.02, 0.03])
    '+.0200 [-.0048, +.0448]'
    """
    if len(differences) < 2:
        return _short(differences[0])
    mean, half = student(differences)
    return f"{_short(mean)} [{_short(mean - half)}, {_short(mean + half)}]"


def _short(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".", 1)
