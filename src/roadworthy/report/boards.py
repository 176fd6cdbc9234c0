"""The tables that come first where a page holds several runs: one for each kind of run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from roadworthy.report import words
from roadworthy.report.adaptview import AdaptView
from roadworthy.report.benchview import BenchView
from roadworthy.report.blame import BlameView, best
from roadworthy.report.lessons import Judged
from roadworthy.report.road import mean_and_worst, read_loss, stages_of
from roadworthy.report.roadview import RoadView, trained
from roadworthy.report.searchview import SearchView
from roadworthy.report.stageview import StageView
from roadworthy.report.views import RunView, setting

View = RunView | RoadView | BlameView | StageView | AdaptView | SearchView | BenchView


@dataclass(frozen=True)
class Cell:
    """A cell: the words shown, the number it sorts by, and smaller words below."""

    shown: str
    order: float | str
    small: str = ""


@dataclass(frozen=True)
class Board:
    """A sortable table; the first cell of a row leads to its run. `words` columns are text."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[View, tuple[Cell, ...]], ...]
    words: frozenset[str] = frozenset(
        {"Run", "Bits", "Method", "Model", "Largest share", "Mend", "Stage", "Backbone", "Task"}
    )


COLUMNS = (
    *("Run", "Bits", "Result", "Change", "Float"),
    *("Agreement", "Speed", "Size", "Took", "Method"),
)


def boards(views: Sequence[View]) -> tuple[Board, ...]:
    """The tables of the kinds that occur."""
    runs = [view for view in views if isinstance(view, RunView)]
    roads = [view for view in views if isinstance(view, RoadView)]
    blames = [view for view in views if isinstance(view, BlameView)]
    stages = [view for view in views if isinstance(view, StageView) and view.stage]
    adapted = [view for view in views if isinstance(view, AdaptView)]
    found = (
        [Board("", "", COLUMNS, tuple((run, _run(run, views)) for run in runs))] if runs else [],
        [_leaderboard(roads)] if roads else [],
        [_blames(blames)] if blames else [],
        [_stages(stages)] if stages else [],
        [_adapted(adapted)] if adapted else [],
    )
    return tuple(board for each in found for board in each)


def compare(run: RunView) -> tuple[Cell, ...]:
    """The run's row of the comparison, in the order of COLUMNS."""
    facts, tree = run.facts, run.facts.tree
    before, final = facts.score("float"), facts.final
    method = setting(tree, "method") or "–"
    seconds = tree.number("seconds")
    return (
        Cell(facts.folder, facts.folder),
        Cell(facts.bits or "–", facts.bits),
        _cell(partial(words.measured, metric=facts.key), final.value if final else None),
        _cell(partial(words.changed, metric=facts.key), facts.change),
        _cell(partial(words.measured, metric=facts.key), before.value if before else None),
        _cell(lambda _: facts.agreed, facts.agreement),
        _cell(words.times, facts.speedup),
        _cell(words.times, facts.size_ratio),
        _cell(words.duration, seconds),
        Cell(method, method),
    )


def _run(run: RunView, views: Sequence[View]) -> tuple[Cell, ...]:
    first, *others = compare(run)
    several = len({view.title for view in views}) > 1
    return (Cell(first.shown, first.order, run.title if several else ""), *others)


def _leaderboard(roads: Sequence[RoadView]) -> Board:
    stages = stages_of([row for road in roads for row in road.rows])
    metrics = {road.tree.text("metric") or "" for road in roads}
    lines = [
        (road, (*_model(road, len(metrics) > 1), *(_stage(road, s) for s in stages), _worst(road)))
        for road in roads
    ]
    names = ("Network" if stage == "model" else words.capital(stage) for stage in stages)
    columns = ("Model", "As trained", *names, "Combined")
    note = (
        "Points that each stage loses: the mean over its different options, and below it the "
        "worst. Combined: the worst of every stage together."
    )
    return Board("Road tests", note, columns, tuple(lines))


def _model(road: RoadView, several: bool) -> tuple[Cell, Cell]:
    value = road.tree.number("value")
    metric = road.tree.text("metric") or ""
    order = "" if value is None else value
    return (
        Cell(road.title, road.title, road.folder),
        Cell(trained(road.tree), order, metric if several else ""),
    )


def _stage(road: RoadView, stage: str) -> Cell:
    found = mean_and_worst(road.rows, stage)
    if found is None:
        return Cell("–", "")
    return Cell(words.fine(found[0]), found[0], words.fine(found[1]))


