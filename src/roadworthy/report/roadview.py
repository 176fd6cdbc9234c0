"""What the template needs of a road test: advice, heat map, ladder, pictures, flips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import ClassVar

from roadworthy.report import words
from roadworthy.report.cascade import Cascade, Step, cascade
from roadworthy.report.facts import metric_key, metric_name, points_per_unit
from roadworthy.report.heat import Strip, heat
from roadworthy.report.origin import Origin, origin
from roadworthy.report.panels import Sample, Tile
from roadworthy.report.road import Loss, Row, different, read_loss, read_rows
from roadworthy.report.shots import Shot, read_pictures, shots
from roadworthy.report.tree import Tree

COMBINATIONS = 10
"""Combinations that are listed, worst first."""
COUNTED, WRONG = "top-1 accuracy", "was right, now wrong"
MAPS = {"mean IoU", "RMSE"}
"""Metrics of answers that have a value for every pixel."""


@dataclass(frozen=True)
class Headline:
    """What is said first: a sentence, what follows from it, and the numbers that carry it."""

    title: str
    subtitle: str
    kind: str
    first: str
    rest: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class RoadView:
    """Everything that one road test shows; an empty field leaves its section out."""

    template: ClassVar[str] = "road.html.j2"
    folder: str
    anchor: str
    tree: Tree
    headline: Headline
    rows: tuple[Row, ...]
    strips: tuple[Strip, ...]
    ladder: Cascade | None
    combinations: Cascade | None
    shots: tuple[Shot, ...]
    flips: tuple[Sample, ...]
    origin: Origin

    @property
    def things(self) -> str:
        """``images`` or ``texts``."""
        return things(self.tree)

    @property
    def title(self) -> str:
        """The model."""
        return self.headline.title


def road_view(tree: Tree, directory: Path, index: int) -> RoadView:
    """All that the report shows of the road test in a directory."""
    rows = read_rows(tree)
    pictures = read_pictures(directory)
    return RoadView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        headline=_headline(tree, directory, rows),
        rows=rows,
        strips=heat(rows),
        ladder=cascade(_ladder(tree)),
        combinations=cascade(_combinations(tree)),
        shots=shots(pictures, rows),
        flips=tuple(_flip(row, pictures, metric_name(tree)) for row in tree.rows("flips")),
        origin=origin(tree),
    )


def model_name(tree: Tree, directory: Path) -> str:
    """The model as a title: the spec without its weights."""
    return (tree.text("config.model") or directory.resolve().name).partition("@")[0]


def trained(tree: Tree) -> str:
    """The metric of the training system, in points for fractions."""
    value = tree.number("value")
    return words.measured(value and value * points_per_unit(tree), metric_key(tree))


def measured_on(tree: Tree) -> str:
    """On how many images or texts, and judged by what."""
    judge = tree.text("judged_by")
    n = images(tree)
    counted = words.counted(n, things(tree)[:-1]) if n else ""
    parts = [counted, f"judged by {judge}" if judge else ""]
    return ", ".join(filter(None, parts))


def things(tree: Tree) -> str:
    """What the numbers come from: ``images`` or ``texts``."""
    return tree.text("things") or "images"


def images(tree: Tree) -> int | None:
    """How many images the numbers come from."""
    return tree.count("n") or tree.count("data.road.n")


def _headline(tree: Tree, directory: Path, rows: Sequence[Row]) -> Headline:
    advice = tree.text("advice") or _plain_advice(rows)
    first, _, rest = re.sub(r"(?<=[.!?]) (?=[A-Z])", "\n", advice, count=1).partition("\n")
    hurts = any(row.kind == "felt" and row.loss and row.loss.value > 0 for row in rows)
    kind = "warn" if hurts else "pass" if rows else "none"
    subtitle = ", ".join(filter(None, ("road test", measured_on(tree))))
    return Headline(model_name(tree, directory), subtitle, kind, first, rest, _tiles(tree, rows))


def _plain_advice(rows: Sequence[Row]) -> str:
    felt = [row for row in different(rows) if row.kind == "felt" and row.loss]
    worst = max(felt, key=lambda row: row.loss.value if row.loss else 0.0, default=None)
    if worst is None or worst.loss is None:
        return "No change was seen to cost anything." if rows else "Nothing was measured."
    return f"{worst.stage} {worst.option} costs most: {words.lost(worst.loss.value)} points."


def _tiles(tree: Tree, rows: Sequence[Row]) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    if tree.number("value") is not None:
        judge = tree.text("judged_by")
        tiles.append(
            Tile(trained(tree), f"{metric_name(tree)} as trained", f"by {judge}" if judge else "")
        )
    if n := images(tree):
        skipped = len(tree.texts("skipped"))
        left = f"{skipped} unreadable left out" if skipped else ""
        tiles.append(Tile(str(n), things(tree), left))
    if rows:
        absent = sum(row.missing is not None for row in rows)
        heads = different(rows)
        felt = [row for row in heads if row.kind == "felt"]
        worst = max((row.loss.value for row in felt if row.loss), default=None)
        away = f"{absent} cannot run here" if absent else "all of them ran"
        most = f"the worst loses {words.lost(worst)} points" if felt else "of those that ran"
        tiles += [
            Tile(str(len(rows)), "options", away),
            Tile(str(len(heads)), "really different", f"the others make the same {things(tree)}"),
            Tile(str(len(felt)), "with a measurable effect", most),
        ]
    return tuple(tiles)


def _ladder(tree: Tree) -> list[Step]:
    steps: list[Step] = []
    before, last = 0.0, None
    for row in tree.rows("ladder"):
        loss = read_loss(row.get("loss"))
        if loss is None:
            continue
        alone, added = row.number("alone"), loss.value - before
        name = f"{row.text('stage') or ''} {row.text('option') or ''}".strip()
        detail = "" if alone is None else f"alone it costs {words.lost(alone)}"
        steps.append(
            Step(name, words.added(added), before, loss.value, None, alone, detail, _sign(added))
        )
        before, last = loss.value, loss
    if last is not None:
        shown = f"{words.lost(last.value)}{words.between(last)}"
        steps.append(Step("together", shown, 0.0, last.value, _ends(last), kind="total"))
    return steps


def _combinations(tree: Tree) -> list[Step]:
    found = [
        (" + ".join(row.texts("changes")) or "as trained", loss)
        for row in tree.rows("combinations")
        if (loss := read_loss(row)) is not None
    ]
    worst = sorted(found, key=lambda item: -item[1].value)[:COMBINATIONS]
    return [
        Step(name, f"{words.lost(loss.value)}{words.between(loss)}", 0.0, loss.value, _ends(loss))
        for name, loss in worst
    ]


def _ends(loss: Loss) -> tuple[float, float] | None:
    return None if loss.low is None or loss.high is None else (loss.low, loss.high)


def _sign(value: float) -> str:
    return "won" if value < 0 else ""


def _flip(row: Tree, pictures: Tree, metric: str) -> Sample:
    label, before, after = (row.count(key) for key in ("label", "before", "after"))
    said = " → ".join(_answer(value, pictures, metric) for value in (before, after))
    if metric in MAPS:
        said = f"{words.percent(row.number('changed'))} of the pixels change"
    image = pictures.get("thumbnails").get(row.text("index") or "").text("") or ""
    n = row.count("options") or 0
    cause = f"{row.text('stage') or ''} {row.text('option') or ''}".strip()
    verdict = _verdict(label, before, after) if metric == COUNTED else ""
    truth = verdict or ("" if label is None else f"truly {_answer(label, pictures, metric)}")
    many = f"{words.counted(n, 'option')} {'changes' if n == 1 else 'change'} it"
    return Sample(
        image=image if image.startswith("data:image/") else "",
        label=PurePath(row.text("image") or "").name,
        text=row.text("text") or "",
        said=(said, *filter(None, (truth, cause, many if n else ""))),
        kind="differs" if verdict == WRONG else "",
    )


def _verdict(label: int | None, before: int | None, after: int | None) -> str:
    if label is None or label not in (before, after):
        return ""
    return "now right" if label == after else WRONG


def _answer(value: int | None, pictures: Tree, metric: str) -> str:
    if value is None:
        return "–"
    if metric != COUNTED:
        return str(value)
    return pictures.text(f"names.{value}") or f"class {value}"
