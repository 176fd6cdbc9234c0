"""Reading of run.json: any key may be missing, and a missing key is never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from roadworthy.errors import BadInput


@dataclass(frozen=True)
class Tree:
    """A JSON value that is read by dotted paths; what is absent or of another type reads as None.

    >>> tree = Tree({"parity": {"agreement": 0.999}, "layers": [{"name": "conv1"}]})
    >>> tree.number("parity.agreement"), tree.number("parity.n"), tree.text("parity")
    (0.999, None, None)
    >>> [row.text("name") for row in tree.rows("layers")]
    ['conv1']
    """

    value: object

    def get(self, path: str) -> Tree:
        """The value at a dotted path, or a Tree of None; the empty path is the value itself."""
        value = self.value
        for key in path.split(".") if path else ():
            if not isinstance(value, Mapping):
                return Tree(None)
            value = cast("Mapping[str, object]", value).get(key)
        return Tree(value)

    def number(self, path: str) -> float | None:
        """A finite number."""
        value = self.get(path).value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    def count(self, path: str) -> int | None:
        """A number, rounded to an integer."""
        value = self.number(path)
        return None if value is None else round(value)

    def text(self, path: str) -> str | None:
        """A string that is not empty; numbers are written out."""
        value = self.get(path).value
        if isinstance(value, str):
            return value or None
        return None if self.number(path) is None else str(value)

    def numbers(self, path: str) -> list[float]:
        """A list of finite numbers; empty where any entry is something else."""
        found = [Tree({"x": item}).number("x") for item in self.items(path)]
        kept = [number for number in found if number is not None]
        return kept if len(kept) == len(found) else []

    def first(self, *paths: str) -> str | None:
        """The first text there is at any of the paths."""
        return next((text for path in paths if (text := self.text(path))), None)

    def texts(self, path: str) -> list[str]:
        """A list of strings, or the one string there."""
        single = self.text(path)
        return [single] if single else [i for i in self.items(path) if isinstance(i, str)]

    def rows(self, path: str) -> list[Tree]:
        """The objects of a list."""
        return [Tree(item) for item in self.items(path) if isinstance(item, Mapping)]

    def entries(self, path: str) -> list[tuple[str, Tree]]:
        """The keys of an object, which may hold dots, and their values."""
        value = self.get(path).value
        if not isinstance(value, Mapping):
            return []
        entries = cast("Mapping[object, object]", value).items()
        return [(key, Tree(each)) for key, each in entries if isinstance(key, str)]

    def leaves(self, path: str) -> list[tuple[str, str]]:
        """(dotted key, value written out) of everything below a path."""
        return _leaves(self.get(path).value, "")

    def items(self, path: str) -> list[object]:
        """Whatever a list holds."""
        value = self.get(path).value
        return cast("list[object]", value) if isinstance(value, list) else []


def _leaves(value: object, prefix: str) -> list[tuple[str, str]]:
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = {str(i): item for i, item in enumerate(cast("list[object]", value), start=1)}
    if not isinstance(value, Mapping):
        return [] if value is None or not prefix else [(prefix, _written(value))]
    stem = f"{prefix}." if prefix else ""
    entries = cast("Mapping[str, object]", value).items()
    return [leaf for key, item in entries for leaf in _leaves(item, f"{stem}{key}")]


def _written(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value)


def read_run(directory: Path) -> Tree:
    """The run.json of a directory.

    Raises:
        BadInput: no run.json there, or it is not a JSON object.
    """
    path = directory / "run.json" if directory.suffix != ".json" else directory
    if not path.is_file():
        raise BadInput(
            f"no run.json in {directory}; give directories that `roadworthy quantize`, `noise`, "
            "`evaluate`, `learn`, `adapt`, `benchmark` or `demo` wrote with --out"
        )
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds {type(value).__name__}, a JSON object is needed")
    tree = cast("dict[str, object]", value)
    numbers = tree.get("numbers")
    found = cast("dict[str, object]", numbers) if isinstance(numbers, dict) else {}
    return Tree({**tree, **found})


def read_json(path: Path) -> object:
    """The JSON value in a file.

    Raises:
        BadInput: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not JSON ({error}); run what wrote it again") from None