def _worst(road: RoadView) -> Cell:
    rungs = [loss for row in road.tree.rows("ladder") if (loss := read_loss(row.get("loss")))]
    if not rungs:
        return Cell("–", "")
    interval = words.between(rungs[-1]).strip(" ()")
    return Cell(words.fine(rungs[-1].value), rungs[-1].value, interval)


def _blames(blames: Sequence[BlameView]) -> Board:
    columns = ("Run", "Points lost", "Largest share", "Mend", "Buys back")
    note = "What a deployment loses, which stage is to blame, and which one to mend first."
    return Board("Attributions", note, columns, tuple((run, _blame(run)) for run in blames))


def _blame(run: BlameView) -> tuple[Cell, ...]:
    worst, mend = run.shares[0] if run.shares else None, best(run)
    gain = mend.bought_back if mend else None
    return (
        Cell(run.folder, run.folder, run.title),
        _cell(words.fine, run.total.value if run.total else None),
        Cell(f"{worst.stage} {words.fine(worst.loss.value)}", worst.stage)
        if worst
        else Cell("–", ""),
        Cell(mend.stage if mend else "–", mend.stage if mend else ""),
        _cell(words.fine, gain.value if gain else None),
    )


def _stages(stages: Sequence[StageView]) -> Board:
    asked = {each.question[:3]: each for run in stages for each in run.judged}
    lines = [
        (run, (_stage_name(run), *(_value(run, one) for one in asked), *_costs(run)))
        for run in stages
    ]
    columns = ("Stage", *map(_column, asked.values()), "MACs", "CPU time")
    note = "Metrics of held-out images, ↑ more or ↓ less is better; cost, with parents below."
    return Board("Stages", note, columns, tuple(lines))


def _column(each: Judged) -> str:
    name = each.name.removeprefix("image to text ")
    return f"{name if name[1:2].isupper() else words.capital(name)} {'↓' if each.less else '↑'}"


def _stage_name(run: StageView) -> Cell:
    parents = [Path(name).name for row in run.tree.rows("parents") if (name := row.text("folder"))]
    begun = parents[0] if len(parents) == 1 else words.counted(len(parents), "stage")
    return Cell(run.folder, run.folder, f"{run.stage}, from {begun}" if parents else run.stage)


def _value(run: StageView, asked: tuple[str, str, str]) -> Cell:
    found = next((each for each in run.judged if each.question[:3] == asked), None)
    return Cell("–", "") if found is None else Cell(found.shown, found.value)


def _costs(run: StageView) -> tuple[Cell, Cell]:
    macs, cpu = (_cost(run, *each) for each in (("macs", _macs), ("cpu_seconds", words.duration)))
    return macs, cpu


def _cost(run: StageView, key: str, show: words.Show) -> Cell:
    own, total = (run.tree.number(f"{part}.{key}") for part in ("compute", "total_compute"))
    return Cell(show(own), "" if own is None else own, "" if total is None else show(total))


def _macs(value: float | None) -> str:
    return words.macs(value).removesuffix("MACs")


def _adapted(runs: Sequence[AdaptView]) -> Board:
    columns = ("Backbone", "Task", "Method", "Labelled images", "Metric", "Chosen")
    note = "What each adapted model reached on its test images, with the 95 % interval of a share."
    lines = [
        (run, (_backbone(run), *map(_text, (run.task, run.how)), *_found(run))) for run in runs
    ]
    return Board("Adapted models", note, columns, tuple(lines))


def _backbone(run: AdaptView) -> Cell:
    return Cell(run.model, run.model, run.folder)


def _text(said: str) -> Cell:
    return Cell(said or "–", said)


def _found(run: AdaptView) -> tuple[Cell, Cell, Cell]:
    one, chosen, n = run.judged, run.tree.number("chosen"), run.tree.count("data.labelled.n")
    low, high = one.interval if one else (None, None)
    span = "" if low is None or high is None else f", {low:.1f}–{high:.1f}"
    return (
        _cell(lambda n: f"{n:,.0f}", n),
        Cell(one.shown, one.value, f"{one.name}{span}") if one else Cell("–", ""),
        Cell("–", "") if chosen is None else Cell(f"{chosen:g}", chosen, run.choice),
    )


def _cell(show: words.Show, value: float | None) -> Cell:
    return Cell("–" if value is None else show(value), "" if value is None else value)
