"""What a catalog holds, by source and split, and its way from sources and into shards."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from roadworthy.core.progress import track
from roadworthy.errors import BadData, BadInput
from roadworthy.learn import concepts as graph
from roadworthy.learn.catalog import add, ask
from roadworthy.learn.concepts import Disagreement
from roadworthy.learn.readers import Origin
from roadworthy.learn.rows import tables
from roadworthy.learn.sample import Sample
from roadworthy.learn.shards import ShardSet, write_shards
from roadworthy.learn.sources import count, numbered, samples

_SHOWN = """
WITH hashed AS (
    SELECT *, count(*) OVER (PARTITION BY phash) AS everywhere,
        count(*) OVER (PARTITION BY phash, source) AS here
    FROM samples
)
SELECT source, split, count(*) AS samples,
    list_sort(list(DISTINCT licence)) AS licences,
    len(list_distinct(flatten(list(labels)))) AS classes,
    count_if(len(labels) > 0) AS labelled,
    count_if(len(captions) > 0) AS captioned,
    sum(len(boxes))::BIGINT AS boxes,
    count_if(has_mask) AS masks,
    count_if(has_depth) AS depths,
    count_if(here > 1) AS repeated,
    count_if(everywhere > here) AS elsewhere,
    count(duplicate_of) AS near_held_out,
    list_sort(list_distinct(flatten(list(unmapped)))) AS unmapped
FROM hashed GROUP BY ALL ORDER BY ALL
"""
_SHARED = """
SELECT sha256, source, labels FROM samples WHERE sha256 IN
    (SELECT sha256 FROM samples GROUP BY sha256 HAVING count(DISTINCT source) > 1)
ORDER BY sha256, source, split, name
"""
_SELECTED = """
SELECT spec, source, licence, split, width, number, name, sha256 FROM samples
WHERE ({}) ORDER BY spec, source, licence, split, width, number
"""


class Labels(NamedTuple):
    """What a row says of its image."""

    sha256: str
    source: str
    labels: Sequence[str]


def show(folder: Path) -> list[dict[str, Any]]:
    """A row for each source and split: counts, licences, names without a concept, duplicates.

    ``repeated`` are pictures that the source holds more than once and ``elsewhere`` those that
    another source holds too, by equal perceptual hashes; ``near_held_out`` resemble a picture of a
    split to judge by.
    """
    columns, rows = ask(folder, _SHOWN)
    return [dict(zip(columns, each, strict=True)) for each in rows]


def disagreements(folder: Path) -> list[Disagreement]:
    """Images that two sources label with what cannot both be true, by the hash of the file."""
    rows = (Labels(*each) for each in ask(folder, _SHARED)[1])
    return graph.disagreements(rows, graph.load())


def renamed(given: Iterable[Sample], source: str, licence: str, split: str) -> Iterator[Sample]:
    """`given` under another source, licence and split; an empty one is left as the source says."""
    said = {"source": source, "licence": licence, "split": split}
    other = {name: each for name, each in said.items() if each}
    return (replace(each, **other) if other else each for each in given)


def write_selected(
    folder: Path, condition: str, out: str | Path, per_shard: int = 1000
) -> ShardSet:
    """The samples of a catalog for which `condition` holds, read again and written into shards.

    Args:
        condition: what follows WHERE, such as ``split = 'train' AND duplicate_of IS NULL``.

    Raises:
        BadInput: SQL that is wrong or selects nothing.
        BadData: an image that is no longer what the catalog says.
    """
    rows = ask(folder, _SELECTED.format(condition))[1]
    if not rows:
        raise BadInput(
            f"{condition!r} selects no sample of {folder}; learn catalog show lists them"
        )
    return write_shards(track(_read_again(rows), "writing", len(rows)), out, per_shard)


def _read_again(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sample]:
    for (spec, source, licence, split, width), some in groupby(rows, lambda each: each[:5]):
        wanted = [each[5:] for each in some]
        read = numbered(spec, width, [number for number, _, _ in wanted])
        for each, (_, name, sha256) in zip(
            renamed(read, source, licence, split), wanted, strict=True
        ):
            if each.sha256 != sha256:
                raise BadData(
                    f"image {name} of {spec} is not what it was when it was added; add {spec} again"
                )
            yield each


def catalog_add(
    folder: str, spec: str, origin: Origin | None = None, size: int = 64
) -> dict[str, Any]:
    """Add the samples of a spec, as `sources.source` takes it.

    Args:
        origin: source, licence and split instead of what the spec says; empty ones are not changed.
        size: pixels a side of rendered scenes.
    """
    named = origin or Origin("", "", "")
    read = track(samples(spec, size), "adding", count(spec))
    given = renamed(read, named.source, named.licence, named.split)
    return asdict(add(Path(folder), tables(given, spec, graph.load())))


def catalog_show(folder: str) -> dict[str, Any]:
    """The rows of `show` and what sources disagree on."""
    said = [asdict(each) for each in disagreements(Path(folder))]
    return {"sources": show(Path(folder)), "disagreements": said}


def catalog_sql(folder: str, query: str) -> dict[str, Any]:
    """Columns and rows of one SELECT; what JSON has no type for is text."""
    columns, rows = ask(Path(folder), query)
    return {"columns": columns, "rows": [_plain(each) for each in rows]}


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)
