"""What the template needs of a benchmark: its tables, the radar plot, what was odd of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar

from roadworthy.report import words
from roadworthy.report.bench import PUBLISHED, DataSet, Measured, read_measured, told
from roadworthy.report.charts import whiskers
from roadworthy.report.origin import Pairs, unless
from roadworthy.report.panels import Figure, Tile
from roadworthy.report.radar import Radar, radar, shown_of
from roadworthy.report.stageview import origins
from roadworthy.report.tree import Tree

BENCHMARK = "benchmark"


@dataclass(frozen=True)
class Cell:
    """A value, its interval in smaller words, and the number it sorts by."""

    shown: str
    small: str = ""
    order: float | str = ""
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """A data set's row; `number` is that of its axis, where axes are numbered."""

    number: str
    title: str
    about: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A task type: a row for each data set, a column for each backbone and published one."""

    task: str
    columns: tuple[str, ...]
    published: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class BenchView:
    """Everything that a benchmark shows; an empty field is left out."""

    template: ClassVar[str] = "bench.html.j2"
    folder: str
    anchor: str
    tree: Tree
    measured: Measured
    radar: Radar | None
    dots: tuple[Figure, ...]
    tables: tuple[Table, ...]
    relative: tuple[tuple[str, tuple[Cell, ...]], ...]
    told: tuple[tuple[str, str], ...]
    runs: tuple[tuple[Cell, ...], ...]
    origins: tuple[tuple[str, Pairs], ...]

    @property
    def title(self) -> str:
        """How much was measured."""
        backbones = words.counted(len(self.measured.backbones), "backbone")
        return f"Benchmark of {backbones} on {words.counted(len(self.measured.sets), 'data set')}"

    @property
    def subtitle(self) -> str:
        """The terms that were the same for all."""
        terms = self.tree.get("config.terms")
        fraction = terms.number("fraction")
        seeds = {each.seeds for one in self.measured.sets for each in one.results if each.seeds}
        parts = [
            terms.text("protocol") or "",
            f"{fraction * 100:.3g} % of the labels" if fraction is not None else "",
            words.counted(max(seeds), "seed") if seeds else "",
            f"{self.size} pixels a side" if self.size else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def size(self) -> str | None:
        """Pixels a side of the images."""
        return self.tree.get("config.terms").text("size")

    @property
    def kind(self) -> str:
        """``pass`` where anything was measured, else ``none``."""
        return "pass" if self.measured.sets else "none"

    @property
    def leader(self) -> str | None:
        """The backbone of the smallest mean relative error."""
        found = {name: self.measured.overall(name) for name in self.measured.backbones}
        known = {name: value for name, value in found.items() if value is not None}
        return min(known, key=lambda name: known[name], default=None)

    @property
    def first(self) -> str:
        """The verdict in a sentence."""
        names, best = self.measured.backbones, self.leader
        if not names:
            return "No data set was measured."
        if len(names) == 1:
            return f"{names[0]}: {_some(self.measured.sets)}."
        if best is None:
            return f"{words.counted(len(names), 'backbone')} measured."
        if best == names[0]:
            return f"No other backbone has a smaller error than {best}."
        error = self.measured.overall(best) or 0.0
        return f"{best} has the smallest error: {error:.2f} times that of {names[0]}."

    @property
    def rest(self) -> str:
        """What the error is a mean of."""
        types = len(self.measured.relative)
        if self.leader is None or len(self.measured.backbones) < 2:
            return ""
        over = f"the mean over {words.counted(types, 'task type')}" if types > 1 else "the mean"
        return f"By {over} of each data set’s error, divided by that of the first backbone."

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The leader's relative error in each task type, where it is not the first backbone."""
        best = self.leader
        if best in {None, *self.measured.backbones[:1]}:
            return ()
        return tuple(
            Tile(f"{row[best]:.2f}×", f"error in {task}", words.counted(len(sets), "data set"))
            for task, row in self.measured.relative
            if best in row and (sets := self.measured.of(task))
        )

    @property
    def command(self) -> str:
        """What to type to get the run again."""
        return _command_line(self.tree)


def bench_view(tree: Tree, directory: Path, index: int) -> BenchView:
    """All that the report shows of a benchmark in a directory."""
    measured = read_measured(tree)
    drawn = radar(measured)
    return BenchView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        measured=measured,
        radar=drawn,
        dots=() if drawn else tuple(_dots(each, measured) for each in measured.sets),
        tables=tuple(_table(task, measured, drawn) for task in measured.tasks),
        relative=_relative(measured),
        told=told(tree),
        runs=tuple(_run(row) for row in tree.rows("rows") if row.number("value") is not None),
        origins=origins(tree, "config.terms.machine"),
    )


