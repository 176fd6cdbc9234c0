"""What experts lower: losses of classes, boxes, masks and depths, and the targets of boxes.

Every loss is the mean over the images of a batch of a loss of each image alone, normalised by that
image's own boxes or pixels: batches of equal size on several ranks come to what one large batch
does. An image that says nothing adds zero, with a gradient of zero. All is computed in float32.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from roadworthy.core.dense_data import VOID

IGNORED = -1
"""Label, or entry of a multi-hot label, that nobody says anything of."""
STRIDES = (4, 8, 16, 32)
"""Pixels between the locations of each level at which boxes are looked for."""
_RADIUS = 1.5
_LARGEST = 8
_LAMBDA = 0.5

Rows = Int[Tensor, "b n k"]
Corners = Float[Tensor, "b n 4"]


class Targets(NamedTuple):
    """What every location is to answer.

    classes: 1 there, 0 not there, `IGNORED` ``[b n k]``.
    boxes: the location's box, x1 y1 x2 y2 in pixels; zero where it has none.
    found: whether the location has a box.
    """

    classes: Rows
    boxes: Corners
    found: Bool[Tensor, "b n"]


class Locations(NamedTuple):
    """Where boxes are looked for: x and y in pixels of the input, and the level's stride."""

    points: Float[Tensor, "n 2"]
    strides: Float[Tensor, " n"]


def locations(sizes: list[tuple[int, int]], device: torch.device | str = "cpu") -> Locations:
    """The centres of the cells of maps of these heights and widths, one for each of `STRIDES`.

    >>> locations([(1, 2), (1, 1), (1, 1), (1, 1)]).points.tolist()
    [[2.0, 2.0], [6.0, 2.0], [4.0, 4.0], [8.0, 8.0], [16.0, 16.0]]
    """
    points: list[Tensor] = []
    strides: list[Tensor] = []
    for (rows, columns), stride in zip(sizes, STRIDES, strict=True):
        y, x = (
            (torch.arange(n, device=device, dtype=torch.float32) + 0.5) * stride
            for n in (rows, columns)
        )
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2)
        points.append(grid)
        strides.append(torch.full_like(grid[:, 0], stride))
    return Locations(torch.cat(points), torch.cat(strides))


def targets(at: Locations, boxes: Float[Tensor, "b m 4"], classes: Int[Tensor, "b m k"]) -> Targets:
    """Which box each location is to find; after FCOS (arXiv 1904.01355).

    A box belongs to one level: the longest side of those of stride s is 4 s to 8 s. There it has
    the locations inside it and within 1.5 strides of its centre, and always the one whose cell its
    centre is in, so that the smallest boxes are found too. Of several boxes the smallest wins.

    Args:
        boxes: x1 y1 x2 y2 in pixels of the input; those without an area fill up and are no boxes.
        classes: of each box 1, 0 or `IGNORED`; a box of no class at all only says where nothing is
            to be learned.
    """
    if not boxes.shape[1]:
        boxes, classes = boxes.new_zeros(len(boxes), 1, 4), _one_row(classes)
    mine = _candidates(at, boxes)
    low, high = boxes.float().split(2, -1)
    areas = (high - low).prod(-1)[:, None].expand(mine.shape)
    area, which = torch.where(mine, areas, torch.inf).min(2)
    hit = area.isfinite()
    labels = classes.gather(1, which[..., None].expand(-1, -1, classes.shape[2]))
    labels = torch.where(hit[..., None], labels, 0)
    found = hit & (labels == 1).any(2)
    own = boxes.float().gather(1, which[..., None].expand(-1, -1, 4))
    return Targets(labels, torch.where(found[..., None], own, 0.0), found)


def _one_row(classes: Int[Tensor, "b 0 k"]) -> Int[Tensor, "b 1 k"]:
    return classes.new_zeros(len(classes), 1, classes.shape[2])


def _candidates(at: Locations, boxes: Float[Tensor, "b m 4"]) -> Bool[Tensor, "b n m"]:
    low, high = (corner[:, None] for corner in boxes.float().split(2, -1))
    points, strides = at.points[:, None], at.strides[:, None]
    off = points - (low + high) / 2
    inside = ((points > low) & (points < high)).all(-1) & (off.abs().amax(-1) < _RADIUS * strides)
    # The cell of the centre, half open as cells are, so that no centre is in two.
    cell = ((off > -strides[..., None] / 2) & (off <= strides[..., None] / 2)).all(-1)
    side = (high - low).amax(-1)
    first, last = STRIDES[0], STRIDES[-1]
    above = (side > _LARGEST / 2 * strides) | (strides == first)
    below = (side <= _LARGEST * strides) | (strides == last)
    return (inside | cell) & above & below & ((high - low) > 0).all(-1)


def detection_loss(logits: Float[Tensor, "b n k"], boxes: Corners, wanted: Targets) -> Tensor:
    """Focal loss of the classes plus generalised IoU loss of the boxes, a number.

    Args:
        boxes: x1 y1 x2 y2 in pixels of the input, x1 < x2 and y1 < y2.
    """
    classes = focal_loss(logits, wanted.classes, wanted.found)
    return classes + giou_loss(boxes, wanted.boxes, wanted.found)


