"""The panels of a run that dealt with the outliers of a transformer."""

from dataclasses import dataclass, replace

from roadworthy.report import words
from roadworthy.report.charts import Tick, dumbbells, stems, strips
from roadworthy.report.panels import Figure
from roadworthy.report.tree import Tree


def outliers(tree: Tree) -> Figure | None:
    """How far the largest token of each norm stands out, as trained and as quantized."""
    known = [
        (row, before, after)
        for row in tree.rows("suppression.norms")
        if (before := row.number("before.ratio")) and (after := row.number("after.ratio"))
    ]
    if not known:
        return None
    tips = [
        f"{row.text('norm')}: {_range(row.get('before'))} → {_range(row.get('after'))}"
        for row, _, _ in known
    ]
    worst, ratio, behind = max(known, key=lambda item: item[1])
    channel = worst.count("before.channel")
    carried = ", ".join(worst.get("before").texts("names"))
    note = (
        f"Worst: {worst.text('norm')}, channel {channel}, {words.times(ratio)} the median token"
        + (f" (carried by {carried})" if carried else "")
        + f", {words.times(behind)} as it is quantized."
    )
    return Figure(dumbbells([(before, after) for _, before, after in known], tips), note)


def _range(told: Tree) -> str:
    low, high = told.number("low"), told.number("high")
    return "?" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def clipping(tree: Tree) -> Figure | None:
    """Loss of every ratio that was not given up."""
    rows = [
        (ratio, loss)
        for row in tree.rows("suppression.clipping")
        if (ratio := row.number("ratio")) is not None and (loss := row.number("loss")) is not None
    ]
    if not rows:
        return None
    best = tree.number("suppression.clip_ratio")
    tips = [f"ratio {ratio:g}: {loss:.3g}" for ratio, loss in rows]
    kinds = ["" if ratio == best else "other" for ratio, _ in rows]
    drawn = stems([loss for _, loss in rows], tips, kinds, "")
    named = zip(drawn.marks, rows, strict=True)
    ticks = tuple(Tick(mark.x, f"{ratio:g}") for mark, (ratio, _) in named)
    note = f"Best: {best}; ratios given up as worse than one before are left out."
    return Figure(replace(drawn, x_ticks=ticks), note)


def thresholds(tree: Tree) -> Figure | None:
    """Of every norm the error at each threshold tried, over that where no channel is cut down."""
    known = [found for row in tree.rows("suppression.searched") if (found := _tried(row))]
    if not known:
        return None
    best = min(known, key=lambda found: found.gain)
    cut = f"{best.cut} of {best.channels} channels are" if best.cut != 1 else "one channel is"
    note = (
        f"Most gained: {best.norm}, where {cut} cut down to {best.threshold:.3g}, "
        f"{words.times(best.gain)} the error."
    )
    if best.gain >= 1:
        note = "Nothing gained by cutting: shifts alone are used."
    return Figure(strips([found.dots for found in known]), note)


@dataclass(frozen=True)
class _Tried:
    """One norm's search: dots, the threshold taken, its error over the uncut one, channels cut."""

    norm: str
    dots: list[tuple[float, str, str]]
    threshold: float
    gain: float
    cut: int
    channels: int


def _tried(row: Tree) -> _Tried | None:
    norm = (row.text("gamma") or "").removesuffix(".weight")
    losses = {
        t: loss
        for each in row.rows("losses")
        if (t := each.number("threshold")) is not None and (loss := each.number("loss")) is not None
    }
    taken, scale = row.number("threshold"), row.numbers("scale")
    whole = losses.get(max(losses, default=0.0), 0.0)
    if taken not in losses or whole <= 0:
        return None
    dots: list[tuple[float, str, str]] = []
    for t, loss in losses.items():
        kind = "" if t == taken else "other"
        tip = f"{norm}: threshold {t:.3g}, {words.times(loss / whole)} the error"
        dots.append((loss / whole, tip, kind))
    dots.sort(key=lambda dot: dot[2] != "other")  # the one taken is drawn last, above the others
    return _Tried(norm, dots, taken, losses[taken] / whole, sum(s > 1 for s in scale), len(scale))
