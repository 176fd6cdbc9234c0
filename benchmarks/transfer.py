"""What stages are worth to tasks that none has seen: the arms of runs/transfer.sh in one table.

    for seed in 0 1 2; do runs/transfer.sh out/small-$seed out/transfer-$seed $seed; done
    python benchmarks/transfer.py out/transfer-0 out/transfer-1 out/transfer-2
    python benchmarks/transfer.py out/transfer-0 --record benchmarks/transfer/seed-0.json
    python benchmarks/transfer.py benchmarks/transfer/*.json --beside "frozen distilled"

A seed takes an hour and a half of CPU time, so that what it gave is kept: a recorded file stands
for its folder, and is told of arms that were run later by the same call.

A cell is the mean over the folders, a seed each, in which an arm has all four tasks. The errors of
an arm stand beside those of training from scratch on all labels, of the same seed, as shares; their
mean is over the four tasks. Intervals are Student's, 95 %; with `--beside`, of paired differences.
Compute is of an arm's backbone with all that it began with, and of a task where weights descend.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paired import interval, signed

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


Seed = dict[str, Any]
"""Of one folder: ``values`` by arm and task, ``costs`` in TMACs by arm, ``versions``, ``host``."""


def read(path: Path) -> Seed:
    """What every arm of a folder has reached and cost for a task, or what was recorded of it."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    values: dict[str, dict[str, float]] = {}
    costs: dict[str, list[float]] = {}
    for arm, row in arms(path):
        values.setdefault(arm, {})[row["task"]] = row["value"]
        own = row["compute"]["macs"] / 1e12
        costs.setdefault(arm, []).append(upstream(row["backbone"]) + own)
    run = json.loads(next(path.glob("*/run.json")).read_text())
    means = {arm: float(np.mean(each)) for arm, each in costs.items()}
    return {"values": values, "costs": means, "versions": run["versions"], "host": run["host"]}


def line(arm: str, seeds: Sequence[Seed], beside: str = "") -> Row:
    """The row of an arm, of seeds that have it, and how far its error is from another arm's."""
    found: Row = {"arm": arm, "seeds": str(len(seeds))}
    for task in TASKS:
        values = [each["values"][arm][task] for each in seeds]
        spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        found[METRICS[task]] = f"{np.mean(values):.3f}{spread}"
    found["error"] = interval([mean_error(arm, each) for each in seeds], "{:.3f}".format)
    if beside and beside != arm:
        both = [mean_error(arm, e) - mean_error(beside, e) for e in seeds if whole(beside, e)]
        found[f"minus {beside}"] = interval(both, signed)
    found["TMACs"] = float(np.mean([each["costs"][arm] for each in seeds]))
    return found


def mean_error(arm: str, seed: Seed) -> float:
    """The mean over the tasks of an arm's errors as shares of those of `BASE`."""
    return float(np.mean([*shares(seed["values"])[arm].values()]))


def main() -> None:
    """Print the table, or record a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR_OR_FILE")
    parser.add_argument("--record", type=Path, metavar="FILE", help="of one folder")
    parser.add_argument("--beside", default="", metavar="ARM", help="what others are set against")
    given = parser.parse_args()
    seeds = [read(each) for each in given.dirs]
    if given.record is not None:
        (only,) = seeds
        record(only, given.record)
        return
    if not all(whole(BASE, each) for each in seeds):
        sys.exit(f"transfer: the errors of {BASE} of all four tasks are needed in each folder")
    rows = {arm: [e for e in seeds if whole(arm, e)] for each in seeds for arm in each["values"]}
    print(table([line(arm, own, given.beside) for arm, own in rows.items() if own]))


def whole(arm: str, seed: Seed) -> bool:
    """Whether a seed has an arm's values of all tasks."""
    return {*TASKS} <= {*seed["values"].get(arm, ())}


def record(seed: Seed, path: Path) -> None:
    """Write what a folder has given, beside what was recorded of other arms before."""
    held = read(path) if path.exists() else {"values": {}, "costs": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("values", "costs"):
        seed[name] = held[name] | seed[name]
    path.write_text(json.dumps(seed, indent=1) + "\n")


if __name__ == "__main__":
    main()
