"""What the stages of a folder have reached, beside what they have cost."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roadworthy.errors import BadInput
from roadworthy.learn.manifest import MANIFEST, read_manifest

Row = dict[str, Any]


def overview(folder: Path) -> list[Row]:
    """A row for each backbone: its metrics by what they were judged on, and its cost.

    Stages are the folders in `folder` that hold a manifest, probes those whose run.json says so.

    Raises:
        BadInput: no such folder, or neither stages nor probes in it.
        BadModel: a stage's files are not those that its manifest names.
    """
    stages = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    rows = {str(each.parent): _stage(each.parent) for each in stages}
    for record in _probes(folder):
        judged = short(record["config"]["test"][1])
        for each in record["probes"]:
            model = each["model"]
            name = str(Path(model)) if Path(model).is_dir() else model
            row = rows.setdefault(name, {"backbone": model})
            row[f"probe of {judged}, {each['metric']}"] = each["value"]
    if not rows:
        raise BadInput(f"{folder} holds no stage and no probe; give what --out of stages lies in")
    return list(rows.values())


def short(spec: str) -> str:
    """The end of a spec's path.

    >>> short("npz:/data/cifar10/test.npz?x=images")
    'cifar10/test.npz'
    """
    kind, _, rest = spec.partition(":")
    parts = Path(rest.partition("?")[0]).parts
    return "/".join(parts[-1:] if kind == "shards" else parts[-2:])


def _stage(folder: Path) -> Row:
    manifest = read_manifest(folder)
    found: Row = {"backbone": folder.name}
    tasks = [(row.get("task"), row["metric"]) for row in manifest["held_out"]]
    for row, task in zip(manifest["held_out"], tasks, strict=True):
        judged = f" of {row['judged_on']}" if tasks.count(task) > 1 else ""
        found[f"{row.get('task', 'captions')}{judged}, {row['metric']}"] = row["value"]
    total = manifest["total"]
    own = manifest["compute"]
    return {**found, "TMACs": own["macs"] / 1e12, "TMACs with parents": total["macs"] / 1e12}


def _probes(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.glob("*/run.json")):
        record = json.loads(path.read_text())
        if record["command"] == "learn probe":
            yield record


def table(rows: list[Row]) -> str:
    """The rows in Markdown; a column for each metric that one of them has.

    >>> print(table([{"backbone": "a", "miou": 0.5}, {"backbone": "b", "TMACs": 1.25}]))
    | backbone | miou | TMACs |
    |---|---|---|
    | a | 0.500 | |
    | b | | 1.25 |
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    costs = [name for name in names if name.startswith("TMACs")]
    names = [name for name in names if name not in costs] + costs
    lines = [_line(names), _line(["---"] * len(names)).replace(" ", "")]
    return "\n".join([*lines, *(_line([_cell(name, row) for name in names]) for row in rows)])


def _cell(name: str, row: Row) -> str:
    value = row.get(name)
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.2f}" if name.startswith("TMACs") else f"{value:.3f}"


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
