"""Samples as tensors: decoded once, held as bytes, and turned into views where the model computes.

A view is a crop, a flip and a change of colour. What moves pixels moves boxes, masks and depth too.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from roadworthy.core.dense_data import VOID
from roadworthy.core.images import IMAGENET
from roadworthy.core.sources import decode
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.dense_losses import STRIDES
from roadworthy.learn.sample import Sample
from roadworthy.requests import LearnTask

Task = LearnTask
NOTHING = -1
"""The class of a row of boxes that holds none."""
_LEAST = 0.25
"""The share of a box that a crop must leave for the box to stay."""
_SMALLEST = 1.0
"""Square pixels of the smallest box that can be seen."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images with what one task says of them; None where it says nothing.

    Args:
        images: bytes of a store, or normalised numbers of a view.
        labels: class of each image.
        boxes: x1 y1 x2 y2 in pixels, padded by rows of zeros.
        box_labels: class of each box, `NOTHING` of padding.
        masks: id of each pixel, `VOID` where nobody says.
        depth: metres, NaN where none was measured.
        numbers: which images of their source these are.
        again: the same images in another view, for contrastive losses.
        texts: two captions of each image, as tokens.
        shown: the first of them with gaps.
        hidden: what was in the gaps.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"] | None = None
    boxes: Float[Tensor, "b n 4"] | None = None
    box_labels: Int[Tensor, "b n"] | None = None
    masks: UInt8[Tensor, "b h w"] | None = None
    depth: Float[Tensor, "b h w"] | None = None
    numbers: Int[Tensor, " b"] | None = None
    again: Float[Tensor, "b 3 h w"] | None = None
    texts: Int[Tensor, "b 2 t"] | None = None
    shown: Int[Tensor, "b t"] | None = None
    hidden: Int[Tensor, "b t"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> "Batch":
        """The images of an index as tensors take it."""
        return replace(self, **{name: each[index] for name, each in self.tensors().items()})

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        moved = {name: each.to(device) for name, each in self.tensors().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are there."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each for name, each in held.items() if each is not None}


@dataclass(frozen=True, eq=False)
class Source:
    """A set that one task learns from, held in memory.

    Args:
        name: of the data set.
        classes: names of the ids in `content`; () for tasks without classes.
        content: all images, as bytes.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    content: Batch

    def __len__(self) -> int:
        return len(self.content)

    @property
    def sha256(self) -> str:
        """Hash of images and annotations, as they are held."""
        return digest((self.task, self.classes), self.content)


def digest(said: Any, content: Batch) -> str:
    """Hash of tensors and of the names that are held with them."""
    hashed = hashlib.sha256(repr(said).encode())
    for name, each in sorted(content.tensors().items()):
        hashed.update(name.encode())
        hashed.update(each.contiguous().numpy().tobytes())
    return hashed.hexdigest()


def hold(samples: Iterable[Sample], task: Task, size: int, classes: Sequence[str] = ()) -> Source:
    """Decode `samples` once, squashed to squares of `size` pixels, with what `task` asks of them.

    Args:
        classes: their order; none means those that occur, sorted.

    Raises:
        BadInput: a size that is no multiple of 32, the coarsest stride of the heads.
        BadData: no samples, one without the annotation, or a class that is not among `classes`.
    """
    held = list(samples)
    for each in held:
        check_annotated(each, task)
    content = Batch(images_of(held, task, size))
    known = tuple(classes) or classes_of(held, task)
    said = {name: torch.from_numpy(v) for name, v in _said(held, task, size, known).items()}
    return Source(held[0].source, task, known, replace(content, **said))


def images_of(samples: Sequence[Sample], task: str, size: int) -> UInt8[Tensor, "n 3 size size"]:
    """The images of `samples`, squashed to squares; fails as `hold` does."""
    if size < 1 or size % STRIDES[-1]:
        raise BadInput(f"{size} pixels a side given; a multiple of {STRIDES[-1]} is needed")
    if not samples:
        raise BadData(f"no sample to learn {task} from; give a source that has some")
    images = np.stack([squashed(decode(each.image, each.name), size) for each in samples])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


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
        raise BadData(
            f"image {sample.name} of {sample.source} says nothing for {task}; it has what "
            f"{', '.join(there) or 'no task'} needs"
        )


def classes_of(held: Iterable[Sample], task: Task) -> tuple[str, ...]:
    """Names of the classes that occur, sorted; of masks all that their ids may mean.

    Samples are gone through one at a time.

    Raises:
        BadData: a sample without a class.
    """
    match task:
        case "classification":
            return tuple(sorted({_class_of(each) for each in held}))
        case "detection":
            return tuple(sorted({name for each in held for name in each.box_labels}))
        case "segmentation":
            return _mask_classes(held)
        case _:
            return ()


def _class_of(sample: Sample) -> str:
    check_annotated(sample, "classification")
    return sample.labels[0]


def _mask_classes(held: Iterable[Sample]) -> tuple[str, ...]:
    highest = 0
    for each in held:
        if each.mask_labels:
            return each.mask_labels
        if each.mask is not None:
            highest = max(highest, int(each.mask[each.mask != VOID].max(initial=0)))
    return tuple(map(str, range(highest + 1)))


def squashed(image: Image.Image, size: int) -> UInt8[NDArray[np.uint8], "s s 3"]:
    """The pixels of a square of `size`, whatever shape the image has."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _said(
    held: Sequence[Sample], task: Task, size: int, classes: Sequence[str]
) -> dict[str, NDArray[Any]]:
    ids = {name: number for number, name in enumerate(classes)}
    match task:
        case "classification":
            return {"labels": np.array([_id(ids, s.labels[0], s) for s in held], np.int64)}
        case "detection":
            return _box_rows(held, size, ids)
        case "segmentation":
            masks = np.stack([_nearest(s.mask, size) for s in held])
            _check_ids(masks, held, len(classes))
            return {"masks": masks}
        case "depth":
            return {"depth": np.stack([_nearest(s.depth, size) for s in held])}


def _id(ids: dict[str, int], name: str, sample: Sample) -> int:
    if name not in ids:
        raise BadData(f"image {sample.name} is of class {name!r}; {', '.join(ids)} are known")
    return ids[name]


def _check_ids(masks: NDArray[np.uint8], held: Sequence[Sample], classes: int) -> None:
    wrong = ((masks >= classes) & (masks != VOID)).any((1, 2))
    if wrong.any():
        raise BadData(
            f"the mask of image {held[int(wrong.argmax())].name} has ids beyond its {classes} "
            f"classes; 0 to {classes - 1} and {VOID} are allowed"
        )


def _box_rows(held: Sequence[Sample], size: int, ids: dict[str, int]) -> dict[str, NDArray[Any]]:
    most = max(1, *(len(each.box_labels) for each in held), 1)
    rows = np.zeros((len(held), most, 4), np.float32)
    labels = np.full((len(held), most), NOTHING, np.int64)
    for number, each in enumerate(held):
        if each.boxes is None or not len(each.boxes):
            continue
        width, height = decode(each.image, each.name).size
        scale = np.array([size / width, size / height] * 2)
        rows[number, : len(each.boxes)] = each.boxes * scale
        labels[number, : len(each.boxes)] = [_id(ids, name, each) for name in each.box_labels]
    return {"boxes": rows, "box_labels": labels}


def _nearest(pixels: NDArray[Any] | None, size: int) -> NDArray[Any]:
    assert pixels is not None
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in pixels.shape)
    return pixels[rows[:, None], columns]


