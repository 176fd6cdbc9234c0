"""The heat map of a road test: a cell for every class of options, coloured by the points it loses.

Colours are steps, not shades, since only steps can be told apart by everyone and in both themes;
the number stands in every cell, so that colour never speaks alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from roadworthy.report import words
from roadworthy.report.road import Group, Row, groups, mean_and_worst, stages_of
from roadworthy.requests import TextStage

EDGES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Points lost at which the colour changes."""
WON = 1.0
"""Points won from which a gain takes its stronger colour."""


@dataclass(frozen=True)
class Cell:
    """A class of options: its number, the names of all members, and the words shown on hover."""

    shown: str
    members: tuple[str, ...]
    tip: str
    kind: str

    @property
    def wide(self) -> bool:
        """Whether its names take the room of two cells."""
        return len(self.members) > 2


@dataclass(frozen=True)
class Strip:
    """The cells of one stage."""

    stage: str
    note: str
    cells: tuple[Cell, ...]


def heat(rows: Sequence[Row]) -> tuple[Strip, ...]:
    """One strip for each stage, in the order in which an image meets them."""
    return tuple(_strip(rows, stage) for stage in stages_of(rows))


def legend() -> tuple[tuple[str, str], ...]:
    """(kind, words) of every colour, from won to lost."""
    bounds = [f"{edge:g}" for edge in EDGES]
    between = [f"{low}–{high}" for low, high in pairwise(bounds)]
    lost = (f"under {bounds[0]} lost", *between, f"over {bounds[-1]} lost")
    return (
        ("won-2", f"over {WON:g} won"),
        ("won-1", "won"),
        ("calm", "not measurable"),
        *((f"lost-{step}", said) for step, said in enumerate(lost, 1)),
        ("same", "same as training"),
        ("missing", "cannot run here"),
    )


def colour(row: Row) -> str:
    """The class of a cell.

    >>> from roadworthy.report.road import Loss
    >>> colour(Row("resize", "a", "a", Loss(3.0), measurable=True)), colour(Row("resize", "a", "a"))
    ('lost-4', 'unknown')
    """
    if row.kind != "felt" or row.loss is None:
        return row.kind
    if row.loss.value < 0:
        return "won-2" if row.loss.value < -WON else "won-1"
    return f"lost-{1 + bisect_left(EDGES, row.loss.value)}"


def _strip(rows: Sequence[Row], stage: str) -> Strip:
    cells = tuple(_cell(group) for group in groups(rows, stage))
    options = sum(len(cell.members) for cell in cells)
    found = mean_and_worst(rows, stage)
    note = words.counted(options, "option")
    if found is not None:
        note += f", mean {words.lost(found[0])}, worst {words.lost(found[1])} points lost"
    return Strip(stage, note, cells)


def _cell(group: Group) -> Cell:
    row = group.row
    shown = {"missing": "not here", "same": "=", "unknown": "–"}.get(
        row.kind, words.lost(row.loss.value if row.loss else None)
    )
    return Cell(shown, group.members, tip(row, group.members), colour(row))


def tip(row: Row, members: Sequence[str]) -> str:
    """All that is known of a class, as lines."""
    lines = [", ".join(members)]
    if row.missing is not None:
        return "\n".join([*lines, f"cannot run here: {row.missing}"])
    if row.kind == "same":
        return "\n".join([*lines, "makes the very inputs of training"])
    if row.loss is not None:
        lines.append(f"{words.lost(row.loss.value)} points lost{words.between(row.loss)}")
    if row.kind == "calm":
        lines.append("no measurable effect")
    if row.p is not None:
        lines.append(f"p = {row.p:.2g}")
    if row.flips is not None:
        lines.append(f"{words.percent(row.flips)} of the answers change")
    if row.distance is not None:
        lines.append(f"{row.distance:.2f} {_unit(row)}")
    return "\n".join(lines)


def _unit(row: Row) -> str:
    if row.stage in get_args(TextStage):
        return "% of the tokens are not those of training"
    return "levels from the images of training"
