"""What the stages of a folder have reached, beside what they have cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roadworthy.core.runs import RunRecord
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.manifest import MANIFEST, read_manifest

Row = dict[str, Any]


def overview(folder: Path) -> list[Row]:
    """A row for each backbone: its metrics by what they were judged on, and its cost.

    Stages are the folders in `folder` that hold a manifest, probes those whose run.json says so.

    Raises:
        BadInput: no such folder, or neither stages nor probes in it.
        BadModel: a stage's files are not those that its manifest names.
        BadData: a run.json that is damaged.
    """
    stages = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    rows = {str(each.parent.resolve()): _stage(each.parent) for each in stages}
    for model, judged, value in _probes(folder):
        name = str(Path(model).resolve()) if Path(model).is_dir() else model
        rows.setdefault(name, {"backbone": model})[judged] = value
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


def _probes(folder: Path) -> Iterator[tuple[str, str, float]]:
    """Model, what it was judged on, and how good it was, of each probe."""
    for path in sorted(folder.glob("*/run.json")):
        record = RunRecord.load(path)
        if record.command == "learn probe":
            yield from _probed(record, path)


def _probed(record: RunRecord, path: Path) -> list[tuple[str, str, float]]:
    try:
        judged = short(record.config["test"][1])
        return [
            (each["model"], f"probe of {judged}, {each['metric']}", each["value"])
            for each in record.numbers["probes"]
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise BadData(
            f"{path} does not say what was probed on what; run learn probe again, or remove it"
        ) from error


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
