"""run.json files in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput
from roadworthy.report import words
from roadworthy.report.charts import whiskers
from roadworthy.report.panels import Figure
from roadworthy.report.tree import read_run
from roadworthy.report.views import RunView, setting, view


@dataclass(frozen=True)
class Cell:
    """A cell of the comparison: the words shown and the number it sorts by."""

    shown: str
    order: float | str


COLUMNS = (
    *("Run", "Bits", "Result", "Change", "Float"),
    *("Agreement", "Speed", "Size", "Took", "Method"),
)


def write_report(dirs: Sequence[Path], out: Path) -> Path:
    """Write one HTML page, with nothing to fetch, from the run.json of each directory.

    Args:
        dirs: directories that `quantize`, `evaluate` or `demo` wrote; several are compared first.
        out: the HTML file, or a directory in which report.html is written.

    Returns:
        The file written.

    Raises:
        BadInput: no directory given, or one holds no readable run.json.
    """
    if not dirs:
        raise BadInput("report needs at least one directory that holds a run.json; none was given")
    views = [view(read_run(Path(d)), Path(d), i) for i, d in enumerate(dirs, start=1)]
    path = out if out.suffix in {".html", ".htm"} else out / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(render(views), encoding="utf-8")
    return path


def render(views: Sequence[RunView]) -> str:
    """The page of the given runs."""
    several = len(views) > 1
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            views=views,
            title=f"{len(views)} runs" if several else views[0].facts.title,
            columns=COLUMNS,
            rows=[(run, compare(run)) for run in views] if several else [],
            overview=_overview(views) if several else None,
            words=words,
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


def compare(run: RunView) -> list[Cell]:
    """The run's row of the comparison, in the order of COLUMNS."""
    facts, tree = run.facts, run.facts.tree
    before, final = facts.score("float"), facts.final
    method = setting(tree, "method") or "–"
    seconds = tree.number("seconds")
    return [
        Cell(facts.folder, facts.folder),
        Cell(facts.bits or "–", facts.bits),
        _cell(words.points, final.value if final else None),
        _cell(words.signed, facts.change),
        _cell(words.points, before.value if before else None),
        _cell(words.percent, facts.agreement),
        _cell(words.times, facts.speedup),
        _cell(words.times, facts.size_ratio),
        _cell(words.duration, seconds),
        Cell(method, method),
    ]


def _cell(show: words.Show, value: float | None) -> Cell:
    return Cell(show(value), "" if value is None else value)


def _overview(views: Sequence[RunView]) -> Figure | None:
    finals = [(run.facts.folder, run.facts.final) for run in views]
    rows = [(name, s.value, s.low, s.high) for name, s in finals if s is not None]
    if len({run.facts.metric for run in views}) > 1 or len(rows) < 2:
        return None
    shown = tuple(words.points(value) for _, value, _, _ in rows)
    note = f"{words.capital(views[0].facts.metric)} of what is deployed"
    return Figure(whiskers(rows), note, values=shown)
