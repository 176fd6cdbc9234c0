"""What the template needs of an attribution: which stage lost the points, what to mend first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from roadworthy.report import words
from roadworthy.report.cascade import Cascade, Step, cascade
from roadworthy.report.facts import metric_name
from roadworthy.report.origin import Origin, origin
from roadworthy.report.panels import Tile
from roadworthy.report.road import Loss, read_loss
from roadworthy.report.roadview import Headline, images, measured_on, model_name, things
from roadworthy.report.tree import Tree

FIELDS = {
    "geometry": ("geometry", "size", "crop"),
    "normalise": ("mean", "std", "precision"),
}
"""Where a stage is more than the field of its name."""
UNSAID = ("model", "runtime", "post")
"""Stages of which a record names only changes."""


@dataclass(frozen=True)
class Share:
    """A stage in which two systems differ, and what that cost."""

    stage: str
    trained: str
    deployed: str
    loss: Loss
    bought_back: Loss | None


@dataclass(frozen=True)
class BlameView:
    """Everything that one attribution shows."""

    template: ClassVar[str] = "blame.html.j2"
    folder: str
    anchor: str
    tree: Tree
    headline: Headline
    total: Loss | None
    shares: tuple[Share, ...]
    chart: Cascade | None
    origin: Origin

    @property
    def title(self) -> str:
        """The model."""
        return self.headline.title


def blame_view(tree: Tree, directory: Path, index: int) -> BlameView:
    """All that the report shows of the attribution in a directory."""
    shares, total = _shares(tree), read_loss(tree.get("total"))
    return BlameView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        headline=_headline(tree, directory, shares, total),
        total=total,
        shares=shares,
        chart=cascade(_steps(shares, total)),
        origin=origin(tree),
    )


def best(view: BlameView) -> Share | None:
    """The share whose mending buys back most, as recorded."""
    return _best(view.tree, view.shares)


def _best(tree: Tree, shares: tuple[Share, ...]) -> Share | None:
    return next((share for share in shares if share.stage == tree.text("best_change")), None)


def _shares(tree: Tree) -> tuple[Share, ...]:
    found = tree.get("shares").value
    stages = list(cast("Mapping[str, object]", found)) if isinstance(found, Mapping) else []
    shares = [share for stage in stages if (share := _share(tree, stage)) is not None]
    return tuple(sorted(shares, key=lambda share: -share.loss.value))


def _share(tree: Tree, stage: str) -> Share | None:
    value = tree.number(f"shares.{stage}")
    if value is None:
        return None
    ends = tree.numbers(f"intervals.{stage}")
    low, high = ends if len(ends) == 2 else (None, None)
    systems = [tree.get(system) for system in ("train", "deploy")]
    alone = stage == "geometry" and any(system.text("resize") is None for system in systems)
    also = ("resize",) if alone else ()  # one side resizes: its resizer counts as geometry
    trained, deployed = (_part(system, stage, also) for system in systems)
    gain = read_loss(tree.get("bought_back").get(stage))
    return Share(stage, trained, deployed, Loss(value, low, high), gain)


def _part(system: Tree, stage: str, also: tuple[str, ...]) -> str:
    """What a system has in a stage; empty where the record does not hold the system."""
    names, said = (*FIELDS.get(stage, (stage,)), *also), dict(system.leaves(""))
    parts = [(name, said[name]) for name in names if said.get(name)]
    if not said or parts:
        return ", ".join(value if name == stage else f"{name} {value}" for name, value in parts)
    return "as trained" if stage in UNSAID else "left out"


def _headline(
    tree: Tree, directory: Path, shares: tuple[Share, ...], total: Loss | None
) -> Headline:
    first, kind = _advice(tree, shares, total)
    worst = shares[0] if shares else None
    rest = ""
    if worst is not None and total is not None:
        rest = (
            f"Of all the stages in which the deployment differs, {worst.stage} has the largest "
            f"share: {words.lost(worst.loss.value)} of {words.lost(total.value)} points"
            f"{words.between(worst.loss)}."
        )
    subtitle = ", ".join(filter(None, ("attribution", measured_on(tree))))
    return Headline(
        model_name(tree, directory), subtitle, kind, first, rest, _tiles(tree, shares, total)
    )


def _advice(tree: Tree, shares: tuple[Share, ...], total: Loss | None) -> tuple[str, str]:
    mend = _best(tree, shares)
    if total is not None and total.value <= 0:
        return "The deployment loses nothing against the training system.", "pass"
    if mend is None or mend.bought_back is None:
        return "Nothing was attributed in this run.", "none"
    how = f" ({mend.trained} instead of {mend.deployed})" if mend.trained and mend.deployed else ""
    of = f" of the {words.lost(total.value)} points lost" if total is not None else " points"
    gain = mend.bought_back
    told = "" if gain.low is None or gain.low > 0 else ", which these images do not tell from none"
    return (
        f"Make {mend.stage} as in training{how}: this one change buys back most, "
        f"{words.lost(gain.value)}{of}{told}.",
        "warn",
    )


def _tiles(tree: Tree, shares: tuple[Share, ...], total: Loss | None) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    if total is not None:
        interval = words.between(total).strip(" ()")
        tiles.append(Tile(words.lost(total.value), f"points of {metric_name(tree)} lost", interval))
    mend = _best(tree, shares)
    if mend is not None and mend.bought_back is not None:
        interval = words.between(mend.bought_back).strip(" ()")
        tiles.append(
            Tile(words.lost(mend.bought_back.value), f"bought back by {mend.stage}", interval)
        )
    if shares:
        tiles.append(Tile(str(len(shares)), "stages differ", ""))
    if n := images(tree):
        tiles.append(Tile(str(n), things(tree), ""))
    return tuple(tiles)


def _steps(shares: tuple[Share, ...], total: Loss | None) -> list[Step]:
    steps: list[Step] = []
    before = 0.0
    for share in shares:
        loss, after = share.loss, before + share.loss.value
        whisker = None
        if loss.low is not None and loss.high is not None:
            whisker = before + loss.low, before + loss.high
        shown = f"{words.added(loss.value)}{words.between(loss)}"
        detail = f"{share.trained} → {share.deployed}" if share.trained and share.deployed else ""
        kind = "won" if loss.value < 0 else ""
        steps.append(Step(share.stage, shown, before, after, whisker, None, detail, kind))
        before = after
    if total is not None and shares:
        ends = None if total.low is None or total.high is None else (total.low, total.high)
        shown = f"{words.lost(total.value)}{words.between(total)}"
        steps.append(Step("total", shown, 0.0, total.value, ends, kind="total"))
    return steps
