"""Samples as tensors: decoded once, held as bytes, and turned into views where the model computes.

A view is a crop, a flip and a change of colour. What moves pixels moves boxes, masks and depth too.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from roadworthy.core.images import IMAGENET
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

    @property
    def side(self) -> int:
        """Pixels of a side; images are squares."""
        return self.images.shape[-1]

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
        boxes, kept = move_boxes(batch.boxes, views, batch.side)
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
