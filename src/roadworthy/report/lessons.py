"""From the record of a stage of learning to its facts; a missing field is never an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roadworthy.report import words
from roadworthy.report.facts import METRICS, UNITS, wilson
from roadworthy.report.tree import Tree, read_json

STAGES = {"learn amateur", "learn expert", "learn generalist", "learn distill"}
"""The commands that learn a stage."""
PROBE = "learn probe"
HASH = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True)
class Judged:
    """A metric on held-out images.

    Args:
        task: type of task, ``captions`` of an amateur's.
        by: the head that answered, or the probed backbone.
        on: source of the images.
        value: in points where the metric is a share.
        n: images.
        chance: what guessing would have reached.
    """

    task: str
    by: str
    on: str
    metric: str
    value: float
    n: int | None
    chance: float | None

    @property
    def less(self) -> bool:
        """Whether less is better."""
        return self.metric in UNITS

    @property
    def name(self) -> str:
        """The metric in words."""
        return METRICS.get(self.metric, self.metric)

    @property
    def better(self) -> str:
        """Which direction is better."""
        return "lower" if self.less else "higher"

    @property
    def shown(self) -> str:
        """The value in figures."""
        return words.measured(self.value, self.metric)

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % interval of a share of images, in points."""
        share = self.metric in {"top1", "accuracy"} or "recall" in self.metric
        found = wilson(self.value / 100, self.n) if share else None
        return (found[0] * 100, found[1] * 100) if found else (None, None)

    @property
    def question(self) -> tuple[str, str, str, int | None]:
        """What two stages must share for their values to be set side by side."""
        return self.task, self.on, self.metric, self.n


@dataclass(frozen=True)
class Beside:
    """The files beside run.json that a stage wrote: manifest.json and config.json."""

    manifest: Tree
    config: Tree


def read_beside(directory: Path) -> Beside:
    """What lies beside the run.json of a folder; absent files are empty."""
    paths = (directory / name for name in ("manifest.json", "config.json"))
    return Beside(*(Tree(read_json(path) if path.is_file() else None) for path in paths))


def judged(tree: Tree) -> tuple[Judged, ...]:
    """The held-out metrics of a stage, or what a run of probes found."""
    if tree.text("command") == PROBE:
        found = [_probed(row, tree) for row in tree.rows("probes")]
    else:
        found = [_judged(row) for row in tree.rows("held_out")]
    return tuple(each for each in found if each is not None)


def _judged(row: Tree, task: str = "captions", by: str = "", on: str = "") -> Judged | None:
    metric, value = row.text("metric"), row.number("value")
    if metric is None or value is None:
        return None
    chance = row.number("chance")
    return Judged(
        task=row.text("task") or task,
        by=row.text("head") or by,
        on=row.text("judged_on") or on,
        metric=metric,
        value=value if metric in UNITS else value * 100,
        n=row.count("n"),
        chance=None if chance is None else chance * 100,
    )


def _probed(row: Tree, tree: Tree) -> Judged | None:
    task = next(iter(tree.texts("config.test")), "")
    return _judged(row, task, row.text("model") or "", tree.text("data.test.spec") or "")


def sources(tree: Tree) -> tuple[tuple[str, ...], ...]:
    """Task, name, images and hash of each source that was learned from."""
    named = tree.get("data").value
    rows = [Tree(each) for each in named.values()] if isinstance(named, dict) else []
    return tuple(
        (
            row.text("task") or "–",
            row.text("name") or "–",
            f"{n:,}" if (n := row.count("n")) is not None else "–",
            short(row.text("sha256")),
        )
        for row in rows
        if row.text("name")
    )


def lineage(tree: Tree, beside: Beside) -> tuple[tuple[str, str], ...]:
    """What a stage began with and what it wrote, with short hashes of the weights."""
    parents = [(each.text("folder") or "–", each.text("sha256")) for each in tree.rows("parents")]
    rows = [("began with", f"{name} ({short(sha)})") for name, sha in parents]
    begun = tree.text("config.model")
    rows = rows or ([("began with", begun)] if begun else [])
    share = beside.manifest.number("blend.share")
    if share is not None:
        rows.append(("kept of the way from its experts", f"{share * 100:.0f} %"))
    files = (each for each in beside.manifest.leaves("files") if each[0].endswith("safetensors"))
    return (*rows, *((f"wrote {name}", short(sha)) for name, sha in files))


def short(sha: str | None) -> str:
    """The first digits of a hash."""
    return sha[:HASH] if sha else "–"


def costs(tree: Tree) -> tuple[tuple[str, str, str], ...]:
    """What a stage has cost, alone and with all that it began with."""
    shown: tuple[tuple[str, str, words.Show], ...] = (
        ("images seen", "images", lambda n: "–" if n is None else f"{n:,.0f}"),
        ("multiply-accumulates", "macs", words.macs),
        ("CPU time", "cpu_seconds", words.duration),
        ("GPU time", "gpu_seconds", words.duration),
        ("time on the clock", "wall_seconds", words.duration),
    )
    found: list[tuple[str, str, str]] = []
    for name, key, show in shown:
        own, total = (tree.number(f"{part}.{key}") for part in ("compute", "total_compute"))
        if own or total:
            found.append((name, show(own), show(total)))
    return tuple(found)
