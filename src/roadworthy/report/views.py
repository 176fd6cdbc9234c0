"""What the template needs of one run: charts, tables and words, ready to be placed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import ClassVar

from roadworthy.report import panels, suppression, words
from roadworthy.report.facts import Facts, bits, read_facts, things
from roadworthy.report.panels import Bar, Figure, Sample, Tile
from roadworthy.report.tree import Tree


@dataclass(frozen=True)
class RunView:
    """Everything that one run shows; an empty field leaves its section out."""

    template: ClassVar[str] = "run.html.j2"
    facts: Facts
    anchor: str
    verdict: str
    verdict_class: str
    subtitle: str
    tiles: tuple[Tile, ...]
    accuracy: Figure | None
    layer_error: Figure | None
    unit_loss: Figure | None
    outliers: Figure | None
    clipping: Figure | None
    thresholds: Figure | None
    fine_tuning: Figure | None
    sensitivity: tuple[Bar, ...]
    histograms: tuple[Figure, ...]
    speed: tuple[Bar, ...]
    sizes: tuple[Bar, ...]
    runtime: str
    dots: tuple[str, ...]
    parity: tuple[tuple[str, str], ...]
    float_ops: tuple[str, ...] | None
    layers: tuple[Tree, ...]
    samples: tuple[Sample, ...]
    command: str
    origins: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.facts.folder

    @property
    def title(self) -> str:
        """The model."""
        return self.facts.title


def view(tree: Tree, directory: Path, index: int) -> RunView:
    """All that the report shows of the run in a directory."""
    facts = read_facts(tree, directory)
    layers = tuple(row for row in tree.rows("layers") if row.text("name"))
    ops = tree.texts("float_ops")
    return RunView(
        facts=facts,
        anchor=f"run-{index}",
        verdict=words.verdict(facts),
        verdict_class=words.verdict_class(facts),
        subtitle=_subtitle(tree),
        tiles=panels.tiles(facts, tree),
        accuracy=panels.accuracy(facts, tree),
        layer_error=panels.layer_error(layers),
        unit_loss=panels.unit_loss(tree.rows("units")),
        outliers=suppression.outliers(tree),
        clipping=suppression.clipping(tree),
        thresholds=suppression.thresholds(tree),
        fine_tuning=panels.fine_tuning(tree.rows("fine_tuning.judged")),
        sensitivity=panels.sensitivity(tree.rows("sensitivity")),
        histograms=panels.histograms(tree.rows("weight_histograms")),
        speed=panels.pair(facts.float_ms, facts.quantized_ms, words.milliseconds),
        sizes=panels.pair(facts.float_bytes, facts.quantized_bytes, words.size),
        runtime=_runtime(tree),
        dots=panels.dots(facts),
        parity=panels.parity(facts, tree),
        float_ops=_counted(ops) if tree.get("float_ops").value is not None else None,
        layers=layers,
        samples=panels.samples(directory),
        command=command_line(tree),
        origins=_origins(tree),
    )


_TYPED = ("calib_size", "preprocess", "batch_size")


def setting(tree: Tree, key: str) -> str | None:
    """A setting of the run, wherever its configuration keeps it."""
    return tree.first(f"config.{key}", f"config.solver.{key}", f"config.scheme.{key}")


def command_line(tree: Tree) -> str:
    """What to type to get the run again: as recorded, or put together from its settings."""
    recorded = " ".join(tree.texts("command"))
    model = tree.text("config.model")
    if " " in recorded or not recorded or not model:
        return recorded
    data = tree.first("config.data.calibration", "config.data")
    options = {
        "--data": data,
        "--eval": tree.first("config.data.evaluation", "config.eval", "config.evaluation"),
        "--bits": bits(tree) or None,
        **{f"--{key}": setting(tree, key) for key in ("method", "effort", "backend", "max_drop")},
        "--iterations": None if setting(tree, "effort") else _steps(tree),
        "--keep-8bit": ",".join(tree.texts("config.keep_8bit")),
        "--blocks": ",".join(tree.texts("config.blocks")),
        **{f"--{key}": tree.text(f"config.options.{key}") for key in _TYPED},
        "--tries": tree.text("config.settings.tries"),
        "--seed": tree.text("seed"),
        "--out": tree.first("config.out", "config.options.out"),
    }
    said = ["roadworthy", recorded, quote(model)]
    if tree.get("fine_tuning.settings").value:
        said, options = ["python recipes/qat_text.py --model", quote(model)], _tuned(tree, options)
    typed = [f"{name.replace('_', '-')} {quote(value)}" for name, value in options.items() if value]
    return " ".join([*said, *typed, *_flags(tree)])


def _flags(tree: Tree) -> list[str]:
    """Options without a value."""
    there = {
        "--calib-noise": tree.get("config.calib_noise").value,
        "--skip-bad": tree.get("config.options.skip_bad").value,
    }
    return [name for name, value in there.items() if value]


def _tuned(tree: Tree, options: dict[str, str | None]) -> dict[str, str | None]:
    """Of the options of a quantization those that fine-tuning knows, and its own."""
    shared = {f"--{name}" for name in ("data", "eval", "bits", "method", "seed", "out")}
    told = {
        f"--{name}": tree.text(f"fine_tuning.settings.{name}")
        for name in ("steps", "batch_size", "weight_lr", "distil")
    }
    return {
        **{name: value for name, value in options.items() if name in shared},
        "--keep-8bit": options["--keep-8bit"] or "none",
        "--alpha": tree.text("config.settings.suppress.alpha"),
        **told,
    }


def _steps(tree: Tree) -> str | None:
    steps = tree.numbers("config.iterations")
    return f"{steps[0]:.0f}" if steps else setting(tree, "iterations")


def _subtitle(tree: Tree) -> str:
    parts = [part for key in ("method", "effort", "backend") if (part := setting(tree, key))]
    if steps := tree.count("fine_tuning.settings.steps"):
        parts.append(f"fine-tuned {steps} steps")
    n = tree.count("data.calibration.n")
    return ", ".join([*parts, f"{n} calibration {things(tree)}"] if n else parts)


def _runtime(tree: Tree) -> str:
    name, threads = (
        tree.first(f"latency.settings.{k}", f"latency.{k}") for k in ("runtime", "threads")
    )
    parts = [part for part in (name, f"{threads} threads" if threads else None) if part]
    return ", ".join(parts)


_OP = re.compile(r"(?:aten\.)?(?P<name>\w+?)(?:\.\w+)?(?: x(?P<n>\d{1,9}))?")
"""An operator as records name it, ``add.Tensor x32``: which of its overloads ran says little."""


def _counted(ops: Sequence[str]) -> tuple[str, ...]:
    """Operators with how often they occur, the most frequent first.

    >>> _counted(["to.device x1", "add.Tensor x3", "to.dtype x1", "aten.__and__.Tensor"])
    ('add ×3', 'to ×2', 'and')
    """
    found = Counter[str]()
    for op in ops:
        known = _OP.fullmatch(op)
        found[known["name"].strip("_") if known else op] += int(known["n"] or 1) if known else 1
    return tuple(f"{op} ×{n}" if n > 1 else op for op, n in found.most_common())


def _origins(tree: Tree) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    seed = [("seed", s)] if (s := tree.text("seed")) else []
    settings = [
        (key, value)
        for key, value in tree.leaves("config")
        if not key.startswith("settings.") and value != "[]"
    ]
    groups = (
        ("Settings", [*settings, *seed]),
        ("Data", tree.leaves("data")),
        ("Host", tree.leaves("host")),
        ("Versions", tree.leaves("versions")),
        ("Runtime", tree.leaves("latency.settings")),
        ("Files", [*tree.leaves("files"), *tree.leaves("onnx")]),
        ("Method", tree.leaves("config.settings")),
    )
    return tuple((name, tuple(rows)) for name, rows in groups if rows)