@dataclass(frozen=True)
class Augmentation:
    """How much views may differ.

    Args:
        crop: least and greatest share of the area that is seen.
        aspect: greatest ratio between the crop's sides, either way.
        flip: share of views that are mirrored.
        colour: by how much brightness, contrast and saturation change, either way.
    """

    crop: tuple[float, float] = (0.4, 1.0)
    aspect: float = 1.25
    flip: float = 0.5
    colour: float = 0.2


class Views(NamedTuple):
    """What is seen of each image."""

    boxes: Float[Tensor, "b 4"]
    """x1 y1 x2 y2 as shares of the sides."""
    flips: Bool[Tensor, " b"]
    colours: Float[Tensor, "b 3"]
    """Factors of brightness, contrast and saturation."""

    def part(self, of: slice) -> "Views":
        """Those of some of the images."""
        return Views(*(each[of] for each in self))

    def to(self, device: torch.device) -> "Views":
        """The same on another device."""
        return Views(*(each.to(device) for each in self))


def draw_views(count: int, how: Augmentation, generator: torch.Generator) -> Views:
    """`count` views at random."""
    u = torch.rand(count, 8, generator=generator)
    area = how.crop[0] + (how.crop[1] - how.crop[0]) * u[:, 0]
    ratio = (np.log(how.aspect) * (2 * u[:, 1] - 1)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
    corner = (1 - sides) * u[:, 2:4]
    colours = 1 + how.colour * (2 * u[:, 5:] - 1)
    return Views(torch.cat([corner, corner + sides], 1), u[:, 4] < how.flip, colours)


def see_whole(batch: Batch) -> Batch:
    """A batch of bytes as it is, normalised as `see` does; boxes that are hardly seen are none."""
    seen = replace(batch, images=_normalised(batch.images.float()))
    if batch.boxes is None or batch.box_labels is None:
        return seen
    labels = batch.box_labels.where(
        area(batch.boxes) > _SMALLEST, torch.full_like(batch.box_labels, NOTHING)
    )
    return replace(seen, box_labels=labels)


def see(batch: Batch, views: Views) -> Batch:
    """The views of a batch of bytes, normalised by ImageNet's mean and deviation.

    Depth is divided by how much the crop enlarges: for the same lens, what looks twice as large is
    half as far.
    """
    seen = replace(batch, images=_normalised(_coloured(_cropped(batch.images, views), views)))
    if batch.boxes is not None and batch.box_labels is not None:
        boxes, kept = move_boxes(batch.boxes, views, batch.images.shape[-1])
        labels = batch.box_labels.where(kept, torch.full_like(batch.box_labels, NOTHING))
        seen = replace(seen, boxes=boxes, box_labels=labels)
    if batch.masks is not None:
        seen = replace(seen, masks=_cropped(batch.masks[:, None], views, "nearest")[:, 0].byte())
    if batch.depth is not None:
        sides = views.boxes[:, 2:] - views.boxes[:, :2]
        nearer = sides.prod(1).sqrt()[:, None, None]
        seen = replace(seen, depth=_cropped(batch.depth[:, None], views, "nearest")[:, 0] * nearer)
    return seen


def _cropped(
    pixels: Shaped[Tensor, "b c h w"], views: Views, mode: str = "bilinear"
) -> Float[Tensor, "b c h w"]:
    x1, y1, x2, y2 = views.boxes.unbind(1)
    zero = torch.zeros_like(x1)
    mirrored = torch.where(views.flips, -1.0, 1.0)
    across = torch.stack([(x2 - x1) * mirrored, zero, x1 + x2 - 1], 1)
    down = torch.stack([zero, y2 - y1, y1 + y2 - 1], 1)
    theta = torch.stack([across, down], 1)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode, "border", align_corners=False)


