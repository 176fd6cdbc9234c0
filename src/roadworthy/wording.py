"""A command's result in a few lines for a person; `--json` has all of it."""

from collections.abc import Callable
from typing import Any, get_args

from roadworthy.core.alike import alike, measure_of, things_of
from roadworthy.requests import CHOICES, ImageStage, StageName, TextStage

_STEADY = 2
"""The slowest tenth of runs over the fastest beyond which a median says little."""


def say(command: str, result: Any) -> str:
    """Lines to print; none for the demo, which shows its own table.

    >>> say("report", {"report": "out/report.html"})
    'written    out/report.html'
    """
    match command:
        case "evaluate":
            return _evaluation(result)
        case "noise":
            return _noise(result)
        case "noise attribute":
            return _attribution(result)
        case "noise identify":
            return _matches(result)
        case "blocks":
            return _blocks(result)
        case "report":
            return f"written    {result['report']}"
        case "demo":
            return ""
        case "benchmark":
            from roadworthy import wording_benchmark

            return wording_benchmark.say(result)
        case "adapt":
            return _adapted(result)
        case "learn probe":
            return "\n".join(map(_probed, result["probes"]))
        case "learn classifier":
            return f"written    {result['spec']}\nclasses    {', '.join(result['classes'])}"
        case "learn catalog add":
            return ", ".join(f"{name} {each}" for name, each in result.items())
        case "learn catalog sql":
            return _table(result["columns"], result["rows"])
        case "learn catalog show":
            return _catalog(result)
        case "learn search":
            return _search(result)
        case "learn show":
            from roadworthy.learn.overview import table

            return table(result["rows"])
        case _ if "held_out" in result:
            return _stage(result)
        case _:
            return _run(result)


def _evaluation(result: dict[str, Any]) -> str:
    show = _show(result["metric"])
    span = f"95 % interval {show(result['ci_low'])} to {show(result['ci_high'])}"
    skipped = f", {result['skipped']} unreadable left out" if result["skipped"] else ""
    things = things_of(result.get("data"))
    line = f"{result['metric']}  {show(result['value'])} of {result['n']} {things}"
    also = "".join(f"; {name} {value:.4f}" for name, value in result.get("also", {}).items())
    return f"{line} ({span}{skipped}){also}"


def _stage(result: dict[str, Any]) -> str:
    cost = result["compute"]
    lines = [
        f"{row.get('task', 'captions')} of {row['judged_on']}  {_held(row)}"
        for row in result["held_out"]
    ]
    spent = f"cost       {cost['images']} images, {cost['macs'] / 1e12:.2f} TMACs, "
    spent += f"{cost['cpu_seconds']:.0f} CPU seconds"
    return "\n".join([*lines, spent, _written(result)])


def _search(result: dict[str, Any]) -> str:
    own = [("best", row) for row in result["best"]] + [("itself", result["itself"])]
    columns = ["", "held-out", "MACs", "parameters", "stages"]
    rows = [
        [
            name,
            _percent(row["score"]),
            f"{row['macs'] / 1e6:.2f} M",
            f"{row['parameters'] / 1e6:.2f} M",
            "; ".join(row["stages"]),
        ]
        for name, row in own
    ]
    head = f"{result['evaluations']} networks of at most {result['budget'] / 1e6:.2f} M MACs"
    return "\n".join([head, _table(columns, rows), _written(result)])


def _catalog(result: dict[str, Any]) -> str:
    rows = result["sources"]
    columns = list(rows[0]) if rows else []
    lines = [_table(columns, [list(row.values()) for row in rows])]
    lines += [f"disagree   {each}" for each in result["disagreements"]]
    return "\n".join(lines)


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    """Cells in columns, parted by two blanks.

    >>> _table(["a", "bb"], [["xyz", 1]])
    'a    bb\\nxyz  1'
    """
    lines = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in lines]
    return "\n".join(line.rstrip() for line in padded)


def _adapted(result: dict[str, Any]) -> str:
    tried = ", ".join(
        f"{choice} {'failed' if value is None else f'{value:.3f}'}"
        for choice, value in result["trials"].items()
    )
    what = CHOICES.get(result["protocol"], "learning rate")
    by = "loss" if result["protocol"] == "Linear" else "metric"
    choice = f"chosen     {what} {result['chosen']:g} by held-out {by} of {tried}"
    lines = [choice] if tried else []
    if "metric" in result:
        lines.insert(0, f"{result['task']} of {result['judged_on']}  {_held(result)}")
        lines += [f"warning    {each}" for each in result["warnings"]]
        if result["untested"]:
            lines.append(f"untested   {', '.join(result['untested'])}")
    return "\n".join([*lines, f"model      {result['spec']}", _written(result)])


def _probed(row: dict[str, Any]) -> str:
    return f"{row['model']}  {_held(row)}, {row['trained_on']} to learn from"


def _held(row: dict[str, Any]) -> str:
    chance = f" (chance {_percent(row['chance'])})" if "chance" in row else ""
    return f"{row['metric']} {_show(row['metric'])(row['value'])}{chance} of {row['n']} images"


def _show(metric: str | None) -> Callable[[float], str]:
    """How values of a metric are written."""
    match metric:
        case "rmse":
            return _metres
        case "pearson" | "cosine":
            return "{:.4f}".format
        case _:
            return _percent


