"""What stands on a backbone to be trained for a task, light enough for the smallest backbone.

`ClassHead` takes pooled features, the others the maps at strides 4, 8, 16 and 32.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, clip_boxes_to_image

from roadworthy.core.boxes import MOST, Finish
from roadworthy.learn.dense_losses import locations

Maps = Sequence[Float[Tensor, "b _ _ _"]]
Found = dict[str, Tensor]
"""Boxes ``[n 4]`` in pixels of the input, scores and labels ``[n]``, best first."""
CLASS_LAYERS = ("classes.", "linear.")
"""How the names of those weights begin that have a row for each class."""
_WIDTH = 64
_NEAREST, _FARTHEST = 0.1, 1000.0
_LONGEST = math.log(64)
_RARE = 0.01


def _separable(width: int) -> nn.Sequential:
    """Depthwise 3x3 and 1x1. Normalised image by image: levels and batches may differ."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.GroupNorm(8, width),
        nn.GELU(),
    )


class Pyramid(nn.Module):
    """Maps of one width, each finer one told what the coarser ones know (arXiv 1612.03144)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 1, bias=False), nn.GroupNorm(8, width))
            for each in channels
        )
        self.smooth = nn.ModuleList(_separable(width) for _ in channels)

    def forward(self, maps: Maps) -> list[Float[Tensor, "b width _ _"]]:
        """As many maps, of the same sizes."""
        lateral = [layer(each) for layer, each in zip(self.laterals, maps, strict=True)]
        for i in range(len(lateral) - 1, 0, -1):
            finer = lateral[i - 1]
            lateral[i - 1] = finer + F.interpolate(lateral[i], size=finer.shape[-2:])
        return [layer(each) for layer, each in zip(self.smooth, lateral, strict=True)]


class ClassHead(nn.Module):
    """One logit for each class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, pooled: Float[Tensor, "b width"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.linear(pooled)


class DetectionHead(nn.Module):
    """A box and the logits of its classes at every location of every level.

    >>> from roadworthy.learn.backbones import backbone
    >>> net = backbone("metanet:mn_xs@random")
    >>> maps = net.forward_features(torch.zeros(1, 3, 64, 64))
    >>> logits, boxes = DetectionHead(net.channels, 7)(maps)
    >>> logits.shape, boxes.shape
    (torch.Size([1, 340, 7]), torch.Size([1, 340, 4]))
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.pyramid = Pyramid(channels, width)
        self.tower = nn.Sequential(_separable(width), _separable(width))
        self.classes = nn.Conv2d(width, classes, 1)
        self.boxes = nn.Conv2d(width, 4, 1)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.constant_(bias_of(self.classes), math.log(_RARE / (1 - _RARE)))

    def forward(self, maps: Maps) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4"]]:
        """Logits, and corners x1 y1 x2 y2 in pixels of the input, at `locations`."""
        levels = [self.tower(each) for each in self.pyramid(maps)]
        logits = torch.cat([_rows(self.classes(each)) for each in levels], 1)
        raw = torch.cat([_rows(self.boxes(each)) for each in levels], 1)
        return logits, _corners(raw, [(each.shape[2], each.shape[3]) for each in levels])


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


def _rows(maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n d"]:
    return maps.flatten(2).transpose(1, 2)


def _corners(raw: Float[Tensor, "b n 4"], sizes: list[tuple[int, int]]) -> Float[Tensor, "b n 4"]:
    """A centre and the logarithm of the sides, in strides, as seen from each location."""
    at = locations(sizes, raw.device)
    strides = at.strides[:, None]
    off, span = raw.float().split(2, -1)
    centre = at.points + off * strides
    half = span.clamp(-_LONGEST, _LONGEST).exp() * strides / 2
    return torch.cat([centre - half, centre + half], -1)


def decode(
    logits: Float[Tensor, "b n k"],
    boxes: Float[Tensor, "b n 4"],
    size: tuple[int, int],
    least: float = Finish.least,
    nms: float = 0.5,
) -> list[Found]:
    """The best boxes of each image, at most `MOST`; a location may answer several classes.

    Args:
        size: height and width of the input, where boxes end.
        least: score that a box must exceed.
        nms: overlap (IoU) above which the weaker of two boxes of a class goes.
    """
    shares = logits.float().sigmoid()
    return [_decoded(*each, size, least, nms) for each in zip(shares, boxes, strict=True)]


def _decoded(
    shares: Float[Tensor, "n k"],
    boxes: Float[Tensor, "n 4"],
    size: tuple[int, int],
    least: float,
    nms: float,
) -> Found:
    scores, order = shares.flatten().topk(min(10 * MOST, shares.numel()))
    order, scores = order[scores > least], scores[scores > least]
    labels = order % shares.shape[1]
    corners: Any = clip_boxes_to_image(boxes.float()[order // shares.shape[1]], size)
    kept = batched_nms(corners, scores, labels, nms)[:MOST]
    return {"boxes": corners[kept], "scores": scores[kept], "labels": labels[kept]}


class SegmentationHead(nn.Module):
    """One logit for each class at every fourth pixel."""

    def __init__(self, channels: Sequence[int], classes: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.pyramid = Pyramid(channels, width)
        self.classes = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Maps) -> Float[Tensor, "b k _ _"]:
        """Logits at stride 4."""
        return self.classes(self.pyramid(maps)[0])


class DepthHead(nn.Module):
    """Metres at every fourth pixel, 0.1 to 1000; 10 where it knows nothing."""

    def __init__(self, channels: Sequence[int], width: int = _WIDTH) -> None:
        super().__init__()
        self.pyramid = Pyramid(channels, width)
        self.depth = nn.Conv2d(width, 1, 1)

    def forward(self, maps: Maps) -> Float[Tensor, "b 1 _ _"]:
        """Depths at stride 4."""
        share = self.depth(self.pyramid(maps)[0]).float().sigmoid()
        return _NEAREST * (share * math.log(_FARTHEST / _NEAREST)).exp()
