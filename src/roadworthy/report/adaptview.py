"""What the template needs of an adaptation: what was chosen, what it reached, how to open it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar

from roadworthy.report import words
from roadworthy.report.charts import label
from roadworthy.report.facts import UNITS
from roadworthy.report.lessons import (
    Beside,
    Judged,
    costs,
    lineage,
    read_beside,
    short,
)
from roadworthy.report.origin import Pairs, unless
from roadworthy.report.panels import Bar, Tile
from roadworthy.report.stageview import origins
from roadworthy.report.tree import Tree
from roadworthy.requests import CHOICES

ADAPT = "adapt"
PROTOCOLS = {
    "Neighbours": ("knn", "nearest neighbours vote"),
    "Linear": ("linear", "a linear layer on frozen features"),
    "Frozen": ("frozen", "a head on a frozen backbone"),
    "LowRank": ("lora", "a head and low-rank changes"),
    "Full": ("full", "all weights learn"),
    "Staged": ("staged", "a head on a frozen backbone, then all weights"),
}
"""As it is typed, and in words."""
_LEARNED = ("scenes:", "shards:", "captions:")
"""Specs of what is learned from alone: no other command opens them."""
_METRICS = {
    "classification": "top1",
    "detection": "map50",
    "segmentation": "miou",
    "depth": "rmse",
}


@dataclass(frozen=True)
class AdaptView:
    """Everything that an adapted model shows; an empty field is left out."""

    template: ClassVar[str] = "adapt.html.j2"
    folder: str
    anchor: str
    tree: Tree
    judged: Judged | None
    trials: tuple[Bar, ...]
    sources: tuple[tuple[str, ...], ...]
    lineage: Pairs
    costs: tuple[tuple[str, str, str], ...]
    origins: tuple[tuple[str, Pairs], ...]

    @property
    def task(self) -> str:
        """The task that the model does."""
        return self.tree.first("task", "config.task") or "a task"

    @property
    def model(self) -> str:
        """The backbone."""
        return self.tree.text("config.model") or self.folder

    @property
    def title(self) -> str:
        """The backbone and its task."""
        return f"{self.model} for {self.task}"

    @property
    def protocol(self) -> str:
        """How it was adapted."""
        return self.tree.text("protocol") or ""

    @property
    def how(self) -> str:
        """The protocol in words."""
        return PROTOCOLS.get(self.protocol, ("", self.protocol))[1]

    @property
    def subtitle(self) -> str:
        """How it was adapted, and to which images."""
        size = self.tree.count("config.size")
        parts = [
            f"adapted: {self.how}" if self.how else "adapted",
            f"{self.share} of the labels" if self.share else "",
            f"{size} pixels a side" if size else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def share(self) -> str:
        """Of the labelled images that were used."""
        fraction = self.tree.number("fraction")
        return "" if fraction is None else f"{fraction * 100:.3g} %"

    @property
    def kind(self) -> str:
        """``none`` where no test images judged it, ``warn`` where they were odd, else ``pass``."""
        if self.judged is None:
            return "none"
        return "warn" if self.warnings else "pass"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd of the data, such as test images that were also learned from."""
        return tuple(self.tree.texts("warnings"))

    @property
    def first(self) -> str:
        """The verdict in a sentence."""
        if self.judged is None:
            return f"Adapted to {self.task}; no test images judged it."
        said = f"{words.capital(self.judged.name)} {self.judged.shown}"
        low, high = self.judged.interval
        between = "" if low is None or high is None else f" ({low:.1f}–{high:.1f})"
        with_share = f" with {self.share} of the labels" if self.share else ""
        return f"{said}{between}{with_share}."

    @property
    def rest(self) -> str:
        """What was chosen, and what judged."""
        chosen, said = self.tree.number("chosen"), ""
        if chosen is not None and len(self.trials) > 1:
            said = f"The {self.choice} {label(chosen)} was chosen of {len(self.trials)}, "
            said += "on held-out labelled images. "
        if self.judged and self.judged.n:
            said += f"{self.judged.n:,} test images judged the model; they chose nothing."
        return said.strip()

    @property
    def choice(self) -> str:
        """What there was to choose."""
        return CHOICES.get(self.protocol, "learning rate")

    @property
    def chose(self) -> str:
        """What was compared to choose."""
        if self.protocol == "Linear":
            return "loss, lower is better"
        one = _figure(self.tree, 0.0)
        return f"{one.name}, {one.better} is better"

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The numbers that carry the page."""
        tree, found = self.tree, list[Tile]()
        if one := self.judged:
            found.append(Tile(one.shown, f"{one.name}, {self.task}", f"{one.better} is better"))
        if (n := tree.count("data.labelled.n")) is not None:
            of = f"{self.share} of those given" if self.share else ""
            found.append(Tile(f"{n:,}", "labelled images", of))
        if (chosen := tree.number("chosen")) is not None:
            tried = f"best of {len(self.trials)}" if len(self.trials) > 1 else ""
            found.append(Tile(label(chosen), self.choice, tried))
        return tuple(found)

    @property
    def uses(self) -> tuple[str, ...]:
        """What to type to use the model."""
        spec = self.tree.text("spec")
        if spec is None:
            return ()
        data = self.tree.first("config.test", "config.data")
        if data is None or data.startswith(_LEARNED):
            data = "SPEC"
        return (f"roadworthy evaluate {quote(spec)} --data {quote(data)}",)

    @property
    def command(self) -> str:
        """What to type to get the run again."""
        return _command_line(self.tree)


def adapt_view(tree: Tree, directory: Path, index: int) -> AdaptView:
    """All that the report shows of an adapted model in a directory."""
    beside = read_beside(directory)
    begun = _begun(tree, beside)
    return AdaptView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        judged=_judged(tree),
        trials=_trials(tree),
        sources=_sources(tree),
        lineage=lineage(begun, beside),
        costs=costs(begun),
        origins=origins(tree, "config.protocol", "config.machine"),
    )


def _judged(tree: Tree) -> Judged | None:
    value = tree.number("value")
    return None if value is None or tree.text("metric") is None else _figure(tree, value)


def _figure(tree: Tree, value: float) -> Judged:
    """A value of the task's metric."""
    task = tree.first("task", "config.task") or ""
    metric = tree.text("metric") or _METRICS.get(task, "top1")
    return Judged(
        task=task,
        by="",
        on=tree.text("judged_on") or "",
        metric=metric,
        value=value if metric in UNITS else value * 100,
        n=tree.count("n"),
        chance=None,
    )