def _noise(result: dict[str, Any]) -> str:
    if "runs" in result:
        each = [f"{run['config']['model']}\n{_noise(run)}\n" for run in result["runs"]]
        return "\n".join([*each, f"written    {result['out']}/report.html"])
    rows = [row for row in result["rows"] if row["delta"] is not None]
    width = max(len(f"{row['stage']} {row['option']}") for row in rows) if rows else 0
    lines = [
        f"{row['stage'] + ' ' + row['option']:<{width}}  {_points(row['delta']):>6} "
        f"({_points(row['ci_low'])} to {_points(row['ci_high'])})  "
        f"flips {100 * row['flip_rate']:.1f} %"
        + (f"  same as {row['class']}" if row["class"] != row["option"] else "")
        for row in rows
    ]
    lacking = [f"{row['stage']} {row['option']}: {row['missing']}" for row in result["rows"]]
    missing = [line for line, row in zip(lacking, result["rows"], strict=True) if row["missing"]]
    things = result.get("things", "images")
    head = f"{result['metric']}  {result['value']:.4f} of {result['n']} {things}; points lost:"
    still = _unchanged(result)
    none = [f"nothing to change in {', '.join(still)}"] if still else []
    return "\n".join([head, *lines, *missing, *none, "", result["advice"]])


def _points(value: float) -> str:
    """With two decimals, and no minus before nothing.

    >>> _points(-0.001), _points(-0.02)
    ('0.00', '-0.02')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def _unchanged(result: dict[str, Any]) -> list[str]:
    """Stages that were asked for, by name or all at once, and have no option for this model."""
    asked, found = result["config"]["stages"], {row["stage"] for row in result["rows"]}
    others = get_args(ImageStage if result.get("things") == "texts" else TextStage)
    named = len(asked) < len(get_args(StageName))
    return [stage for stage in asked if stage not in found and (named or stage not in others)]


def _attribution(result: dict[str, Any]) -> str:
    total = result["total"]
    lines = [f"lost  {total['value']:.2f} points ({total['low']:.2f} to {total['high']:.2f})"]
    for stage, share in sorted(result["shares"].items(), key=lambda item: -item[1]):
        low, high = result["intervals"][stage]
        lines.append(f"  {stage:<10} {share:6.2f} ({low:.2f} to {high:.2f})")
    best = result["best_change"]
    gain = result["bought_back"][best]
    between = f"({gain['low']:.2f} to {gain['high']:.2f})"
    lines.append(f"{best} as in training alone buys back {gain['value']:.2f} points {between}")
    return "\n".join(lines)


def _matches(result: dict[str, Any]) -> str:
    head = "made by" if result["found"] else "made by no known pipeline; the nearest are"
    names = ("decode", "resize", "geometry", "colour", "normalise")
    matches = result["matches"][: 1 if result["found"] else 5]
    lines = [
        ", ".join(f"{name} {match[name]}" for name in names if match[name] is not None)
        + f"  residual {match['residual']:.3g}"
        for match in matches
    ]
    equals = matches[0]["equals"] if result["found"] else {}
    lines += [f"or {stage} {', '.join(names)}: the same pixels" for stage, names in equals.items()]
    return "\n".join([head, *lines])


def _blocks(units: list[dict[str, Any]]) -> str:
    width = max((len(unit["name"]) for unit in units), default=0)
    return "\n".join(f"{unit['name']:<{width}}  {', '.join(unit['layers'])}" for unit in units)


def _run(result: dict[str, Any]) -> str:
    parts = (_skipped, _values, _parity, _size, _speed, _kernels, _written)
    lines = [part(result) for part in parts]
    return "\n".join(line for line in lines if line)


def _skipped(result: dict[str, Any]) -> str:
    sets = result.get("data") or {}
    count = sum(each.get("skipped", 0) for each in sets.values() if isinstance(each, dict))
    things = things_of((result.get("config") or {}).get("data"))
    return f"left out   {count} unreadable {things}" if count else ""


def _values(result: dict[str, Any]) -> str:
    forms = [(form, result.get(form)) for form in ("float", "simulated", "deployed")]
    known = [
        f"{form} {_show(score.get('metric'))(score['value'])}"
        for form, score in forms
        if isinstance(score, dict) and score.get("value") is not None
    ]
    return f"metric     {', '.join(known)}" if known else ""


def _parity(result: dict[str, Any]) -> str:
    match result.get("parity"):
        case {"agreement": float() | int() as share, "n": int() as n} as told:
            things = things_of((result.get("config") or {}).get("data"))
            said = alike(measure_of(told.get("measure")), share, n, things)
            return f"agreement  deployed and simulated: {said}"
        case _:
            return ""


def _size(result: dict[str, Any]) -> str:
    match result.get("files"):
        case {"float_onnx_bytes": int() as before, "quantized_onnx_bytes": int() as after}:
            return f"size       {before / 2**20:.2f} MiB -> {after / 2**20:.2f} MiB"
        case _:
            return ""


def _speed(result: dict[str, Any]) -> str:
    match result.get("latency"):
        case {"float_ms": float() as before, "quantized_ms": float() as after, **rest}:
            spread = [each["p90"] / each["p10"] for each in rest.get("detail", {}).values()]
            busy = max(spread, default=1) > _STEADY
            scatter = "; single runs scatter widely: was the machine busy?" if busy else ""
            return f"speed      {before:.2f} ms -> {after:.2f} ms{scatter}"
        case _:
            return ""


def _kernels(result: dict[str, Any]) -> str:
    match result.get("kernels"):
        case {"integer": int() as integer, "float": int() as floating, "pairs": int() as pairs}:
            left = f"{pairs} quantizers without a kernel" if pairs else "no quantizer is left over"
            return f"kernels    {integer} products in integers, {floating} in floats; {left}"
        case _:
            return ""


def _written(result: dict[str, Any]) -> str:
    return f"written    {result['out']}" if "out" in result else ""


def _metres(value: float) -> str:
    return f"{value:.4f} m"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"
