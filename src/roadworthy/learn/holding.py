"""Samples as tensors: decoded once, squashed to squares, with what one task asks of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from roadworthy.core.dense_data import VOID
from roadworthy.core.sources import decode
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.batches import NOTHING, Batch, Source, Task
from roadworthy.learn.dense_losses import STRIDES
from roadworthy.learn.sample import Sample

Row = dict[str, NDArray[Any]]


def hold(samples: Iterable[Sample], task: Task, size: int, classes: Sequence[str] = ()) -> Source:
    """Decode `samples` once, squashed to squares of `size` pixels, with what `task` asks of them.

    With `classes`, samples are gone through one at a time and none is kept as it was.

    Args:
        classes: their order; none means those that occur, sorted.

    Raises:
        BadInput: a size that is no multiple of 32, the coarsest stride of the heads.
        BadData: no samples, one without the annotation, or a class that is not among `classes`.
    """
    check_side(size)
    shown = samples if classes or task == "depth" else list(samples)
    known = tuple(classes) or classes_of((_annotated(each, task) for each in shown), task)
    ids = {name: number for number, name in enumerate(known)}
    source, rows = "", list[Row]()
    for each in shown:
        source = source or each.source
        rows.append(_row(_annotated(each, task), task, size, ids))
    if not rows:
        raise BadData(f"no sample to learn {task} from; give a source that has some")
    images = _stacked([row.pop("images") for row in rows])
    said = {name: torch.from_numpy(each) for name, each in _collated(rows, task).items()}
    return Source(source, task, known, replace(Batch(images), **said))


def images_of(samples: Sequence[Sample], task: str, size: int) -> UInt8[Tensor, "n 3 size size"]:
    """The images of `samples`, squashed to squares; fails as `hold` does."""
    check_side(size)
    if not samples:
        raise BadData(f"no sample to learn {task} from; give a source that has some")
    return _stacked([squashed(decode(each.image, each.name), size) for each in samples])


def check_side(size: int) -> None:
    """BadInput where squares of that side have no map of stride 32."""
    if size < 1 or size % STRIDES[-1]:
        raise BadInput(f"{size} pixels a side given; a multiple of {STRIDES[-1]} is needed")


def _annotated(sample: Sample, task: Task) -> Sample:
    check_annotated(sample, task)
    return sample


def _stacked(images: Sequence[UInt8[NDArray[np.uint8], "s s 3"]]) -> UInt8[Tensor, "n 3 s s"]:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def check_annotated(sample: Sample, task: Task) -> None:
    """BadData where a sample says nothing for a task."""
    has = {
        "classification": len(sample.labels) > 0,
        "detection": sample.boxes is not None,
        "segmentation": sample.mask is not None,
        "depth": sample.depth is not None,
    }
    if not has[task]:
        there = [name for name, found in has.items() if found]
        own = f"it has what {', '.join(there)} needs" if there else "it has no annotation"
        raise BadData(f"image {sample.name} of {sample.source} says nothing for {task}; {own}")


def classes_of(held: Iterable[Sample], task: Task) -> tuple[str, ...]:
    """Names of the classes that occur, sorted; of masks all that their ids may mean.

    Samples are gone through one at a time.

    Raises:
        BadData: a sample without a class.
    """
    match task:
        case "classification":
            return tuple(sorted({class_of(each) for each in held}))
        case "detection":
            return tuple(sorted({name for each in held for name in each.box_labels}))
        case "segmentation":
            return _mask_classes(held)
        case _:
            return ()


def class_of(sample: Sample) -> str:
    """The first class of a sample; BadData where it has none."""
    check_annotated(sample, "classification")
    return sample.labels[0]


def _mask_classes(held: Iterable[Sample]) -> tuple[str, ...]:
    named: dict[str, None] = {}
    highest = 0
    for each in held:
        named |= dict.fromkeys(each.mask_labels)
        if each.mask is not None:
            highest = max(highest, int(each.mask[each.mask != VOID].max(initial=0)))
    return tuple(named) or tuple(map(str, range(highest + 1)))


def squashed(image: Image.Image, size: int) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """The pixels of a square of `size`, whatever shape the image has."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _row(sample: Sample, task: Task, size: int, ids: dict[str, int]) -> Row:
    """The pixels of a sample and what it says, as small as they will be held."""
    image = decode(sample.image, sample.name)
    row: Row = {"images": squashed(image, size)}
    match task:
        case "classification":
            return row | {"labels": np.array(_id(ids, sample.labels[0], sample), np.int64)}
        case "detection":
            assert sample.boxes is not None
            scale = np.array([size / image.width, size / image.height] * 2)
            labels = [_id(ids, name, sample) for name in sample.box_labels]
            return row | {
                "boxes": (sample.boxes * scale).astype(np.float32),
                "box_labels": np.array(labels, np.int64),
            }
        case "segmentation":
            return row | {"masks": by_names(_nearest(sample.mask, size), sample, tuple(ids))}
        case "depth":
            return row | {"depth": _nearest(sample.depth, size)}


def _id(ids: dict[str, int], name: str, sample: Sample) -> int:
    if name not in ids:
        raise BadData(f"image {sample.name} is of class {name!r}; {', '.join(ids)} are known")
    return ids[name]


def by_names(
    mask: UInt8[NDArray[np.uint8], "h w"], sample: Sample, known: Sequence[str]
) -> UInt8[NDArray[np.uint8], "h w"]:
    """A mask of `sample` by the numbers of `known` classes, whatever its own ids stand for.

    Ids without names are numbers of `known` already.

    Raises:
        BadData: a pixel of an id without a class, or of a class that is not known.
    """
    named = sample.mask_labels or tuple(known)
    check_ids(mask, sample, len(named))
    if named == tuple(known):
        return mask
    if len(known) > VOID:
        raise BadData(f"masks of {len(known)} classes given; {VOID} or fewer are needed")
    ids = {name: number for number, name in enumerate(known)}
    table = np.full(VOID + 1, VOID, np.uint8)
    for own in np.unique(mask[mask != VOID]).tolist():
        table[own] = _id(ids, named[own], sample)
    return table[mask]


def check_ids(mask: NDArray[np.uint8], sample: Sample, classes: int) -> None:
    """BadData where a mask has ids that are no classes."""
    if ((mask >= classes) & (mask != VOID)).any():
        raise BadData(
            f"the mask of image {sample.name} has ids beyond its {classes} classes; 0 to "
            f"{classes - 1} and {VOID} are allowed"
        )


def _collated(rows: Sequence[Row], task: Task) -> Row:
    """All rows as one; boxes padded by rows of zeros."""
    if task != "detection":
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    most = max(1, *(len(row["boxes"]) for row in rows), 1)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    labels = np.full((len(rows), most), NOTHING, np.int64)
    for number, row in enumerate(rows):
        boxes[number, : len(row["boxes"])] = row["boxes"]
        labels[number, : len(row["boxes"])] = row["box_labels"]
    return {"boxes": boxes, "box_labels": labels}


def _nearest(pixels: NDArray[Any] | None, size: int) -> NDArray[Any]:
    assert pixels is not None
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in pixels.shape)
    return pixels[rows[:, None], columns]
