"""What stages are worth to tasks that none has seen: the arms of runs/transfer.sh in one table.

    for seed in 0 1 2; do runs/transfer.sh out/small-$seed out/transfer-$seed $seed; done
    python benchmarks/transfer.py out/transfer-0 out/transfer-1 out/transfer-2

A cell is the mean over the folders, a seed each. The errors of an arm stand beside those of
training from scratch on all labels, of the same seed, as shares; their mean is over the four tasks.
Compute is of an arm's backbone with all that it began with, and of a task where weights descend.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from roadworthy.learn.manifest import is_stage, read_manifest
from roadworthy.learn.overview import Row, table

TASKS = ("classification", "detection", "segmentation", "depth")
METRICS = {
    "classification": "CIFAR-10, top-1",
    "detection": "BCCD, AP50",
    "segmentation": "CamVid, mIoU",
    "depth": "7-Scenes, RMSE, m",
}
BASE = "scratch-all"
Values = Mapping[str, Mapping[str, float]]
"""By arm, then by task."""


def arms(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a folder with the name of its arm: the protocol's folder and the backbone."""
    for path in sorted(folder.glob("*/run.json")):
        name = path.parent.name.rpartition("-")[0]
        for row in json.loads(path.read_text())["rows"]:
            body = row["backbone"]
            arm = name if name.startswith("scratch") else f"{name} {called(body)}"
            yield arm, row


def called(body: str) -> str:
    """A stage by its folder's name, others by their own.

    >>> called("out/small-0/depth"), called("timm:resnet18@random"), called("py:a/lite0.py:build")
    ('depth', 'resnet18 random', 'lite0')
    """
    kind, _, name = body.partition(":")
    match kind:
        case "py":
            return Path(name.rpartition(":")[0]).stem
        case "metanet" | "timm":
            return name.replace("@", " ")
        case _:
            return Path(body).name


def upstream(body: str) -> float:
    """TMACs of a backbone with all that it began with."""
    if not is_stage(body):
        return 0.0
    return read_manifest(Path(body))["total"]["macs"] / 1e12


def error(task: str, value: float) -> float:
    """What is to be small."""
    return value if task == "depth" else 1 - value


def shares(values: Values) -> Values:
    """Errors as shares of those of `BASE`."""
    base = values[BASE]
    return {
        arm: {task: error(task, own[task]) / error(task, base[task]) for task in own}
        for arm, own in values.items()
    }


def interval(values: Sequence[float]) -> str:
    """Mean and Student's 95 % interval.

    >>> interval([0.9, 1.0, 1.1])
    '1.000 [0.752, 1.248]'
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def read(folder: Path) -> tuple[Values, Mapping[str, float]]:
    """What every arm of a folder has reached, and its mean TMACs for a task."""
    values: dict[str, dict[str, float]] = {}
    costs: dict[str, list[float]] = {}
    for arm, row in arms(folder):
        values.setdefault(arm, {})[row["task"]] = row["value"]
        own = row["compute"]["macs"] / 1e12
        costs.setdefault(arm, []).append(upstream(row["backbone"]) + own)
    return values, {arm: float(np.mean(each)) for arm, each in costs.items()}


def line(arm: str, seeds: Sequence[tuple[Values, Mapping[str, float]]]) -> Row:
    """The row of an arm."""
    found: Row = {"arm": arm}
    for task in TASKS:
        values = [each[arm][task] for each, _ in seeds]
        spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        found[METRICS[task]] = f"{np.mean(values):.3f}{spread}"
    errors = [[*shares(each)[arm].values()] for each, _ in seeds]
    found["error"] = interval([float(np.mean(each)) for each in errors])
    found["TMACs"] = float(np.mean([costs[arm] for _, costs in seeds]))
    return found


def main() -> None:
    """Print the table."""
    seeds = [read(Path(each)) for each in sys.argv[1:]]
    if not seeds:
        sys.exit(__doc__)
    names = [
        arm for arm in seeds[0][0] if all({*TASKS} <= {*each.get(arm, ())} for each, _ in seeds)
    ]
    print(table([line(arm, seeds) for arm in names]))


if __name__ == "__main__":
    main()
