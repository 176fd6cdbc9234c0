"""A source hashed, catalogued and written into shards by Ray Data, as one process would."""

import pickle
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from roadworthy.cluster import session
from roadworthy.core.progress import track
from roadworthy.errors import RoadworthyError
from roadworthy.learn import concepts
from roadworthy.learn.catalog import add
from roadworthy.learn.inventory import renamed
from roadworthy.learn.readers import Origin
from roadworthy.learn.rows import tables
from roadworthy.learn.shards import Written, begin, finish, write_shard
from roadworthy.learn.sources import count, numbered


def catalog_add_by_ray(
    folder: str, spec: str, out: str, origin: Origin, size: int = 64, per_shard: int = 1000
) -> dict[str, Any]:
    """What `catalog_add` and `write_shards` do with a spec, to the byte, by the workers of Ray.

    A task is a shard: it reads its own samples. Workers need to reach what the spec and `out` name;
    the catalog is written here.

    Args:
        folder: of the catalog.
        out: a folder or any fsspec address for the shards.
        origin: source, licence and split instead of what the spec says; empty ones are not changed.
        size: pixels a side of rendered scenes.

    Raises:
        BadInput: Ray is not installed or not reached; what `catalog_add` and `write_shards` refuse.
        RoadworthyError: a task died.
    """
    begin(out, per_shard)
    total, written = count(spec), list[Written]()
    tasks = [{"shard": i} for i in range(-(-total // per_shard))]
    work = partial(_work, spec, out, origin, size, (per_shard, total))
    with session() as ray:
        done = track(_mapped(ray, tasks, work), "adding", len(tasks))
        added = add(Path(folder), _tables(done, written))
    finish(written, out)
    return asdict(added)


def _mapped(ray: Any, tasks: list[dict[str, int]], work: Any) -> Iterator[bytes]:
    data: Any = import_module("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    try:
        made = data.from_items(tasks, override_num_blocks=len(tasks)).map(work)
        yield from (each["done"] for each in made.iter_rows())
    except ray.exceptions.RayError as error:
        raise RoadworthyError(
            "a task of Ray failed; nothing was added, the same command begins again: "
            f"{' '.join(str(error).split())[-200:]}"
        ) from error


def _tables(done: Iterator[bytes], written: list[Written]) -> Iterator[Any]:
    for each in done:
        answer: Any = pickle.loads(each)
        if isinstance(answer, RoadworthyError):
            raise answer
        found, shard = answer
        written.append(shard)
        yield from found


def _work(
    spec: str, out: str, origin: Origin, size: int, sizes: tuple[int, int], task: dict[str, int]
) -> dict[str, bytes]:
    """The rows of one shard and what was written; a fault of the data is an answer too."""
    number, (per_shard, total) = task["shard"], sizes
    first = number * per_shard
    numbers = range(first, min(first + per_shard, total))
    try:
        read = numbered(spec, size, numbers)
        held = list(renamed(read, origin.source, origin.licence, origin.split))
        found = list(tables(held, spec, concepts.load(), first))
        answer: Any = found, write_shard(held, out, number, per_shard)
    except RoadworthyError as error:
        answer = error
    return {"done": pickle.dumps(answer)}
