"""The panels of a run: what each one shows, or nothing where the run did not record it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roadworthy.core.alike import COUNTED, NAMES, shown
from roadworthy.report import words
from roadworthy.report.charts import Chart, Tick, dumbbells, mirror, stems, whiskers
from roadworthy.report.facts import GATE, Facts, judged
from roadworthy.report.tree import Tree, read_json

FORMS = {"float": "float model", "simulated": "quantized, simulated", "deployed": "deployed file"}
OTHERS = {
    "f1": "F1",
    "matthews": "Matthews' coefficient",
    "spearman": "Spearman correlation",
    "exact_match": "exact match",
}
DOTS = 300


@dataclass(frozen=True)
class Tile:
    """A number that carries the page, what it is, and a detail."""

    number: str
    label: str
    detail: str


@dataclass(frozen=True)
class Bar:
    """A labelled length, in per cent of the longest of its group."""

    label: str
    shown: str
    width: float
    kind: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with the sentence that says what to see in it."""

    chart: Chart
    note: str
    name: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """An image, or a text, with what the models said of it."""

    image: str
    label: str
    said: tuple[str, ...]
    kind: str
    text: str = ""


def tiles(facts: Facts, tree: Tree) -> tuple[Tile, ...]:
    """The numbers that carry the page."""
    final, before = facts.final, facts.score("float")
    tiles: list[Tile] = []
    if final is not None:
        was = words.measured(before.value, facts.key) if before else ""
        detail = f"float {was}, {words.changed(facts.change, facts.key)}" if before else ""
        tiles.append(Tile(words.measured(final.value, facts.key), facts.metric, detail))
        tiles += _beside(tree)
    if facts.agreement is not None:
        n = f", {facts.images} {facts.compared}" if facts.images else ""
        needs = f"needs {shown(facts.measure, GATE)}"
        tiles.append(
            Tile(facts.agreed, f"{NAMES[facts.measure]}, deployed and simulated{n}", needs)
        )
    if facts.speedup is not None:
        both = f"{words.milliseconds(facts.float_ms)} → {words.milliseconds(facts.quantized_ms)}"
        tiles.append(Tile(words.times(facts.speedup), "speed of float", both))
    if facts.size_ratio is not None:
        both = f"{words.size(facts.float_bytes)} → {words.size(facts.quantized_bytes)}"
        tiles.append(Tile(words.times(facts.size_ratio), "size of float", both))
    if tree.number("seconds") is not None:
        memory = tree.number("peak_memory_mb")
        detail = f"peak memory {memory:.0f} MB" if memory is not None else ""
        tiles.append(Tile(words.duration(tree.number("seconds")), "to quantize", detail))
    return tuple(tiles)


def _beside(tree: Tree) -> list[Tile]:
    """GLUE's other metrics of the deployed file."""
    found: list[Tile] = []
    for key, name in OTHERS.items():
        before, after = (tree.number(f"{form}.{key}") for form in ("float", "deployed"))
        if before is not None and after is not None:
            found.append(Tile(f"{after:.3f}", name, f"float {before:.3f}"))
    return found


def accuracy(facts: Facts, tree: Tree) -> Figure | None:
    """The metric of each form of the model with its interval."""
    if not facts.scores:
        return None
    rows = [(FORMS.get(s.form, s.form), s.value, s.low, s.high) for s in facts.scores]
    bounded = any(score.low is not None for score in facts.scores)
    n = judged(tree)
    note = f"{facts.metric[:1].upper()}{facts.metric[1:]}" + (
        f" on {n} {facts.things}" if n else ""
    )
    note += "; the line is the 95 % confidence interval." if bounded else "."
    if facts.change is not None and facts.paired is not None:
        change, low, high = (words.changed(v, facts.key) for v in (facts.change, *facts.paired))
        note += f" Change on the same {facts.things}: {change} ({low} to {high})."
    values = tuple(words.measured(score.value, facts.key) for score in facts.scores)
    return Figure(whiskers(rows), note, values=values)


def layer_error(layers: Sequence[Tree]) -> Figure | None:
    """Weight error of each layer in decibels."""
    known = [(row, v) for row in layers if (v := row.number("weight_sqnr_db")) is not None]
    if not known:
        return None
    bits = [row.count("weight_bits") for row, _ in known]
    usual = Counter(bits).most_common(1)[0][0]
    tips = [
        f"{row.text('name')}: {value:.1f} dB" + (f", {b} bit" if b else "")
        for (row, value), b in zip(known, bits, strict=True)
    ]
    kinds = ["" if b == usual else "other" for b in bits]
    worst = sorted(known, key=lambda item: item[1])[:3]
    named = ", ".join(f"{row.text('name')} ({value:.1f} dB)" for row, value in worst)
    chart = stems([value for _, value in known], tips, kinds, " dB")
    return Figure(chart, f"Lowest: {named}.", f"{usual} bit" if usual else "")


