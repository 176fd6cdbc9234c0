"""Files that data sets are listed or stored in: text, CSV, JSON, MATLAB, HDF5, pickle."""

import csv
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roadworthy.errors import BadData, BadInput
from roadworthy.learn.gvb.part import damaged


def lines(path: Path, needed: str, fields: int | None = None) -> list[list[str]]:
    """The words of each line that has some.

    Args:
        needed: what a line should hold, for messages.
        fields: how many words that is; the last one may hold blanks.

    Raises:
        BadData: no such file, an empty one, or a line of fewer words.
    """
    try:
        text = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, error, needed) from error
    found = [each.split(None, -1 if fields is None else fields - 1) for each in text]
    found = [[word.strip() for word in each] for each in found if each]
    wrong = [each for each in found if fields is not None and len(each) < fields]
    if wrong or not found:
        raise damaged(path, f"the line {' '.join(wrong[0])!r}" if wrong else "no lines", needed)
    return found


def table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows by the names of their columns, blanks around both removed.

    Raises:
        BadData: no such file, or one without these columns or without rows, or a row that is short
            of columns.
    """
    needed = f"a table of {delimiter.join(columns)}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            head, *rows = [[cell.strip() for cell in row] for row in reader if row]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise damaged(path, error, needed) from error
    if set(columns) - set(head) or not rows:
        raise damaged(path, f"columns {', '.join(head)} and {len(rows)} rows", needed)
    for number, row in enumerate(rows, 1):
        if len(row) < len(head):
            said = f"row {number} below its head has {len(row)} of {len(head)} columns"
            raise damaged(path, said, needed)
    return [dict(zip(head, row, strict=False)) for row in rows]


def from_json(path: Path, needed: str) -> Any:
    """What a JSON file holds; BadData where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error, needed) from error


def from_mat(path: Path, *names: str, squeeze: bool = True) -> tuple[Any, ...]:
    """Variables of a MATLAB file; `squeeze` drops axes of one.

    Raises:
        BadInput: SciPy is not installed.
        BadData: no such file, or one without these variables.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise BadInput(f"{path} is read by scipy; pip install 'roadworthy[benchmark]'") from error
    needed = f"a MATLAB file with {', '.join(names)}"
    try:
        held: dict[str, Any] = loadmat(str(path), squeeze_me=squeeze, variable_names=names)
    except (OSError, ValueError, TypeError, IndexError, MatReadError, NotImplementedError) as error:
        # the last is what scipy raises for MATLAB's files of version 7.3
        raise damaged(path, error, needed) from error
    if set(names) - set(held):
        raise damaged(path, f"it has {', '.join(held) or 'nothing'}", needed)
    return tuple(held[name] for name in names)


def from_hdf5(path: Path, name: str) -> Any:
    """An array of an HDF5 file that reads what is asked of it; the file stays open.

    Raises:
        BadInput: h5py is not installed.
        BadData: no such file, or one without the array.
    """
    try:
        import h5py
    except ImportError as error:
        raise BadInput(f"{path} is read by h5py; pip install 'roadworthy[benchmark]'") from error
    try:
        return h5py.File(path, "r")[name]
    except (OSError, KeyError) as error:
        raise damaged(path, error, f"an HDF5 file with {name}") from error


_HARMLESS = frozenset(
    (
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "_codecs.encode",
    )
)


class _Arrays(pickle.Unpickler):
    """Reads containers, numbers, text and arrays; nothing that could run."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if f"{module_name}.{global_name}" not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def from_pickle(path: Path, *names: str) -> tuple[Any, ...]:
    """Entries of a pickled dictionary, whose contents may be arrays and nothing that runs code.

    Raises:
        BadData: no such file, another content, or one without these entries.
    """
    needed = f"a pickled dictionary with {', '.join(names)}"
    try:
        with path.open("rb") as file:
            held: Any = _Arrays(file, encoding="latin1").load()
        return tuple(held[name] for name in names)
    except BadData:
        raise
    except Exception as error:  # whatever a damaged pickle makes of itself
        raise damaged(path, error, needed) from error
