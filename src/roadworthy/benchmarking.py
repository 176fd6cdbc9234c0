"""`roadworthy benchmark`: backbones judged on many data sets, with few labels, row by row."""

import fcntl
import json
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from roadworthy.core.predict import resolve_device
from roadworthy.core.progress import track
from roadworthy.core.runs import RunRecord, output_room, plain, write_atomically
from roadworthy.errors import BadInput
from roadworthy.learn.adapt.fit import LEAST
from roadworthy.learn.adapt.protocols import Descending
from roadworthy.learn.backbones import backbone, check_size
from roadworthy.learn.batches import Task
from roadworthy.learn.gvb.bench import (
    DataSet,
    Named,
    Pair,
    Row,
    Terms,
    Unit,
    begun_of,
    forget,
    key_of,
    measured,
    opened,
    suited,
)
from roadworthy.learn.gvb.entries import ENTRIES
from roadworthy.learn.gvb.part import Part
from roadworthy.learn.gvb.published import published
from roadworthy.learn.gvb.subsets import draw, write_subset
from roadworthy.learn.holding import check_side
from roadworthy.learn_requests import BenchmarkRequest


def benchmark(request: BenchmarkRequest) -> RunRecord:
    """Measure what has not been measured yet, and write run.json.

    Raises:
        BadInput: no data set; a fraction that leaves too few images of one; a size that a backbone
            cannot be shown.
        BadData, BadModel: as `learn.gvb.bench` says; all data sets and backbones are opened before
            any work.
    """
    if find_spec("scipy") is None:
        raise BadInput("benchmark needs scipy; pip install 'roadworthy[benchmark]'")
    forget()
    with output_room(request.out, "benchmark") as out, _alone(out):
        datasets = chosen(request)
        terms = replace(request.terms, cache=str((out / "features").resolve()))
        check_side(terms.size)
        for model in request.models:
            check_size(backbone(model), terms.size)
        for each in datasets:
            _check_share(opened(each, terms.size).train, terms)
        units = [
            Unit(dataset, model, request.seed + number)
            for dataset in datasets
            for model in request.models
            for number in range(request.seeds)
        ]
        rows = list(_rows(units, terms, request, out))
        with suppress(OSError):
            (out / "work").rmdir()
        for each in datasets:
            _write_lists(opened(each, terms.size).train, request, out / "lists")
    record = _record(request, rows, [opened(each, terms.size).entry.name for each in datasets])
    record.save(out / "run.json")
    return record


def chosen(request: BenchmarkRequest) -> list[DataSet]:
    """The data sets that were asked for; of the 26, those that are there where none is named.

    Raises:
        BadInput: there is none.
    """
    root = request.root
    names = request.datasets
    if not names and not request.pairs:
        names = tuple(each.name for each in ENTRIES if each.there(root))
    found: list[DataSet] = [Named(name, str(root.resolve())) for name in names]
    found += [Pair(cast(Task, task), train, test) for task, train, test in request.pairs]
    if not found:
        raise BadInput(
            f"none of the 26 data sets is in {root}; roadworthy benchmark --list names them, "
            "--download NAME gets one or says how, and --data TASK=SPEC --test TASK=SPEC takes "
            "your own"
        )
    return found


@contextmanager
def _alone(out: Path) -> Generator[None]:
    """BadInput while another process is at work in `out`: they would clear each other's journals.

    The lock is the system's and ends with the process, however that ends.
    """
    folder = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"--out {out} is in use by another benchmark; wait for it, or give a folder of "
                    "its own"
                ) from error
        yield
    finally:
        os.close(folder)


def _check_share(train: Part, terms: Terms) -> None:
    """BadInput where a share leaves a class without an image, or too few to learn and choose by."""
    drawn, said = len(draw(train, terms.fraction, seed=0).images), ""
    how = suited(terms, train.task)
    if drawn < LEAST:
        said = f"{LEAST} or more are needed"
    elif (
        isinstance(how, Descending)
        and len(how.descent.rates) > 1
        and train.labels
        and drawn == len(train.classes)
    ):
        said = "one of each class; a second one of some is needed to choose a rate, or one rate"
    if said:
        raise BadInput(
            f"fraction {terms.fraction:g} given, which leaves {drawn} of {len(train)} training "
            f"images of {train.origin.source}; {said}"
        )


def _write_lists(train: Part, request: BenchmarkRequest, folder: Path) -> None:
    """Leave which images each seed learns from, for others to take or to check."""
    folder.mkdir(exist_ok=True)
    fraction = request.terms.fraction
    for seed in range(request.seed, request.seed + request.seeds):
        drawn = draw(train, fraction, seed)
        said = re.sub(r"[^\w.-]+", "-", Path(drawn.dataset).name)[-40:]
        write_subset(drawn, folder / f"{said}-{seed}-{drawn.sha256[:12]}.json")


def _rows(
    units: Sequence[Unit], terms: Terms, request: BenchmarkRequest, out: Path
) -> Iterator[Row]:
    """A row for each unit, in order: those that have been measured before, and the rest."""
    begun = dict.fromkeys((unit.model, unit.seed) for unit in units)
    hashes = {each: begun_of(*each) for each in track(begun, "opening", len(begun))}
    keys = [key_of(unit, terms, hashes[unit.model, unit.seed])[:32] for unit in units]
    files = [out / "rows" / f"{key}.json" for key in keys]
    missing = [number for number, file in enumerate(files) if not _read(file)]
    room = out.resolve() / "work"
    work = [(units[number], terms, room / keys[number]) for number in missing]
    found = _by_ray(work, request) if request.workers == "ray" else _in_turn(work)
    for at, row in track(found, "measuring", len(work)):
        with write_atomically(files[missing[at]]) as temporary:
            temporary.write_text(json.dumps(plain(row), indent=1) + "\n")
    yield from map(_read, files)


def _read(file: Path) -> Row:
    """A row that has been measured; an empty one where there is none, or a damaged one."""
    try:
        found: Any = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"value", "dataset"} <= found.keys() else {}


Work = tuple[Unit, Terms, Path]


def _in_turn(work: Sequence[Work]) -> Iterator[tuple[int, Row]]:
    for number, each in enumerate(work):
        yield number, measured(*each)


def _by_ray(work: Sequence[Work], request: BenchmarkRequest) -> Iterator[tuple[int, Row]]:
    from roadworthy.cluster import mapped

    device = resolve_device(request.terms.machine.device)
    return mapped(partial(_one, str(uuid4())), work, gpu=device.type == "cuda")


def _one(call: str, work: Work) -> Row:
    _anew(call)
    return measured(*work)


@lru_cache(maxsize=1)
def _anew(call: str) -> None:
    """A worker may have seen the files of an earlier call."""
    forget()


def _record(request: BenchmarkRequest, rows: list[Row], names: Sequence[str]) -> RunRecord:
    from roadworthy.learn.gvb.table import by_task, summary

    table = summary(rows)
    return RunRecord(
        command="benchmark",
        config=asdict(request),
        seed=request.seed,
        data={
            f"{row['dataset']} {row['task']} seed {row['seed']}": {
                "n": row["trained_on"],
                "sha256": row["subset"],
            }
            for row in rows
        },
        numbers={
            "rows": rows,
            "table": table,
            "types": by_task(table),
            "published": {name: published(name) for name in names if published(name)},
        },
    )
