"""What the template needs of a stage of learning, or of linear probes: verdicts, losses, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar

from roadworthy.report import journal, words
from roadworthy.report.charts import whiskers
from roadworthy.report.lessons import (
    PROBE,
    Beside,
    Judged,
    costs,
    judged,
    lineage,
    read_beside,
    sources,
)
from roadworthy.report.origin import Pairs, unless
from roadworthy.report.panels import Figure, Tile
from roadworthy.report.tree import Tree


@dataclass(frozen=True)
class Course:
    """How a stage's learning went: charts out of its log."""

    losses: tuple[Figure, ...]
    parts: tuple[Figure, ...]
    speed: Figure | None


@dataclass(frozen=True)
class StageView:
    """Everything that a stage, or a run of probes, shows; an empty field is left out."""

    template: ClassVar[str] = "stage.html.j2"
    folder: str
    anchor: str
    tree: Tree
    title: str
    subtitle: str
    judged: tuple[Judged, ...]
    sources: tuple[tuple[str, ...], ...]
    lineage: Pairs
    costs: tuple[tuple[str, str, str], ...]
    course: Course
    origins: tuple[tuple[str, Pairs], ...]

    @property
    def stage(self) -> str:
        """Which stage it is; empty for probes."""
        return self.tree.text("stage") or ""

    @property
    def kind(self) -> str:
        """``pass`` where held-out images judged it, else ``none``."""
        return "pass" if self.judged else "none"

    @property
    def first(self) -> str:
        """The verdict in a sentence."""
        if self.tree.text("command") == PROBE:
            best = max(self.judged, key=lambda e: -e.value if e.less else e.value, default=None)
            return f"Best of {len(self.judged)} probed: {best.by}, {_said(best)}." if best else ""
        name = words.capital(self.stage or "stage")
        said = ", ".join(map(_said, self.judged))
        return f"{name}: {said}." if said else f"{name}: no held-out images judged it."

    @property
    def rest(self) -> str:
        """What it learned from."""
        plan, steps = self.tree.get("config.plan"), ""
        if (count := plan.count("steps")) is not None:
            steps = f" in {words.counted(count, 'step')}"
        seen = self.tree.count("compute.images")
        return f"It saw {seen:,} images{steps}." if seen else ""

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The numbers that carry the page."""
        shown = self.judged[:6]
        named = (_tile(each, each.task if self.stage else each.by) for each in shown)
        return (*named, *_spent(self.tree))

    @property
    def charts(self) -> tuple[Figure, ...]:
        """What the probed backbones reach, side by side."""
        return compare([(each.by, each) for each in self.judged]) if not self.stage else ()

    @property
    def command(self) -> str:
        """What to type to get the run again."""
        return command_line(self.tree)


def stage_view(tree: Tree, directory: Path, index: int) -> StageView:
    """All that the report shows of a stage, or of probes, in a directory."""
    beside, log = read_beside(directory), journal.read_log(directory)
    return StageView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        title=_title(tree, beside, directory),
        subtitle=_subtitle(tree),
        judged=judged(tree),
        sources=sources(tree),
        lineage=lineage(tree, beside),
        costs=costs(tree),
        course=Course(journal.losses(log), journal.parts(log), journal.speed(log)),
        origins=origins(tree, "config.plan", "config.machine"),
    )


def compare(rows: Sequence[tuple[str, Judged]]) -> tuple[Figure, ...]:
    """A chart for each metric that two or more have by the same images, named on its left."""
    asked = dict.fromkeys(each.question for _, each in rows)
    groups = [[row for row in rows if row[1].question == one] for one in asked]
    return tuple(_compared(group) for group in groups if len(group) > 1)


def _compared(rows: Sequence[tuple[str, Judged]]) -> Figure:
    one = rows[0][1]
    chart = whiskers([(name, each.value, *each.interval) for name, each in rows])
    images = f", {words.counted(one.n, 'image')}" if one.n else ""
    note = f"{one.better} is better; {one.on}{images}"
    return Figure(chart, note, f"{one.task}, {one.name}", tuple(each.shown for _, each in rows))


def _said(each: Judged) -> str:
    chance = "" if each.chance is None else f" (chance {words.points(each.chance)})"
    return f"{each.name} {each.shown}{chance}"


def _tile(each: Judged, what: str) -> Tile:
    detail = "" if each.chance is None else f"chance {words.points(each.chance)}, "
    return Tile(each.shown, f"{each.name}, {what}", f"{detail}{each.better} is better")


def _spent(tree: Tree) -> list[Tile]:
    own, total = tree.number("compute.macs"), tree.number("total_compute.macs")
    wall, images = tree.number("compute.wall_seconds"), tree.number("compute.images")
    tiles: list[Tile] = []
    if own:
        more = f"{words.macs(total)} with its parents" if total else ""
        tiles.append(Tile(words.macs(own).removesuffix("MACs"), "multiply-accumulates", more))
    if wall and images:
        took = f"{words.duration(wall)} to learn"
        tiles.append(Tile(f"{images / wall:.0f}", "images a second", took))
    return tiles


def _title(tree: Tree, beside: Beside, directory: Path) -> str:
    if tree.text("command") == PROBE:
        return "Linear probes"
    built = beside.config.text("architecture") or tree.text("config.model")
    return (built or directory.resolve().name).partition("@")[0]


def _subtitle(tree: Tree) -> str:
    plan = tree.get("config.plan")
    batch, trained = plan.count("batch"), tree.count("data.train.n")
    size = tree.count("config.sources.size") or tree.count("config.size")
    parts = [
        f"stage {stage}" if (stage := tree.text("stage")) else "",
        f"batches of {words.counted(batch, 'image')}" if batch else "",
        f"{words.counted(trained, 'image')} to learn from" if trained else "",
        f"{size} pixels a side" if size else "",
    ]
    return ", ".join(filter(None, parts))


def command_line(tree: Tree) -> str:
    """What to type to get the run again, of a stage as `roadworthy learn` takes it."""
    verb, config = tree.text("command"), tree.get("config")
    models = config.texts("models" if verb == PROBE else "model")
    if verb is None or not models:
        return ""
    typed = ["roadworthy", verb, *map(quote, models)]
    if verb == PROBE:
        typed += [word for name in ("data", "test") for word in paired(config, name, f"--{name}")]
    else:
        typed += _stage_options(config)
    size = config.count("size") or config.count("sources.size")
    rest = {
        "--fraction": config.text("fraction") if verb == PROBE else None,
        "--size": str(size) if size else None,
        "--seed": tree.text("seed"),
        "--device": unless(config.text("machine.device") or config.text("device"), "auto"),
        "--out": config.text("out"),
    }
    return " ".join([*typed, *(f"{name} {quote(each)}" for name, each in rest.items() if each)])


def _stage_options(config: Tree) -> list[str]:
    experts = config.texts("auxiliaries")
    options = {
        "--with": " ".join(map(quote, experts)),
        "--student": quote(config.text("student") or "") if config.text("student") else "",
        "--hints": " ".join(config.texts("hints")),
        "--loss": config.text("contrast") if config.text("stage") == "amateur" else "",
        "--steps": config.text("plan.steps"),
        "--batch-size": config.text("plan.batch"),
        "--rate": config.text("plan.rate"),
        "--temperature": config.text("plan.temperature"),
        "--precision": config.text("machine.precision"),
        "--strategy": unless(config.text("machine.strategy"), "ddp"),
    }
    pairs = (("learned", "--source"), ("held", "--held"), ("choosing", "--choose"))
    return [
        *(word for key, option in pairs for word in paired(config, f"sources.{key}", option)),
        *(f"{name} {value}" for name, value in options.items() if value),
    ]


def paired(config: Tree, path: str, option: str) -> list[str]:
    """A list of (task, spec), or one such pair, as options."""
    held = config.get(path).value
    rows = held if isinstance(held, list) else []
    pairs = [rows] if rows and isinstance(rows[0], str) else rows
    texts = [Tree({"pair": each}).texts("pair") for each in pairs]
    said = ("=".join(each).removeprefix("captions=") for each in texts if len(each) == 2)
    return [f"{option} {quote(each)}" for each in said]


def origins(tree: Tree, *settings: str) -> tuple[tuple[str, Pairs], ...]:
    """What tells a run from others: the settings at those paths, data, host and versions."""
    seed = [("seed", s)] if (s := tree.text("seed")) else []
    groups = (
        ("Settings", [*(leaf for path in settings for leaf in tree.leaves(path)), *seed]),
        ("Data", [(k, v) for k, v in tree.leaves("data") if k.endswith("sha256")]),
        ("Host", tree.leaves("host")),
        ("Versions", tree.leaves("versions")),
    )
    return tuple((name, tuple(rows)) for name, rows in groups if rows)
