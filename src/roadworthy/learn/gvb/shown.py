"""What an adapted backbone answers about a data set's test images, in the pixels of their files."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from roadworthy.core.dense import Depth, Segmentation
from roadworthy.core.dense_data import VOID
from roadworthy.core.detection import Detection
from roadworthy.core.images import Placement, Size
from roadworthy.core.progress import track
from roadworthy.core.sources import decode
from roadworthy.core.tasks import Answer, Classification
from roadworthy.core.tasks import Task as Answering
from roadworthy.errors import BadData
from roadworthy.learn.adapt.adapted import AdaptedModel
from roadworthy.learn.adapt.fit import Adapted
from roadworthy.learn.backbones import Backbone
from roadworthy.learn.batches import Batch, Task, see_whole
from roadworthy.learn.duplicates import CLOSE, Hashes, both_ways, hashes, nearest
from roadworthy.learn.features import kept, network_hash
from roadworthy.learn.gvb.part import Part
from roadworthy.learn.holding import check_annotated, check_ids, squashed
from roadworthy.learn.sample import Sample
from roadworthy.learn.tasks import BATCH

_MOST = 1000
"""Boxes that judge a detector on an image: CityPersons' limit; WIDER FACE has none."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Test images, decoded once for all that are asked about them.

    Args:
        images: squashed to squares, as bytes.
        sizes: height and width of each file.
    """

    images: UInt8[Tensor, "n 3 s s"]
    sizes: tuple[Size, ...]

    @cached_property
    def sha256(self) -> str:
        """Of the images as they are held."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()

    @cached_property
    def hashes(self) -> Hashes:
        """Perceptual ones, of the squares."""
        return hashes(pictures(self.images))


def show(part: Part, size: int) -> Shown:
    """The images of a part, as squares of `size` pixels; samples are gone through one at a time.

    Raises:
        BadData: an image that cannot be read, or whose annotation is missing or of other classes;
            no image by which the metric is defined.
    """
    judging = False
    images = np.empty((len(part), size, size, 3), np.uint8)
    sizes: list[Size] = []
    for number, sample in enumerate(track(part, f"decoding {part.origin.source}", len(part))):
        judging |= _judging(part, number, sample)
        image = decode(sample.image, sample.name)
        sizes.append((image.height, image.width))
        images[number] = squashed(image, size)
    if not judging:
        what = {"detection": "object to find", "segmentation": "pixel of a class"}
        raise BadData(
            f"{len(part)} test images of {part.origin.source} have no "
            f"{what.get(part.task, 'depth')} to judge by; give more of them, or others"
        )
    return Shown(torch.from_numpy(images).permute(0, 3, 1, 2), tuple(sizes))


def _judging(part: Part, number: int, sample: Sample) -> bool:
    """Whether an image judges, after a look at what the metric will read: the longest adaptation
    comes before it, and must not be in vain.
    """
    check_annotated(sample, part.task)
    if part.target is not None:
        ignored = part.target(number).ignored.values()
        return any(not each.all() for each in ignored)
    if sample.mask is not None and part.task == "segmentation":
        check_ids(sample.mask, sample, len(part.classes))
        return bool((sample.mask != VOID).any())
    return part.task != "depth" or (sample.depth is not None and bool((sample.depth > 0).any()))


def pictures(images: UInt8[Tensor, "n 3 s s"]) -> Iterator[Image.Image]:
    """Images that are held as bytes."""
    return (Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images)


def repeated(part: Part, shown: Shown, learned: UInt8[Tensor, "m 3 s s"]) -> list[str]:
    """Names of the images of `part` that resemble one to learn from, the right way round or not."""
    known = both_ways(pictures(learned))
    bits = nearest(shown.hashes, known)[1]
    return [name for name, each in zip(part.names, bits, strict=True) if each <= CLOSE]


def answers(
    adapted: Adapted,
    task: Task,
    classes: int,
    shown: Shown,
    device: torch.device,
    cache: Path | None = None,
) -> Iterator[Answer]:
    """What the model says of each image, as `core.tasks` has it, in pixels of the image file.

    Args:
        cache: folder in which the features of classified images are kept, where the backbone is
            not one of its own for these data.
    """
    size = shown.images.shape[-1]
    model = AdaptedModel(adapted.body, adapted.head, task, size).eval().to(device)
    says = _answering(task, classes, size)
    pooled = None
    if task == "classification" and cache is not None:
        pooled = _pooled(adapted.body, shown, device, cache)
    for start in track(range(0, len(shown.sizes), BATCH), "answering"):
        part = slice(start, start + BATCH)
        with torch.no_grad():
            if pooled is None:
                said = model(_seen(shown, part, device))
            else:
                said = adapted.head(pooled[part].to(device))
        places = [_placed(each, size) for each in shown.sizes[part]]
        yield from says.answers(said.float().cpu(), places, "as-trained")


def _answering(task: Task, classes: int, size: int) -> Answering:
    match task:
        case "classification":
            return Classification()
        case "detection":
            return Detection("xyxy-shares", most=_MOST)
        case "segmentation":
            return Segmentation(classes, (size, size))
        case "depth":
            return Depth((size, size))
        case _:
            assert_never(task)


def _placed(size: Size, side: int) -> Placement:
    return Placement((side / size[0], side / size[1]), (0, 0), size)


def _seen(shown: Shown, part: slice, device: torch.device) -> Float[Tensor, "b 3 s s"]:
    return see_whole(Batch(shown.images[part].to(device))).images


def _pooled(
    body: Backbone, shown: Shown, device: torch.device, cache: Path
) -> Float[Tensor, "n d"]:
    """Pooled features of all images, out of `cache` where they are there."""

    def made() -> dict[str, Tensor]:
        starts = range(0, len(shown.sizes), BATCH)
        with torch.no_grad():
            found = [
                body(_seen(shown, slice(start, start + BATCH), device)).cpu()
                for start in track(starts, "encoding")
            ]
        return {"pooled": torch.cat(found)}

    return kept(cache, f"{network_hash(body)} {shown.sha256}", made)["pooled"]
