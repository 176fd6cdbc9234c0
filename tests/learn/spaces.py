"""A small space for tests: every operator and entry in a few narrow stages."""

from typing import Any

from roadworthy.learn.space import Choices, Space


def small(**more: Any) -> Space:
    """Five stages of two widths; the third keeps the resolution, so that widths may stay too."""
    options = {"op": ("mbconv", "xca"), "repeats": (1, 2), "channels": (8, 16)}
    options |= {"down": ("inside", "local-global"), "expansion": 2, **more}
    return Space(tuple(Choices(**options, stride=s) for s in (2, 2, 1, 2, 2)), 8, 24, 8)