def focal_loss(logits: Float[Tensor, "b n k"], classes: Rows, found: Bool[Tensor, "b n"]) -> Tensor:
    """Focal loss (arXiv 1708.02002, alpha .25, gamma 2) over the boxes' locations of each image.

    Entries that are `IGNORED` add nothing.
    """
    truth = (classes == 1).float()
    each = sigmoid_focal_loss(logits.float(), truth, alpha=0.25, gamma=2)
    summed = torch.where(classes == IGNORED, 0.0, each).sum((1, 2))
    return (summed / found.sum(1).clamp(min=1)).mean()


def giou_loss(boxes: Corners, truths: Corners, found: Bool[Tensor, "b n"]) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630) over the boxes' locations of each image."""
    each = generalized_box_iou_loss(boxes.float(), truths.float())
    summed = torch.where(found, each, 0.0).sum(1)
    return (summed / found.sum(1).clamp(min=1)).mean()


def classification_loss(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> Tensor:
    """Cross entropy; images whose label is `IGNORED` add nothing.

    >>> classification_loss(torch.zeros(2, 4), torch.tensor([3, -1])).item() * 2
    1.3862943649291992
    """
    each = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORED, reduction="none")
    return each.mean()


def segmentation_loss(logits: Float[Tensor, "b k y x"], masks: UInt8[Tensor, "b h w"]) -> Tensor:
    """Cross entropy plus Dice loss of every pixel that is not `VOID`.

    The latter is 1 - Dice (arXiv 1606.04797, squared) of each class that an image shows, their
    mean.

    Args:
        logits: of any size; enlarged to the masks' bilinearly.
        masks: class of each pixel.
    """
    judged = masks != VOID
    ids = torch.where(judged, masks, 0).long()
    logs = enlarged(logits, masks).log_softmax(1)
    right = logs.gather(1, ids[:, None])[:, 0]
    squares = (2 * logs + torch.where(judged, 0.0, -torch.inf)[:, None]).exp()
    hits = torch.where(judged, right.exp(), 0.0)
    shared, there = (_by_class(each, ids, logs.shape[1]) for each in (hits, judged.float()))
    dice = 2 * shared / (squares.sum((2, 3)) + there).clamp(min=1)
    return (_mean(1 - dice, there > 0) - _mean(right, judged)).mean()


def _by_class(
    each: Float[Tensor, "b h w"], ids: Int[Tensor, "b h w"], classes: int
) -> Float[Tensor, "b k"]:
    """Sums over the pixels of each class."""
    sums = each.new_zeros(len(each), classes)
    return sums.scatter_add(1, ids.flatten(1), each.flatten(1))


def depth_loss(depths: Float[Tensor, "b 1 y x"], truths: Float[Tensor, "b h w"]) -> Tensor:
    """Scale-invariant log loss (Eigen et al. 2014, equation 4, lambda .5).

    The variance of log answer - log truth over an image, plus half of its squared mean.

    Args:
        depths: metres, above 0, of any size; enlarged to the truths' bilinearly.
        truths: metres; NaN, infinite and 0 or less mean that none was measured.
    """
    judged = truths.isfinite() & (truths > 0)
    said = torch.where(judged, enlarged(depths, truths)[:, 0], 1.0)
    off = said.log() - torch.where(judged, truths.float(), 1.0).log()
    middle = _mean(off, judged)
    spread = _mean((off - middle[:, None, None]).square(), judged)
    return (spread + (1 - _LAMBDA) * middle.square()).mean()


def enlarged(maps: Float[Tensor, "b k y x"], like: Tensor) -> Float[Tensor, "b k h w"]:
    """Maps in float32 at the height and width of `like`, bilinear between cells.

    Two products of matrices, which are faster than `F.interpolate` there and back on a CPU.
    """
    (rows, columns), (high, wide) = maps.shape[-2:], like.shape[-2:]
    if (rows, columns) == (high, wide):
        return maps.float()
    down, across = _between(rows, high, maps.device), _between(columns, wide, maps.device)
    with torch.autocast(maps.device.type, enabled=False):
        return down.T @ (maps.float() @ across)


@lru_cache(maxsize=16)
def _between(cells: int, pixels: int, device: torch.device) -> Float[Tensor, "cells pixels"]:
    """What each cell of a line weighs at each of its pixels."""
    each = torch.eye(cells, device=device)[None]
    return F.interpolate(each, size=pixels, mode="linear")[0]


def _mean(each: Float[Tensor, " b *axes"], judged: Bool[Tensor, " b *axes"]) -> Float[Tensor, " b"]:
    """The mean of each image's judged entries, 0 where there is none."""
    summed = torch.where(judged, each, 0.0).flatten(1).sum(1)
    return summed / judged.flatten(1).sum(1).clamp(min=1)
