"""Values of seeds, or their paired differences, in a few characters."""

from collections.abc import Callable, Sequence

from roadworthy.learn.gvb.table import student


def interval(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Mean and Student's 95 % interval; of one value no interval.

    Args:
        form: how a number is written.

    >>> interval([0.9, 1.0, 1.1], "{:.3f}".format)
    '1.000 [0.752, 1.248]'
    >>> interval([0.01, 0.02, 0.03], signed)
    '+.0200 [-.0048, +.0448]'
    """
    if len(values) < 2:
        return form(values[0])
    mean, half = student(values)
    return f"{form(mean)} [{form(mean - half)}, {form(mean + half)}]"


def signed(difference: float) -> str:
    """A difference below 1 with its sign.

    >>> signed(-0.0123)
    '-.0123'
    """
    return f"{difference:+.4f}".replace("0.", ".", 1)
