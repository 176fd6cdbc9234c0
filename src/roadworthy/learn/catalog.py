"""A catalog of samples and annotations: Parquet files in a folder, asked by DuckDB.

``catalog.json`` lists the files with their hashes and is replaced last, so that a process that is
killed leaves the state before it. A sample is known by source, split and name; added again, it
replaces what was there.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roadworthy.core.sources import reason
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.duplicates import CLOSE, nearest
from roadworthy.learn.rows import bits, schema, unmapped

STATE = "catalog.json"
HELD_OUT = ("test", "val")
"""Splits to judge by: what other splits hold of their pictures is marked by ``duplicate_of``."""
_KEY = "source, split, name"


@dataclass(frozen=True)
class Part:
    """One Parquet file."""

    file: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class State:
    """What a catalog consists of: rows, and marks of those that a held-out picture resembles."""

    parts: tuple[Part, ...] = ()
    marks: Part | None = None

    @property
    def files(self) -> list[Part]:
        """All files."""
        return [*self.parts, *([self.marks] if self.marks else [])]


def read_state(folder: Path) -> State:
    """The state of the catalog in `folder`, after a look at the hash of every file.

    Raises:
        BadData: no catalog, or a file that is missing or damaged.
    """
    try:
        held = json.loads((folder / STATE).read_text(encoding="utf-8"))
        marks = held["marks"] and Part(**held["marks"])
        state = State(tuple(Part(**each) for each in held["parts"]), marks)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{folder} holds no catalog: {reason(error)}; learn catalog add makes one in a new "
            "folder"
        ) from error
    for each in state.files:
        path = folder / each.file
        if not path.is_file() or _sha256(path) != each.sha256:
            raise BadData(
                f"{path} is missing or damaged; copy it again, or add its sources to a new folder"
            )
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Added:
    """What an addition did.

    Args:
        samples: rows that were given.
        new: those whose source, split and name were not there before.
        total: rows of the catalog now.
        marked: rows that resemble a held-out picture now.
        unmapped: names without a concept among the rows given, with their source and number.
    """

    samples: int
    new: int
    total: int
    marked: int
    unmapped: tuple[tuple[str, str, int], ...]


def add(folder: Path, given: Iterable[Any]) -> Added:
    """Take the tables of `given`, as `rows.tables` makes them, into the catalog, or none of them.

    Raises:
        BadData: a folder that holds something else, a damaged catalog, two images of one name.
        BadInput: another process adds to the catalog.
    """
    with _changed(folder) as (con, state):
        names = _stage(folder / "staged.parquet", given)
        staged = f"read_parquet('{_quoted(folder / 'staged.parquet')}', file_row_number=true)"
        _check_names(con, staged)
        con.execute(f"CREATE VIEW staged AS SELECT * FROM {staged}")
        last = f"QUALIFY row_number() OVER (PARTITION BY {_KEY} ORDER BY file_row_number DESC) = 1"
        fresh = f"SELECT * FROM staged {last} ORDER BY file_row_number"
        columns = ", ".join(schema().names)
        part = _copied(con, folder, f"SELECT {columns} FROM ({fresh})")
        kept = [_without(con, folder, each) for each in state.parts if each != part]
        parts = tuple(each for each in (*kept, part) if each.rows)
        marks, before = _marks(con, folder, parts), sum(each.rows for each in state.parts)
        total = sum(each.rows for each in parts)
        _replace(folder, State(parts, marks))
        samples = con.execute("SELECT count(*) FROM staged").fetchone()[0]
    told = tuple((source, name, count) for (source, name), count in sorted(names.items()))
    return Added(samples, total - before, total, marks.rows if marks else 0, told)


@contextmanager
def _changed(folder: Path) -> Generator[tuple[Any, State]]:
    """The only process that changes the catalog, and the state that it begins with."""
    import fcntl

    import duckdb

    if folder.exists() and not (folder / STATE).exists() and any(folder.iterdir()):
        raise BadData(f"{folder} is no catalog and not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"another process adds to {folder}; wait until it ends") from error
        if not (folder / STATE).exists():
            _replace(folder, State())
        con = duckdb.connect()
        try:
            yield con, read_state(folder)
        finally:
            con.close()
            (folder / "staged.parquet").unlink(missing_ok=True)


def _stage(path: Path, given: Iterable[Any]) -> Counter[tuple[str, str]]:
    import pyarrow.parquet as pq

    names: Counter[tuple[str, str]] = Counter()
    with pq.ParquetWriter(path, schema()) as writer:
        for table in given:
            writer.write_table(table)
            names += unmapped(table)
    return names


def _check_names(con: Any, staged: str) -> None:
    twice = con.execute(
        f"SELECT source, name FROM {staged} GROUP BY {_KEY} "
        "HAVING count(DISTINCT sha256) > 1 LIMIT 1"
    ).fetchone()
    if twice:
        raise BadData(f"two images of {twice[0]} are called {twice[1]}; names tell samples apart")


def _copied(con: Any, folder: Path, query: str) -> Part:
    """The rows of `query` as a file that is called by its hash; the same rows are the same file."""
    made = folder / "made.parquet"
    rows = con.execute(f"COPY ({query}) TO '{_quoted(made)}' (FORMAT parquet)").fetchone()[0]
    sha256 = _sha256(made)
    part = Part(f"{sha256[:16]}.parquet", sha256, rows)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(folder / part.file)
    return part


def _without(con: Any, folder: Path, part: Part) -> Part:
    """`part` without the rows that are staged."""
    held = f"read_parquet('{_quoted(folder / part.file)}')"
    left = f"FROM {held} ANTI JOIN staged USING ({_KEY})"
    count = con.execute(f"SELECT count(*) {left}").fetchone()[0]
    if count == part.rows:
        return part
    return _copied(con, folder, f"SELECT * {left}") if count else Part("", "", 0)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _marks(con: Any, folder: Path, parts: Sequence[Part]) -> Part | None:
    """Rows of other splits that resemble a held-out picture, turned left to right or not."""
    if not parts:
        return None
    import pyarrow as pa

    files = ", ".join(f"'{_quoted(folder / each.file)}'" for each in parts)
    held_out = ", ".join(f"'{each}'" for each in HELD_OUT)
    asked = (
        f"SELECT source, split, name, phash, phash_mirrored FROM read_parquet([{files}]) "
        f"WHERE split {{}} IN ({held_out}) ORDER BY {_KEY}"
    )
    tests = con.execute(asked.format("")).fetchall()
    if not tests:
        return None
    known = bits([each[3] for each in tests] + [each[4] for each in tests])
    others = con.execute(asked.format("NOT"))
    marked: list[dict[str, Any]] = []
    while taken := others.fetchmany(10_000):
        which, far = nearest(bits(each[3] for each in taken), known)
        for own, index, distance in zip(taken, which.tolist(), far.tolist(), strict=True):
            if distance <= CLOSE:
                test = tests[index % len(tests)]
                key = dict(zip(("source", "split", "name"), own, strict=False))
                found = f"{test[0]}/{test[1]}/{test[2]}"
                marked.append({**key, "duplicate_of": found, "differing_bits": distance})
    con.register("marked", pa.Table.from_pylist(marked, _marks_schema()))
    return _copied(con, folder, "SELECT * FROM marked")


def _marks_schema() -> Any:
    import pyarrow as pa

    names = ("source", "split", "name", "duplicate_of")
    return pa.schema([*((each, pa.string()) for each in names), ("differing_bits", pa.int32())])


def _replace(folder: Path, state: State) -> None:
    """Make `state` the state of the folder, then remove what no longer belongs to it."""
    made = folder / f"{STATE}.part"
    with made.open("w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    made.replace(folder / STATE)
    kept = {each.file for each in state.files} | {"staged.parquet"}
    for path in folder.glob("*.parquet"):
        if path.name not in kept:
            path.unlink()


@contextmanager
def opened(folder: Path) -> Generator[Any]:
    """DuckDB with the table ``samples`` of the catalog, and without a way to files or the network.

    Raises:
        BadData: no catalog, or a damaged one.
    """
    import duckdb
    import pyarrow.dataset as ds

    state = read_state(folder)
    con = duckdb.connect(config={"python_enable_replacements": False})
    try:
        marks = [state.marks] if state.marks else []
        for name, parts, kind in (
            ("rows_", state.parts, schema()),
            ("marks_", marks, _marks_schema()),
        ):
            files = [str(folder / each.file) for each in parts]
            con.register(name, ds.dataset(files, kind) if files else kind.empty_table())
        con.execute(f"CREATE VIEW samples AS SELECT * FROM rows_ LEFT JOIN marks_ USING ({_KEY})")
        con.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield con
    finally:
        con.close()


def ask(folder: Path, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of one SELECT of DuckDB's SQL over the table ``samples``.

    Raises:
        BadData: no catalog, or a damaged one.
        BadInput: SQL that is wrong, or that is no SELECT.
    """
    import duckdb

    with opened(folder) as con:
        try:
            statements = con.extract_statements(query)
            if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
                raise BadInput(f"sql {query!r} given; one SELECT over samples is allowed")
            found = con.execute(statements[0])
            return [each[0] for each in found.description], found.fetchall()
        except duckdb.Error as error:
            why = " ".join(str(error).partition("LINE 1")[0].split())
            raise BadInput(
                f"sql {query!r}: {why}; DESCRIBE samples lists what can be asked"
            ) from error
