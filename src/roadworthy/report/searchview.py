"""What the template needs of a search: its best networks, its trials by cost, how it went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar

from roadworthy.report import journal, words
from roadworthy.report.charts import curve, scatter
from roadworthy.report.facts import wilson
from roadworthy.report.lessons import costs
from roadworthy.report.origin import Pairs, unless
from roadworthy.report.panels import Figure, Tile
from roadworthy.report.stageview import origins, paired
from roadworthy.report.tree import Tree

SEARCH = "learn search"
_TRIALS, _SUPERNET = "trials.jsonl", "supernet"
_MILLION = 1e6


@dataclass(frozen=True)
class Network:
    """A network that was judged.

    Args:
        score: in points, with its 95 % interval.
        stages: each in a word or two.
    """

    name: str
    score: float
    low: float | None
    high: float | None
    macs: float | None
    parameters: float | None
    stages: tuple[str, ...]


@dataclass(frozen=True)
class SearchView:
    """Everything that a search shows; an empty field is left out."""

    template: ClassVar[str] = "search.html.j2"
    folder: str
    anchor: str
    tree: Tree
    best: tuple[Network, ...]
    itself: Network | None
    trials: Figure | None
    progress: Figure | None
    losses: tuple[Figure, ...]
    costs: tuple[tuple[str, str, str], ...]
    origins: tuple[tuple[str, Pairs], ...]

    @property
    def model(self) -> str:
        """The network that was searched around."""
        return self.tree.text("config.model") or self.folder

    @property
    def title(self) -> str:
        """What was searched."""
        return f"Search around {self.model}"

    @property
    def subtitle(self) -> str:
        """How it was searched."""
        tree = self.tree
        size, steps = tree.count("config.sources.size"), tree.count("config.plan.steps")
        parts = [
            tree.text("config.method") or "",
            f"networks of at most {words.macs(limit)}" if (limit := tree.number("budget")) else "",
            f"a supernet of {words.counted(steps, 'step')}" if steps else "",
            f"{size} pixels a side" if size else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def kind(self) -> str:
        """``pass`` where a better network than the model itself was found."""
        if not self.best:
            return "none"
        return "warn" if self.itself and self.itself.score >= self.best[0].score else "pass"

    @property
    def first(self) -> str:
        """The verdict in a sentence."""
        if not self.best:
            return f"No network around {self.model} was judged."
        one, own = self.best[0], self.itself
        tried = self.tree.count("evaluations")
        said = f"Best of {words.counted(tried, 'network')}" if tried else "The best network"
        said = f"{said}: top-1 accuracy {words.points(one.score)}"
        if own is None:
            return f"{said}."
        if one.macs is None or not own.macs:
            return f"{said}; {self.model} {words.points(own.score)}."
        share = one.macs / own.macs
        cost = "the same cost" if 0.97 < share < 1.03 else f"{share * 100:.0f} % of the cost"
        return f"{said} at {cost}; {self.model} {words.points(own.score)}."

    @property
    def rest(self) -> str:
        """What the scores are of."""
        n = self.tree.count("data.held.n")
        images = f"{n:,} held-out images" if n else "held-out images"
        return (
            f"Weights are those of the supernet, not trained further. The {images} that "
            "judged also chose, so the best score is better than other images would say."
        )

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The numbers that carry the page."""
        if not self.best:
            return ()
        one, own, tried = self.best[0], self.itself, self.tree.count("evaluations")
        rows: list[tuple[str, words.Show, float | None, float | None]] = [
            ("top-1 accuracy of the best", words.points, one.score, own and own.score),
            ("multiply-accumulates an image", _macs, one.macs, own and own.macs),
            ("parameters", words.millions, one.parameters, own and own.parameters),
        ]
        tiles = [
            Tile(show(value), what, "" if before is None else f"{self.model} {show(before)}")
            for what, show, value, before in rows
            if value is not None
        ]
        if tried is not None:
            of = f"of {count:,}" if (count := self.tree.count("networks")) else ""
            tiles.append(Tile(f"{tried:,}", "networks judged", of))
        return tuple(tiles)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The best, best first, and the model itself."""
        return (*self.best, *((self.itself,) if self.itself else ()))

    @property
    def command(self) -> str:
        """What to type to get the run again."""
        return _command_line(self.tree)


def search_view(tree: Tree, directory: Path, index: int) -> SearchView:
    """All that the report shows of a search in a directory."""
    images = tree.count("data.held.n")
    best = (
        _network(row, f"best {number}", images) for number, row in enumerate(tree.rows("best"), 1)
    )
    own = _network(tree.get("itself"), tree.text("config.model") or "itself", images)
    tried = _tried(journal.read_lines(directory / _TRIALS))
    return SearchView(
        folder=directory.resolve().name,
        anchor=f"run-{index}",
        tree=tree,
        best=tuple(each for each in best if each),
        itself=own,
        trials=_scattered(tried, own, tree.number("budget")),
        progress=_progress(tried),
        losses=journal.losses(journal.read_log(directory / _SUPERNET)),
        costs=costs(tree),
        origins=origins(tree, "config.plan", "config.machine"),
    )


def _network(row: Tree, name: str, images: int | None) -> Network | None:
    score = row.number("score")
    if score is None:
        return None
    low, high = wilson(score, images) or (None, None)
    return Network(
        name=name,
        score=score * 100,
        low=None if low is None else low * 100,
        high=None if high is None else high * 100,
        macs=row.number("macs"),
        parameters=row.number("parameters"),
        stages=tuple(row.texts("stages")),
    )


def _tried(rows: Sequence[Tree]) -> list[tuple[float, float]]:
    """Millions of multiply-accumulates and points of each trial, in order."""
    known = ((row.number("macs"), row.number("score")) for row in rows)
    return [(m / _MILLION, s * 100) for m, s in known if m is not None and s is not None]


def _scattered(
    tried: Sequence[tuple[float, float]], own: Network | None, budget: float | None
) -> Figure | None:
    if len(tried) < 2:
        return None
    best = max(range(len(tried)), key=lambda number: tried[number][1])
    dots = [
        (macs, score, f"trial {number + 1}: {_dot(macs, score)}", "best" if number == best else "")
        for number, (macs, score) in enumerate(tried)
    ]
    dots.sort(key=lambda dot: dot[3])
    if own is not None and own.macs is not None:
        macs = own.macs / _MILLION
        dots.append((macs, own.score, f"{own.name}: {_dot(macs, own.score)}", "itself"))
    limit = max(m for m, _, _, _ in dots) if budget is None else budget / _MILLION
    return Figure(scatter(dots, limit, " M"), "")


def _dot(macs: float, score: float) -> str:
    return f"{words.points(score)} at {macs:.3g} MMACs"


def _progress(tried: Sequence[tuple[float, float]]) -> Figure | None:
    """The score of each trial, and a stair through the best so far."""
    if len(tried) < 2:
        return None
    scores = [score for _, score in tried]
    stair = [(1.0, scores[0])]
    for number, score in enumerate(scores[1:], 2):
        stair.append((float(number), stair[-1][1]))
        if score > stair[-1][1]:
            stair.append((float(number), score))
    dots = [(float(number), score) for number, score in enumerate(scores, 1)]
    return Figure(curve(dots, stair, "trial"), f"{stair[0][1]:.1f} → {stair[-1][1]:.1f}")


def _macs(value: float | None) -> str:
    return words.macs(value).removesuffix("MACs")


def _command_line(tree: Tree) -> str:
    config = tree.get("config")
    model = config.text("model")
    if model is None:
        return ""
    options = {
        "--budget": config.text("budget"),
        "--evaluations": config.text("evaluations"),
        "--method": config.text("method"),
        "--steps": config.text("plan.steps"),
        "--batch-size": config.text("plan.batch"),
        "--rate": config.text("plan.rate"),
        "--size": config.text("sources.size"),
        "--seed": config.text("plan.seed"),
        "--device": unless(config.text("machine.device"), "auto"),
        "--out": config.text("out"),
    }
    data = [
        *paired(config, "sources.learned", "--source"),
        *paired(config, "sources.held", "--held"),
    ]
    typed = [f"{name} {quote(said)}" for name, said in options.items() if said]
    return " ".join(["roadworthy learn search", quote(model), *data, *typed])