def unit_loss(units: Sequence[Tree]) -> Figure | None:
    """Loss of each unit at the first and the last step."""
    known = [
        (row, first, last)
        for row in units
        if (first := row.number("loss_first")) is not None
        and (last := row.number("loss_last")) is not None
        and first > 0
    ]
    if not known:
        return None
    tips = [f"{row.text('name')}: {first:.3g} → {last:.3g}" for row, first, last in known]
    pairs = [(first, last) for _, first, last in known]
    fell = sorted(1 - last / first for first, last in pairs)[len(pairs) // 2]
    verb = f"fell by {fell * 100:.0f} %" if fell >= 0 else f"rose by {-fell * 100:.0f} %"
    where = "In the middle unit the" if len(pairs) > 1 else "The"
    return Figure(dumbbells(pairs, tips), f"{where} loss {verb}.")


def fine_tuning(judged: Sequence[Tree]) -> Figure | None:
    """Loss on held-out samples at every judgement; the weights of the best one were kept."""
    known = [
        (step, loss, _judgement(row))
        for row in judged
        if (step := row.count("step")) is not None and (loss := row.number("loss")) is not None
    ]
    if len(known) < 2:
        return None
    best = min(known, key=lambda each: each[1])
    said = [f"loss {loss:.3g}, {told}" for _, loss, told in known]
    tips = [f"step {step}: {told}" for (step, _, _), told in zip(known, said, strict=True)]
    kinds = ["" if each is best else "other" for each in known]
    drawn = stems([loss for _, loss, _ in known], tips, kinds, "")
    named = zip(drawn.marks, known, strict=True)
    ticks = tuple(Tick(mark.x, str(step)) for mark, (step, _, _) in named)
    note = f"Before: {said[0]}. Kept: step {best[0]}, {said[known.index(best)]}."
    return Figure(replace(drawn, x_ticks=ticks), note)


def _judgement(row: Tree) -> str:
    cosine = row.number("cosine")
    if cosine is not None:
        return f"cosine to float {cosine:.4f}"
    return f"{words.percent(row.number('right'))} right"


def sensitivity(rows: Sequence[Tree], shown: int = 12) -> tuple[Bar, ...]:
    """The layers that cost most, worst first."""
    found = [(r.text("layer") or "?", kl) for r in rows if (kl := r.number("kl")) is not None]
    kept = sorted(found, key=lambda item: -item[1])[:shown]
    longest = kept[0][1] if kept and kept[0][1] > 0 else 1.0
    return tuple(Bar(name, f"{kl:.2g}", round(max(kl, 0) / longest * 100, 1)) for name, kl in kept)


def histograms(rows: Sequence[Tree], shown: int = 6) -> tuple[Figure, ...]:
    """Weights of a few layers before and after."""
    figures: list[Figure] = []
    for row in rows[:shown]:
        edges, before, after = (
            row.numbers(key) for key in ("edges", "float_counts", "quantized_counts")
        )
        if len(edges) > 2 and len(before) == len(after) == len(edges) - 1:
            note = f"{sum(count > 0 for count in after)} of {len(after)} bins used after"
            figures.append(Figure(mirror(edges, before, after), note, row.text("layer") or ""))
    return tuple(figures)


def pair(before: float | None, after: float | None, show: words.Show) -> tuple[Bar, ...]:
    """Float and quantized, side by side."""
    known = [v for v in (before, after) if v is not None]
    if not known or max(known) <= 0:
        return ()
    forms = (("float", before, "before"), ("quantized", after, ""))
    return tuple(
        Bar(label, show(value), round(value / max(known) * 100, 1), kind)
        for label, value, kind in forms
        if value is not None
    )


def dots(facts: Facts) -> tuple[str, ...]:
    """One entry per dot; `differs` for its share of the images. None where answers are not equal or
    different, but near."""
    if facts.agreement is None or facts.measure not in COUNTED:
        return ()
    count = min(facts.images or DOTS, DOTS)
    share = 1 - facts.agreement
    differing = min(count, max(round(share * count), 1)) if share > 1e-9 else 0
    return ("",) * (count - differing) + ("differs",) * differing


def parity(facts: Facts, tree: Tree) -> tuple[tuple[str, str], ...]:
    """Agreement, logit differences and kernels, named."""
    if facts.agreement is None:
        return ()
    passed = "passed" if facts.agreement >= GATE else "missed"
    gate = f"gate, at least {shown(facts.measure, GATE)}"
    rows = [(NAMES[facts.measure], facts.agreed), (gate, passed)]
    for key, name in (("max_abs", "largest difference"), ("mean_abs", "mean difference")):
        value = tree.number(f"parity.{key}")
        rows += [(name, f"{value:.2g}")] if value is not None else []
    whole, floating, pairs = (tree.count(f"kernels.{k}") for k in ("integer", "float", "pairs"))
    if whole is not None and floating is not None and pairs is not None:
        rows.append(("products in integers", f"{whole} of {whole + floating}"))
        rows.append(("quantizers without a kernel", str(pairs)))
    return tuple(rows)


def samples(directory: Path) -> tuple[Sample, ...]:
    """The images in samples.json beside run.json."""
    path = directory / "samples.json"
    rows = Tree(read_json(path)).rows("samples") if path.is_file() else []
    return tuple(_sample(r) for r in rows if (r.text("image") or "").startswith("data:image/"))


def _sample(row: Tree) -> Sample:
    image, label, before, after = (
        row.text(key) or "" for key in ("image", "label", "float", "deployed")
    )
    if before != after:
        return Sample(image, label, (f"float: {before}", f"deployed: {after}"), "differs")
    return Sample(image, label, ("both right" if after == label else f"both: {after}",), "")
