"""What `roadworthy benchmark` says on a terminal."""

from collections.abc import Callable
from typing import Any

from roadworthy.learn.overview import table

Row = dict[str, Any]


def say(result: Row) -> str:
    """The data sets, what was downloaded, or how good the backbones are."""
    if "datasets" in result:
        return _listing(result)
    if "table" not in result:
        terms = f"{result['licence']}; see {result['home']}"
        return f"written    {result['folder']}\nlicence    {terms}"
    return _verdict(result)


def _listing(result: Row) -> str:
    rows = [_data_set(each) for each in result["datasets"]]
    there = sum(each["there"] for each in result["datasets"])
    return f"{table(rows)}\n{there} of {len(rows)} are in {result['root']}"


def _data_set(row: dict[str, Any]) -> dict[str, Any]:
    better = "higher" if row["higher_is_better"] else "lower"
    state = "yes" if row["there"] else f"no, {'--download' if row['download'] else 'by hand'}"
    return {
        "name": row["name"],
        "data set": row["title"],
        "task": row["task"],
        "classes": row["classes"] or None,
        "train": row["train"],
        "test": row["test"],
        "metric": f"{row['metric']}, {better}",
        "licence": row["licence"],
        "files": row["folder"],
        "there": state,
    }


def _verdict(result: Row) -> str:
    """A table for each task: data sets down, backbones across."""
    tasks = dict.fromkeys(row["task"] for row in result["table"])
    parts = [f"{task}\n{table(_of_task(result, task))}" for task in tasks]
    told = dict.fromkeys(
        f"told       {row['title']}: {line}" for row in result["rows"] for line in row["told"]
    )
    return "\n\n".join([*parts, "\n".join([*told, f"written    {result['out']}"])])


def _of_task(result: Row, task: str) -> list[Row]:
    rows: dict[str, Row] = {}
    for row in result["table"]:
        if row["task"] != task:
            continue
        name, show = row["dataset"], _shown_as(row["metric"])
        metric = f"{row['metric']}, {'higher' if row['higher'] else 'lower'}"
        into = rows.setdefault(name, {"data set": row["title"], "metric": metric})
        into[row["backbone"]] = _around(row["mean"], row, show)
        known = result["published"].get(name)
        if known:
            best = (max if row["higher"] else min)(known, key=lambda each: known[each])
            into["best published"] = f"{show(known[best])} ({best})"
    errors = [row for row in result["types"] if row["task"] == task and row["relative"] is not None]
    shares = {row["backbone"]: _around(row["relative"], row, "{:.3f}".format) for row in errors}
    return [*rows.values(), {"data set": "relative error", **shares}]


def _shown_as(metric: str) -> Callable[[float], str]:
    """Metres, or percent without the sign."""
    return (
        (lambda value: f"{value:.3f} m")
        if metric == "RMSE"
        else (lambda value: f"{100 * value:.1f}")
    )


def _around(middle: float, row: Row, show: Callable[[float], str]) -> str:
    span = "" if row["low"] in (None, middle) else f" [{show(row['low'])}, {show(row['high'])}]"
    return f"{show(middle)}{span}"
