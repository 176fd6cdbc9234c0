"""From run.json to the facts a report states: one frozen dataclass per run, no drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from roadworthy.core.alike import Measure, counted, measure_of, shown, things_of
from roadworthy.report.tree import Tree

GATE = 0.995
"""Agreement below which an export is refused."""
METRICS = {
    "top1": "top-1 accuracy",
    "accuracy": "top-1 accuracy",
    "map": "mAP",
    "map50": "mAP50",
    "mask_map": "mask mAP",
    "mask_map50": "mask mAP50",
    "miou": "mean IoU",
    "rmse": "RMSE",
    "pearson": "Pearson correlation",
    "cosine": "cosine to float",
    "f1": "F1 of answers",
    "rougeL": "ROUGE-L",
}

UNITS = {"rmse": " m", "mae": " m", "abs_rel": ""}
"""Metrics that are no fractions, of which less is better."""


@dataclass(frozen=True)
class Score:
    """A metric of one form of the model, in points for fractions, with its 95 % interval."""

    form: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Facts:
    """What one run found. None and empty mean that the run did not record it."""

    folder: str
    tree: Tree
    title: str
    bits: str
    metric: str
    scores: tuple[Score, ...]
    paired: tuple[float, float] | None
    agreement: float | None
    images: int | None
    float_ms: float | None
    quantized_ms: float | None
    float_bytes: float | None
    quantized_bytes: float | None

    @property
    def things(self) -> str:
        """What it was measured on: images or texts."""
        return things(self.tree)

    @property
    def measure(self) -> Measure:
        """What the agreement of file and simulation is."""
        return measure_of(self.tree.text("parity.measure"))

    @property
    def agreed(self) -> str:
        """The agreement in figures."""
        return "–" if self.agreement is None else shown(self.measure, self.agreement)

    @property
    def compared(self) -> str:
        """What file and simulation were compared on: images, texts or tokens."""
        return counted(self.measure, self.things)

    def score(self, form: str) -> Score | None:
        """The score of a form: float, simulated or deployed."""
        return next((score for score in self.scores if score.form == form), None)

    @property
    def final(self) -> Score | None:
        """The score of what was shipped: the deployed file, else the simulation."""
        return self.score("deployed") or self.score("simulated")

    @property
    def change(self) -> float | None:
        """What the metric is above (positive) or below that of the float model."""
        before, after = self.score("float"), self.final
        return None if before is None or after is None else after.value - before.value

    @property
    def lost(self) -> float | None:
        """Points lost against the float model; a point is a centimetre of an error."""
        if self.change is None:
            return None
        return self.change * 100 if self.errs else -self.change

    @property
    def errs(self) -> bool:
        """Whether the metric is an error, of which less is better."""
        return self.key in UNITS

    @property
    def key(self) -> str:
        """The metric as records name it."""
        return metric_key(self.tree)

    @property
    def speedup(self) -> float | None:
        """Float time over quantized time."""
        return _ratio(self.float_ms, self.quantized_ms)

    @property
    def size_ratio(self) -> float | None:
        """Quantized bytes over float bytes."""
        return _ratio(self.quantized_bytes, self.float_bytes)


def read_facts(tree: Tree, directory: Path) -> Facts:
    """The facts of a run.json read by `read_run`."""
    return Facts(
        folder=directory.resolve().name,
        tree=tree,
        title=(tree.first("config.model", "model") or directory.resolve().name).partition("@")[0],
        bits=bits(tree).upper(),
        metric=metric_name(tree),
        scores=_scores(tree),
        paired=_paired(tree),
        agreement=tree.number("parity.agreement"),
        images=tree.count("parity.n"),
        float_ms=tree.number("latency.float_ms"),
        quantized_ms=tree.number("latency.quantized_ms"),
        float_bytes=tree.number("files.float_onnx_bytes"),
        quantized_bytes=tree.number("files.quantized_onnx_bytes"),
    )


def things(tree: Tree) -> str:
    """What the data of a run are."""
    return things_of(tree.text("config.data"))


def metric_key(tree: Tree) -> str:
    """The metric as a run names it."""
    forms = ("float", "simulated", "deployed")
    return tree.first(*(f"{form}.metric" for form in forms), "metric") or "accuracy"


def metric_name(tree: Tree) -> str:
    """The metric in words."""
    key = metric_key(tree)
    return METRICS.get(key, key)


def _scores(tree: Tree) -> tuple[Score, ...]:
    forms = ("float", "simulated", "deployed")
    values = {form: tree.number(f"{form}.value") for form in forms}
    if all(value is None for value in values.values()):
        values = {"measured": tree.number("value")}
    points = points_per_unit(tree)
    counted = "accuracy" in metric_name(tree)
    n = judged(tree) if counted else None
    return tuple(
        _score(form, value, _interval(tree, form), points, n)
        for form, value in values.items()
        if value is not None
    )


def _score(
    form: str, value: float, interval: tuple[float, float] | None, points: float, n: int | None
) -> Score:
    low, high = interval or wilson(value * points / 100, n) or (None, None)
    unit = points if interval else 100.0
    return Score(form, value * points, _times(low, unit), _times(high, unit))


def points_per_unit(tree: Tree) -> float:
    """100 where the metric is a share, 1 where it is in points already or has a unit."""
    if metric_key(tree) in UNITS:
        return 1.0
    paths = ("float.value", "simulated.value", "deployed.value", "value")
    known = [value for path in paths if (value := tree.number(path)) is not None]
    return 100.0 if known and max(map(abs, known)) <= 1 else 1.0


def judged(tree: Tree) -> int | None:
    """How many images the metric was measured on."""
    counts = (tree.count(f"{path}n") for path in ("data.eval.", "data.evaluation.", ""))
    return next((n for n in counts if n), None)


def bits(tree: Tree) -> str:
    """The widths as typed, e.g. w4a8; empty where the run has none."""
    weight, act = (tree.count(f"config.scheme.{kind}_bits") for kind in ("weight", "act"))
    return tree.text("config.bits") or (f"w{weight}a{act}" if weight and act else "")


def _interval(tree: Tree, form: str) -> tuple[float, float] | None:
    own = [tree.number(key) for key in ("ci_low", "ci_high")]
    match tree.numbers(f"{form}.ci") or own:
        case [float(low), float(high)]:
            return low, high
        case _:
            return None


def wilson(share: float, n: int | None) -> tuple[float, float] | None:
    """The 95 % Wilson interval of a share seen in n trials (Wilson, 1927); None without n.

    >>> low, high = wilson(0.9, 1000)
    >>> round(low, 3), round(high, 3)
    (0.88, 0.917)
    """
    if not n or not 0 <= share <= 1:
        return None
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _paired(tree: Tree) -> tuple[float, float] | None:
    low, high = (tree.number(f"change.{end}") for end in ("low", "high"))
    points = points_per_unit(tree)
    return None if low is None or high is None else (low * points, high * points)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ratio(top: float | None, bottom: float | None) -> float | None:
    return top / bottom if top is not None and bottom else None