def _command_line(tree: Tree) -> str:
    config, terms = tree.get("config"), tree.get("config.terms")
    models, out = config.texts("models"), config.text("out")
    if not models or out is None:
        return ""
    pairs = [Tree({"pair": each}).texts("pair") for each in config.items("pairs")]
    typed = ["roadworthy benchmark", *map(quote, models)]
    typed += [f"--root {quote(root)}"] if (root := config.text("root")) else []
    if names := config.texts("datasets"):
        typed.append(f"--datasets {' '.join(map(quote, names))}")
    for task, data, test in (pair for pair in pairs if len(pair) == 3):
        typed.append(f"--data {quote(f'{task}={data}')} --test {quote(f'{task}={test}')}")
    rates = [f"{rate:g}" for rate in terms.numbers("descent.rates")]
    options = {
        "--fraction": terms.text("fraction"),
        "--protocol": terms.text("protocol"),
        "--steps": terms.text("descent.steps"),
        "--batch-size": terms.text("descent.batch"),
        "--rates": " ".join(rates),
        "--seeds": config.text("seeds"),
        "--size": terms.text("size"),
        "--seed": tree.text("seed"),
        "--device": unless(terms.text("machine.device"), "auto"),
        "--workers": unless(config.text("workers"), "none"),
        "--out": quote(out),
    }
    return " ".join([*typed, *(f"{name} {said}" for name, said in options.items() if said)])


def _some(sets: tuple[DataSet, ...], most: int = 3) -> str:
    """What one backbone reached on the first data sets."""
    said = [f"{each.title} {each.shown(each.results[0].mean)}{each.unit}" for each in sets[:most]]
    return ", ".join([*said, *([f"{len(sets) - most} more"] if len(sets) > most else [])])


def _dots(one: DataSet, measured: Measured) -> Figure:
    """What each backbone reached on a data set, where there are too few for a radar plot."""
    _, beside = shown_of(measured)
    told = {PUBLISHED.format(name): value for name, value in one.published}
    rows = [(each.backbone, each.mean, each.low, each.high) for each in one.results]
    rows += [(name, told[name], None, None) for name in beside if name in told]
    scaled = [
        (words.elided(name), *(None if v is None else v * one.points for v in values))
        for name, *values in rows
    ]
    known = [(name, value, low, high) for name, value, low, high in scaled if value is not None]
    values = tuple(f"{one.shown(value)}{one.unit}" for _, value, _, _ in rows)
    return Figure(whiskers(known), _better(one), f"{one.title}, {one.metric}", values)


def _better(one: DataSet) -> str:
    return f"{'higher' if one.higher else 'lower'} is better"


def _table(task: str, measured: Measured, drawn: Radar | None) -> Table:
    sets = measured.of(task)
    told = tuple(
        name for name in measured.published if any(name in dict(s.published) for s in sets)
    )
    numbers = {(each.name, each.task): str(number) for number, each in enumerate(measured.sets, 1)}
    numbered = drawn is not None and drawn.numbered
    return Table(
        task,
        measured.backbones,
        told,
        tuple(
            Line(
                numbers[one.name, one.task] if numbered else "",
                one.title,
                ", ".join(filter(None, (_metric(one), one.images))),
                (*(_cell(one, name) for name in measured.backbones), *_beside(one, told)),
            )
            for one in sets
        ),
    )


def _metric(one: DataSet) -> str:
    unit = f" in{one.unit}" if one.unit else ""
    return f"{one.metric}{unit} {'↑' if one.higher else '↓'}"


def _cell(one: DataSet, backbone: str) -> Cell:
    found = one.result(backbone)
    if found is None:
        return Cell("–")
    kind = "best" if found.mean == one.best and len(one.results) > 1 else ""
    return Cell(one.shown(found.mean), one.between(found), found.mean * one.points, kind)


def _beside(one: DataSet, names: tuple[str, ...]) -> list[Cell]:
    values = dict(one.published)
    return [
        Cell(one.shown(values[n]), "", values[n] * one.points, "told") if n in values else Cell("–")
        for n in names
    ]


def _relative(measured: Measured) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    """The mean relative error of each task type and backbone, then the mean over the types."""
    if len(measured.backbones) < 2 or not measured.relative:
        return ()
    rows = [
        (words.capital(task), {name: row.get(name) for name in measured.backbones})
        for task, row in measured.relative
    ]
    if len(rows) > 1:
        rows.append(("All task types", {n: measured.overall(n) for n in measured.backbones}))
    return tuple((task, tuple(_ratio(value, row) for value in row.values())) for task, row in rows)


def _ratio(value: float | None, row: dict[str, float | None]) -> Cell:
    if value is None:
        return Cell("–")
    least = min(each for each in row.values() if each is not None)
    return Cell(f"{value:.2f}", "", value, "best" if value == least else "")


def _run(row: Tree) -> tuple[Cell, ...]:
    """One measurement: data set, backbone, seed, value, other metrics and what was chosen."""
    one = DataSet("", "", "", row.text("metric") or "", True, (), (), "")
    value, seed, chosen = row.number("value"), row.count("seed"), row.number("chosen")
    also = [
        f"{key} {each:.4g}"
        for key, part in row.entries("also")
        if (each := part.number("")) is not None
    ]
    return (
        Cell(row.first("title", "dataset") or "–", row.text("metric") or ""),
        Cell(row.text("backbone") or "–"),
        Cell("–" if seed is None else str(seed), "", "" if seed is None else seed),
        Cell(f"{one.shown(value)}{one.unit}", ", ".join(also), "" if value is None else value),
        Cell(
            "–" if chosen is None else f"{chosen:g}",
            row.text("protocol") or "",
            "" if chosen is None else chosen,
        ),
    )