def _trials(tree: Tree) -> tuple[Bar, ...]:
    """How good each choice was; the one that was made stands out."""
    values = [(name, each.number("")) for name, each in tree.entries("trials")]
    longest = max((abs(value) for _, value in values if value is not None), default=0.0)
    return tuple(_trial(tree, name, value, longest or 1.0) for name, value in values)


def _trial(tree: Tree, name: str, value: float | None, longest: float) -> Bar:
    made = f"{tree.number('chosen') or 0:g}" == name
    said = f"{name}, chosen" if made else name
    if value is None:
        return Bar(said, "failed", 0.0, "before")
    loss = tree.text("protocol") == "Linear"
    shown = f"{value:.3f}" if loss else _figure(tree, value).shown
    return Bar(said, shown, round(abs(value) / longest * 100, 1), "" if made else "before")


def _sources(tree: Tree) -> tuple[tuple[str, ...], ...]:
    """What images are for, their spec, number and hash."""
    named = (("learned from", "labelled"), ("judged by", "test"))
    return tuple(
        (use, spec, f"{n:,}" if (n := row.count("n")) is not None else "–", short(sha))
        for use, key in named
        for row in (tree.get(f"data.{key}"),)
        for spec, sha in ((row.text("spec"), row.text("sha256")),)
        if spec
    )


def _begun(tree: Tree, beside: Beside) -> Tree:
    """What a stage's run.json says of its parents and cost, and an adaptation's manifest."""
    told = {"parents": "parents", "compute": "compute", "total_compute": "total"}
    found = {name: beside.manifest.get(path).value for name, path in told.items()}
    return Tree({"config": tree.get("config").value, **found})


def _command_line(tree: Tree) -> str:
    config = tree.get("config")
    model = config.text("model")
    if model is None:
        return ""
    rates = config.numbers("protocol.descent.rates")
    texts = {
        "--data": config.text("data"),
        "--task": config.text("task"),
        "--test": config.text("test"),
        "--fraction": config.text("fraction"),
        "--protocol": PROTOCOLS.get(tree.text("protocol") or "", (None,))[0],
        "--steps": config.text("protocol.descent.steps"),
        "--batch-size": config.text("protocol.descent.batch"),
    }
    ends = {
        "--size": config.text("size"),
        "--seed": config.text("seed"),
        "--device": unless(config.text("machine.device"), "auto"),
        "--out": config.text("out"),
    }
    typed = [f"{name} {quote(each)}" for name, each in texts.items() if each]
    typed += [f"--rates {' '.join(f'{rate:g}' for rate in rates)}"] if rates else []
    typed += [f"{name} {quote(each)}" for name, each in ends.items() if each]
    return " ".join(["roadworthy adapt", quote(model), *typed])