def _coloured(images: Float[Tensor, "b 3 h w"], views: Views) -> Float[Tensor, "b 3 h w"]:
    bright, contrast, saturation = views.colours[:, :, None, None, None].unbind(1)
    grey = images.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    mixed = torch.lerp(grey.expand_as(images), images, saturation)
    return (torch.lerp(level.expand_as(images), mixed, contrast) * bright).clamp(0, 255)


def _normalised(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    mean, std = (
        255 * images.new_tensor(each).view(1, 3, 1, 1) for each in (IMAGENET.mean, IMAGENET.std)
    )
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def move_boxes(
    boxes: Float[Tensor, "b n 4"], views: Views, side: int
) -> tuple[Float[Tensor, "b n 4"], Bool[Tensor, "b n"]]:
    """Boxes in the pixels of their views, and which of them are still seen well enough."""
    x1, y1, x2, y2 = (views.boxes * side)[:, None].unbind(-1)
    wide, high = (x2 - x1) / side, (y2 - y1) / side
    left, top = (boxes[..., 0] - x1) / wide, (boxes[..., 1] - y1) / high
    right, bottom = (boxes[..., 2] - x1) / wide, (boxes[..., 3] - y1) / high
    flips = views.flips[:, None]
    left, right = torch.where(flips, side - right, left), torch.where(flips, side - left, right)
    moved = torch.stack([left, top, right, bottom], -1)
    seen = moved.clamp(0, side)
    kept = (area(seen) >= _LEAST * area(moved)) & (area(seen) > _SMALLEST)
    return seen * kept[..., None], kept


def area(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Square pixels of each box."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
