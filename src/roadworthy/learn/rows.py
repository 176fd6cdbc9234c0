"""A sample as a row of the catalog: everything that can be asked of it, without its pixels."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import UInt64
from numpy.typing import NDArray
from PIL import ImageOps

from roadworthy.core.sources import decode
from roadworthy.learn.concepts import Concepts
from roadworthy.learn.duplicates import perceptual_hash
from roadworthy.learn.sample import Sample

ROWS = 1000
"""Samples in one table, which is what memory holds while a source is added."""


def schema() -> Any:
    """Columns of the catalog, as pyarrow types.

    ``spec`` and ``number`` say where the image is read again; both perceptual hashes, of the
    picture and of its mirror image, are 64 hexadecimal digits; boxes are pixels of the upright
    image.
    """
    import pyarrow as pa

    names = pa.list_(pa.string())
    corners = [(side, pa.float64()) for side in ("x1", "y1", "x2", "y2")]
    box = pa.struct([*corners, ("label", pa.string()), ("concept", pa.string())])
    text = ("source", "licence", "split", "name", "spec")
    hashed = ("sha256", "phash", "phash_mirrored")
    lists = ("captions", "labels", "concepts", "mask_labels", "unmapped")
    return pa.schema(
        [
            *((each, pa.string()) for each in text),
            ("number", pa.int64()),
            *((each, pa.string()) for each in hashed),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *((each, names) for each in lists),
            ("boxes", pa.list_(box)),
            ("has_mask", pa.bool_()),
            ("has_depth", pa.bool_()),
        ]
    )


def row(sample: Sample, spec: str, number: int, concepts: Concepts) -> dict[str, Any]:
    """What the catalog says of sample `number` of `spec`; decodes the image once.

    Raises:
        BadData: an image that is corrupt.
    """
    image = decode(sample.image, sample.name)
    named = [*sample.labels, *sample.box_labels, *sample.mask_labels]
    found = {each: concepts.find(each, sample.source) for each in dict.fromkeys(named)}
    corners = [] if sample.boxes is None else np.asarray(sample.boxes, np.float64).tolist()
    return {
        "source": sample.source,
        "licence": sample.licence,
        "split": sample.split,
        "name": sample.name,
        "spec": spec,
        "number": number,
        "sha256": sample.sha256,
        "phash": digits(perceptual_hash(image)),
        "phash_mirrored": digits(perceptual_hash(ImageOps.mirror(image))),
        "width": image.width,
        "height": image.height,
        "captions": list(sample.captions),
        "labels": list(sample.labels),
        "concepts": [found[each] for each in sample.labels if found[each]],
        "mask_labels": list(sample.mask_labels),
        "unmapped": [each for each, concept in found.items() if concept is None],
        "boxes": [
            {**dict(zip(("x1", "y1", "x2", "y2"), each, strict=True)), **said}
            for each, said in zip(corners, _meant(sample.box_labels, found), strict=True)
        ],
        "has_mask": sample.mask is not None,
        "has_depth": sample.depth is not None,
    }


def _meant(labels: Iterable[str], found: dict[str, str | None]) -> list[dict[str, str | None]]:
    return [{"label": each, "concept": found[each]} for each in labels]


def tables(
    samples: Iterable[Sample], spec: str, concepts: Concepts, first: int = 0
) -> Iterator[Any]:
    """Arrow tables of the rows of `samples`, whose first is number `first` of `spec`."""
    import pyarrow as pa

    numbered = enumerate(samples, first)
    while taken := [row(each, spec, i, concepts) for i, each in islice(numbered, ROWS)]:
        yield pa.Table.from_pylist(taken, schema())


def unmapped(table: Any) -> Counter[tuple[str, str]]:
    """How many rows of `table` have a name that no concept has: by source and name."""
    found = zip(table["source"].to_pylist(), table["unmapped"].to_pylist(), strict=True)
    return Counter((source, name) for source, names in found for name in names)


def digits(bits: UInt64[NDArray[np.uint64], "4"]) -> str:
    """A perceptual hash as text.

    >>> digits(np.array([1, 0, 0, 255], np.uint64))[:16]
    '0100000000000000'
    """
    return bits.astype("<u8").tobytes().hex()


def bits(texts: Iterable[str]) -> UInt64[NDArray[np.uint64], "n 4"]:
    """Perceptual hashes out of their texts, the way back from `digits`.

    >>> bits([digits(np.array([1, 2, 3, 255], np.uint64))]).tolist()
    [[1, 2, 3, 255]]
    """
    content = b"".join(map(bytes.fromhex, texts))
    return np.frombuffer(content, "<u8").astype(np.uint64).reshape(-1, 4)
