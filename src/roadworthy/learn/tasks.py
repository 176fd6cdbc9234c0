"""What each type of task asks of a backbone: its head, its loss and its metric."""

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.core.dense import Depth, Segmentation
from roadworthy.core.detection import Detection
from roadworthy.core.tasks import Classification
from roadworthy.learn.backbones import Backbone
from roadworthy.learn.batches import Augmentation, Batch, Source, Task, see_whole
from roadworthy.learn.captions import Captioned
from roadworthy.learn.dense_losses import (
    STRIDES,
    classification_loss,
    depth_loss,
    detection_loss,
    locations,
    segmentation_loss,
    targets,
)
from roadworthy.learn.heads import (
    ClassHead,
    DepthHead,
    DetectionHead,
    SegmentationHead,
    decode,
)
from roadworthy.learn.judge import Judged, Verdict, judge

Maps = list[Tensor]
"""What a head reads: pooled features alone, or maps at strides 4, 8, 16, 32."""
AUGMENTATIONS: dict[Task, Augmentation] = {
    "classification": Augmentation(crop=(0.4, 1.0)),
    "detection": Augmentation(crop=(0.5, 1.0)),
    "segmentation": Augmentation(crop=(0.5, 1.0)),
    "depth": Augmentation(crop=(0.7, 1.0)),
}
BATCH = 100
"""Images that are seen at a time where nothing is learned."""


def head_of(task: Task, backbone: Backbone, classes: int) -> nn.Module:
    """A new head for a task."""
    match task:
        case "classification":
            return ClassHead(backbone.width, classes)
        case "detection":
            return DetectionHead(backbone.channels, classes)
        case "segmentation":
            return SegmentationHead(backbone.channels, classes)
        case "depth":
            return DepthHead(backbone.channels)
        case _:
            assert_never(task)


def read(backbone: Backbone, task: Task, images: Tensor) -> Maps:
    """What the head of a task gets to see."""
    if task == "classification":
        return [backbone(images)]
    return backbone.forward_features(images)


def answer(task: Task, head: nn.Module, maps: Maps) -> Any:
    """What a head says."""
    return head(maps[0] if task == "classification" else maps)


def loss_of(task: Task, said: Any, batch: Batch, classes: int) -> Tensor:
    """The loss of what a head said."""
    match task:
        case "classification":
            return classification_loss(said, _there(batch.labels))
        case "detection":
            logits, boxes = said
            side = batch.side
            at = locations([(side // s, side // s) for s in STRIDES], logits.device)
            rows = one_hot(_there(batch.box_labels), classes)
            return detection_loss(logits, boxes, targets(at, _there(batch.boxes), rows))
        case "segmentation":
            return segmentation_loss(said, _there(batch.masks))
        case "depth":
            return depth_loss(said, _there(batch.depth))
        case _:
            assert_never(task)


def one_hot(labels: Int[Tensor, "b n"], classes: int) -> Int[Tensor, "b n k"]:
    """1 at each box's class; rows of zeros for padding.

    >>> one_hot(torch.tensor([[1, -1]]), 2).tolist()
    [[[0, 1], [0, 0]]]
    """
    return F.one_hot(labels + 1, classes + 1)[..., 1:]


def _there(said: Tensor | None) -> Tensor:
    assert said is not None
    return said


def judge_head(
    backbone: Backbone, head: nn.Module, source: Source, device: torch.device | None = None
) -> Verdict:
    """The metric of a backbone and a head on held-out images, seen whole.

    Args:
        device: where that is computed and both are afterwards; the CPU, if nothing is said.
    """
    device = device or torch.device("cpu")
    batches = whole_batches(source, device)
    backbone.to(device).eval()
    head.to(device)
    with torch.no_grad():
        pairs = ((batch, read(backbone, source.task, batch.images)) for batch in batches)
        return judge_maps(head, source, pairs)


@torch.no_grad()
def held_out_loss(backbone: Backbone, head: nn.Module, source: Source) -> float:
    """The mean loss of a backbone and a head on held-out images, seen whole."""
    backbone.eval()
    head.eval()
    found: list[float] = []
    for batch in whole_batches(source, torch.device("cpu")):
        said = answer(source.task, head, read(backbone, source.task, batch.images))
        found += [float(loss_of(source.task, said, batch, len(source.classes)))] * len(batch)
    return sum(found) / len(found)


def judge_maps(head: nn.Module, source: Source, pairs: Iterable[tuple[Batch, Maps]]) -> Verdict:
    """The metric of a head on batches whose maps are at hand."""
    head.eval()
    side = source.content.side
    task = source.task
    outputs = ((answer(task, head, maps), batch) for batch, maps in pairs)
    judged = ((_final(task, said, side), _truth(source, batch)) for said, batch in outputs)
    with torch.no_grad():
        return judge(_judged(source, side), judged, (side, side))


def _final(task: Task, said: Any, side: int) -> Any:
    if task != "detection":
        return said
    logits, boxes = said
    return decode(logits, boxes, (side, side))


def whole_batches(source: Source | Captioned, device: torch.device) -> Iterator[Batch]:
    """All images in order, unchanged."""
    for start in range(0, len(source), BATCH):
        yield see_whole(source.content[start : start + BATCH].to(device))


def _judged(source: Source, side: int) -> Judged:
    match source.task:
        case "classification":
            return Classification()
        case "detection":
            return Detection("torchvision", _there(source.content.boxes).shape[1])
        case "segmentation":
            return Segmentation(len(source.classes), (side, side))
        case "depth":
            return Depth((side, side))
        case _:
            assert_never(source.task)


def _truth(source: Source, batch: Batch) -> Any:
    match source.task:
        case "classification":
            return batch.labels
        case "detection":
            return batch.boxes, one_hot(_there(batch.box_labels), len(source.classes))
        case "segmentation":
            return batch.masks
        case _:
            return batch.depth
