"""The panels of a run that dealt with the outliers of a transformer."""

from dataclasses import replace

from roadworthy.report import words
from roadworthy.report.charts import Tick, dumbbells, stems
from roadworthy.report.panels import Figure
from roadworthy.report.tree import Tree


def outliers(tree: Tree) -> Figure | None:
    """How far the largest token of each norm stands out, before and behind migration."""
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
        + f", {words.times(behind)} behind migration."
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
