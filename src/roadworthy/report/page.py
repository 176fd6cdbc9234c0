"""run.json files in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput
from roadworthy.report import heat, words
from roadworthy.report.adaptview import ADAPT, adapt_view
from roadworthy.report.benchview import BENCHMARK, bench_view
from roadworthy.report.blame import blame_view
from roadworthy.report.boards import View, boards
from roadworthy.report.charts import whiskers
from roadworthy.report.lessons import PROBE, STAGES
from roadworthy.report.panels import Figure
from roadworthy.report.roadview import road_view
from roadworthy.report.searchview import SEARCH, search_view
from roadworthy.report.stageview import StageView, compare, stage_view
from roadworthy.report.tree import read_run
from roadworthy.report.views import RunView, view


def write_report(dirs: Sequence[Path], out: Path) -> Path:
    """Write one HTML page, with nothing to fetch, from the run.json of each directory.

    Args:
        dirs: directories that `quantize`, `noise`, `evaluate`, `learn`, `adapt`, `benchmark` or
            `demo` wrote; several are compared first, each kind in its own table.
        out: the HTML file, or a directory in which report.html is written.

    Returns:
        The file written.

    Raises:
        BadInput: no directory given, or one holds no readable run.json.
    """
    if not dirs:
        raise BadInput("report needs at least one directory that holds a run.json; none was given")
    views = [read_view(Path(directory), number) for number, directory in enumerate(dirs, start=1)]
    path = out if out.suffix in {".html", ".htm"} else out / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(render(views), encoding="utf-8")
    return path


def read_view(directory: Path, index: int) -> View:
    """What is shown of the run in a directory, by the command that wrote it."""
    tree = read_run(directory)
    match tree.text("command"):
        case "noise":
            return road_view(tree, directory, index)
        case "noise attribute":
            return blame_view(tree, directory, index)
        case command if command == ADAPT:
            return adapt_view(tree, directory, index)
        case command if command == BENCHMARK:
            return bench_view(tree, directory, index)
        case command if command == SEARCH:
            return search_view(tree, directory, index)
        case str() as command if command in STAGES or command == PROBE:
            return stage_view(tree, directory, index)
        case _:
            return view(tree, directory, index)


def render(views: Sequence[View]) -> str:
    """The page of the given runs."""
    several = len(views) > 1
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            views=views,
            title=f"{len(views)} runs" if several else views[0].title,
            boards=boards(views) if several else (),
            stages=_stages([each for each in views if isinstance(each, StageView)]),
            overview=_overview([each for each in views if isinstance(each, RunView)]),
            words=words,
            heat=heat,
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("roadworthy.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _stages(views: Sequence[StageView]) -> tuple[Figure, ...]:
    return compare([(run.folder, each) for run in views if run.stage for each in run.judged])


def _overview(views: Sequence[RunView]) -> Figure | None:
    finals = [(run.facts.folder, run.facts.final) for run in views]
    rows = [(name, s.value, s.low, s.high) for name, s in finals if s is not None]
    if len({run.facts.metric for run in views}) > 1 or len(rows) < 2:
        return None
    shown = tuple(words.measured(value, views[0].facts.key) for _, value, _, _ in rows)
    note = f"{words.capital(views[0].facts.metric)} of what is deployed"
    return Figure(whiskers(rows), note, values=shown)
