"""A command's result in a few lines for a person; `--json` has all of it."""

from typing import Any


def say(command: str, result: Any) -> str:
    """Lines to print; none for the demo, which shows its own table.

    >>> say("report", {"report": "out/report.html"})
    'written    out/report.html'
    """
    match command:
        case "evaluate":
            return _evaluation(result)
        case "blocks":
            return _blocks(result)
        case "report":
            return f"written    {result['report']}"
        case "demo":
            return ""
        case _:
            return _run(result)


def _evaluation(result: dict[str, Any]) -> str:
    span = f"95 % interval {_percent(result['ci_low'])} to {_percent(result['ci_high'])}"
    skipped = f", {result['skipped']} unreadable left out" if result["skipped"] else ""
    line = f"{result['metric']}  {_percent(result['value'])} of {result['n']} images"
    return f"{line} ({span}{skipped})"


def _blocks(units: list[dict[str, Any]]) -> str:
    width = max((len(unit["name"]) for unit in units), default=0)
    return "\n".join(f"{unit['name']:<{width}}  {', '.join(unit['layers'])}" for unit in units)


def _run(result: dict[str, Any]) -> str:
    parts = (_skipped, _values, _parity, _size, _speed, _written)
    lines = [part(result) for part in parts]
    return "\n".join(line for line in lines if line)


def _skipped(result: dict[str, Any]) -> str:
    sets = result.get("data") or {}
    count = sum(each.get("skipped", 0) for each in sets.values() if isinstance(each, dict))
    return f"left out   {count} unreadable images" if count else ""


def _values(result: dict[str, Any]) -> str:
    forms = [(form, result.get(form)) for form in ("float", "simulated", "deployed")]
    known = [
        f"{form} {_percent(score['value'])}"
        for form, score in forms
        if isinstance(score, dict) and score.get("value") is not None
    ]
    return f"metric     {', '.join(known)}" if known else ""


def _parity(result: dict[str, Any]) -> str:
    match result.get("parity"):
        case {"agreement": float() | int() as share, "n": int() as n}:
            return f"agreement  deployed is simulated on {_percent(share)} of {n} images"
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
        case {"float_ms": float() as before, "quantized_ms": float() as after}:
            return f"speed      {before:.2f} ms -> {after:.2f} ms"
        case _:
            return ""


def _written(result: dict[str, Any]) -> str:
    return f"written    {result['out']}" if "out" in result else ""


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"
