"""What the peers' cells say together: the table, and paired differences between its rows."""

from __future__ import annotations

import itertools
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from roadworthy.core.metrics import paired_bootstrap

Result = dict[str, object]


@dataclass(frozen=True)
class Entry:
    """A finished cell: what ran, what it answered, where its predictions lie."""

    peer: str
    method: str
    column: str
    seed: int
    result: Result
    predictions: Path

    @property
    def row(self) -> str:
        return f"{self.peer} {self.method}"

    @property
    def scored(self) -> bool:
        return "a" in self.result

    def correct(self, truth: dict[str, np.ndarray]) -> torch.Tensor:
        """Right or wrong on each image of test A and then test B [n]."""
        with np.load(self.predictions) as found:
            parts = [found[name] == truth["y" + name] for name in ("a", "b")]
        return torch.from_numpy(np.concatenate(parts))

    def facts(self) -> dict[str, object]:
        return {**asdict(self), "predictions": self.predictions.name}


def mean(entries: list[Entry], name: str) -> float:
    return float(np.mean([entry.result[name] for entry in entries]))


def show(entries: list[Entry]) -> str:
    """One table cell: A/B top-1 and what it cost, the mean over seeds; or the reason."""
    if not entries:
        return "-"
    scored = [entry for entry in entries if entry.scored]
    if not scored:
        return ": ".join(map(str, next(iter(entries[0].result.items()))))
    a, b, wall, cpu, peak = (mean(scored, n) for n in ("a", "b", "wall_s", "cpu_s", "peak_mb"))
    spread = f" ±{np.std([entry.result['a'] for entry in scored]):.1f}" if len(scored) > 1 else ""
    return f"{a:.1f}/{b:.1f}{spread} ({wall:.0f}/{cpu:.0f} s, {peak:.0f} MB)"


def table(entries: list[Entry], columns: list[str]) -> str:
    """Markdown: a row for each tool's method, a column for each pair of bit widths."""
    heads = ["tool, method", *(column.upper() for column in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in dict.fromkeys(entry.row for entry in entries):
        cells = [
            show([e for e in entries if e.row == row and e.column == column]) for column in columns
        ]
        lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def best(entries: list[Entry], truth: dict[str, np.ndarray]) -> Entry | None:
    return max(entries, key=lambda e: float(e.correct(truth).float().mean()), default=None)


def paired(entries: list[Entry], columns: list[str], truth: dict[str, np.ndarray]) -> str:
    """For each column our best row against the peers' best, image by image on A and B together."""
    lines = ["| column | ours | best peer | points, 95 % interval |", "|---|---|---|---|"]
    for column in columns:
        here = [e for e in entries if e.column == column and e.scored and e.seed == 0]
        ours = best([e for e in here if e.peer == "roadworthy"], truth)
        peer = best([e for e in here if e.peer != "roadworthy"], truth)
        if ours is None or peer is None:
            continue
        found = paired_bootstrap(peer.correct(truth), ours.correct(truth), seed=0)
        points = [f"{100 * value:+.2f}" for value in (found.delta, found.low, found.high)]
        interval = f"{points[0]} [{points[1]}, {points[2]}]"
        lines.append(f"| {column.upper()} | {ours.row} | {peer.row} | {interval} |")
    return "\n".join(lines)


def circumstances(entries: list[Entry]) -> str:
    """The processor, and the versions that answered."""
    pairs = itertools.chain.from_iterable(
        (e.result.get("versions") or {}).items() for e in entries if e.peer != "roadworthy"
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(set(pairs)))
    return f"{cpu_name()}, one core, Python {platform.python_version()}; {versions}."


def cpu_name() -> str:
    """The processor's model as Linux names it, elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def summary(entries: list[Entry], columns: list[str], truth: dict[str, np.ndarray]) -> str:
    """Everything that the command prints, as markdown."""
    parts = (table(entries, columns), paired(entries, columns, truth), circumstances(entries))
    return "\n\n".join(parts)
