"""Texts and pairs of texts out of tab-separated files, as GLUE has them.

The first line names the columns, cells are taken as they are written: quotes mean nothing. A label
is a class id, a class name or, for models that answer one, a number; ``-1`` and an empty cell say
that nobody told it. For models that answer texts it is a text, as it is written.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from roadworthy.core.sources import MAX_CLASS_ID
from roadworthy.errors import BadData

BETWEEN = "\t"
"""Between the texts of a pair: no cell of such a file can hold it."""
Told = int | float | str | None
"""A class id, a number or a text; None where nobody told it."""
_UNTOLD = ("", "-1")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,2})?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Texts:
    """Rows of a file: one text or a pair each, and what a model is to answer to it."""

    path: Path
    lines: tuple[int, ...]
    texts: tuple[str, ...]
    told: tuple[Told, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int) -> bytes:
        """UTF-8 of a row, `BETWEEN` between the texts of a pair; BadData where one is empty."""
        text = self.texts[index]
        if not all(part.strip() for part in text.split(BETWEEN)):
            raise BadData(f"text {self.name(index)} is empty")
        return text.encode()

    def label(self, index: int) -> int | None:
        """Class id, None where nobody told it, or the right answer is no class."""
        told = self.told[index]
        return told if isinstance(told, int) else None

    def name(self, index: int) -> str:
        """File and line, counted from 1."""
        return f"{self.path}, line {self.lines[index]}"

    def key(self, index: int) -> str:
        """Line."""
        return str(self.lines[index])


def open_texts(rest: str, answered: bool = False) -> tuple[Texts, tuple[str, ...], bool]:
    """Texts of ``FILE.tsv?text=COLUMN&label=COLUMN``, class names, whether ids are their ranks.

    Where texts are `answered` by texts, labels are such answers and no classes.

    Raises:
        BadData: no file, no UTF-8, no rows, no such column, a row that is too short or too long,
            labels that are neither class ids nor names.
    """
    file, _, query = rest.rpartition("?") if "?" in rest else (rest, "", "")
    path, asked = Path(file), dict(parse_qsl(query))
    header, rows = _table(path)
    columns = asked.get("text", "").split(",")
    known = f"it has {', '.join(header)}"
    if len(header) == 1 and re.search("[,;]", header[0]):
        known += "; columns are parted by tabs, not by commas"
    if set(asked) - {"text", "label"} or not 1 <= len(columns) <= 2 or not columns[0]:
        raise BadData(
            f"data text:{rest} given; text:FILE.tsv?text=COLUMN&label=COLUMN is allowed, or "
            f"text=A,B for pairs; {known}"
        )
    for name in (*columns, *([asked["label"]] if "label" in asked else ())):
        if header.count(name) != 1:
            what = "no column" if name not in header else "more than one column"
            raise BadData(f"{path} has {what} {name!r}; {known}")
    places = [header.index(name) for name in columns]
    texts = tuple(BETWEEN.join(cells[place] for place in places) for _, cells in rows)
    lines = tuple(number for number, _ in rows)
    if "label" not in asked:
        return Texts(path, lines, texts, (None,) * len(rows)), (), False
    place = header.index(asked["label"])
    written = [(number, cells[place].strip()) for number, cells in rows]
    if answered:
        return Texts(path, lines, texts, tuple(label or None for _, label in written)), (), False
    if (numbers := _numbers([label for _, label in written])) is not None:
        return Texts(path, lines, texts, numbers), (), False
    labels, classes, ranked = _labels(path, written)
    return Texts(path, lines, texts, labels), classes, ranked


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and of every row its line and its cells."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"{error}; write it as UTF-8"
        raise BadData(f"text:{path} cannot be read: {reason}") from error
    lines = (line.removesuffix("\r") for line in content.split("\n"))
    written = [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line]
    if len(written) < 2:
        raise BadData(f"text:{path} holds no texts; a line of column names and rows are needed")
    (_, header), *rows = written
    for number, cells in rows:
        if len(cells) != len(header):
            raise BadData(
                f"{path}, line {number} has {len(cells)} cells and the first line {len(header)} "
                "columns; tabs part them, one row a line"
            )
    return [name.strip() for name in header], rows


def _numbers(written: list[str]) -> tuple[float | None, ...] | None:
    """Labels as numbers, where all of them are and some can be no class id."""
    told = [label for label in written if label not in _UNTOLD]
    if all(map(str.isdigit, told)) or not all(map(_NUMBER.fullmatch, told)):
        return None
    return tuple(None if label in _UNTOLD else float(label) for label in written)


def _labels(
    path: Path, written: list[tuple[int, str]]
) -> tuple[tuple[int | None, ...], tuple[str, ...], bool]:
    """Class ids, class names, whether the ids are the names' ranks."""
    told = [(number, label) for number, label in written if label not in _UNTOLD]
    numbers = [label for _, label in told if re.fullmatch(r"\d{1,18}", label)]
    if not numbers and not any(re.fullmatch(r"[-+]?[\d.]+", label) for _, label in told):
        names = sorted({label for _, label in told})
        ids = {name: rank for rank, name in enumerate(names)}
        return tuple(ids.get(label) for _, label in written), tuple(names), True
    for number, label in told:
        if not re.fullmatch(r"\d{1,18}", label) or int(label) > MAX_CLASS_ID:
            raise BadData(
                f"{path}, line {number}: label {label[:40]!r} given; class ids from 0 to "
                f"{MAX_CLASS_ID}, names that are no numbers, or numbers in every row are allowed"
            )
    found = tuple(None if label in _UNTOLD else int(label) for _, label in written)
    highest = max((label for label in found if label is not None), default=-1)
    return found, tuple(map(str, range(highest + 1))), False
