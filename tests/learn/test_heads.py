"""Heads: faces, boxes from outputs, and that each learns a few scenes by heart."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_iou

from roadworthy.core.dense import Depth, Segmentation
from roadworthy.core.detection import Detection
from roadworthy.core.tasks import Classification
from roadworthy.learn import dense_losses as losses
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.heads import (
    ClassHead,
    DepthHead,
    DetectionHead,
    SegmentationHead,
    decode,
)
from roadworthy.learn.judge import Judged, Verdict, judge
from roadworthy.learn.scenes import CLASSES, OBJECTS, scenes
from roadworthy.learn.tasks import judge_head

SIZE = (64, 64)
CHANNELS = (24, 48, 64, 128)


def maps_of(height: int = 64, width: int = 96, images: int = 2) -> list[Tensor]:
    sizes = zip(CHANNELS, (4, 8, 16, 32), strict=True)
    return [torch.randn(images, c, -(-height // s), -(-width // s)) for c, s in sizes]


def test_faces() -> None:
    maps = maps_of(100, 70)
    logits, boxes = DetectionHead(CHANNELS, 7)(maps)
    assert logits.shape == (2, 25 * 18 + 13 * 9 + 7 * 5 + 4 * 3, 7)
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert SegmentationHead(CHANNELS, 5)(maps).shape == (2, 5, 25, 18)
    depths = DepthHead(CHANNELS)([1e4 * each for each in maps])
    assert depths.shape == (2, 1, 25, 18)
    assert (depths >= 0.1).all()
    assert (depths <= 1000).all()
    assert ClassHead(448, 3)(torch.zeros(2, 448)).shape == (2, 3)


def test_first_answers_are_modest() -> None:
    logits, boxes = DetectionHead(CHANNELS, 7)(maps_of())
    assert float(logits.sigmoid().max()) < 0.05
    sides = boxes[..., 2:] - boxes[..., :2]
    assert float(sides.max()) < 32 * 8


@pytest.mark.parametrize("head", [DetectionHead, SegmentationHead])
def test_heads_are_captured_for_any_batch(head: type[DetectionHead | SegmentationHead]) -> None:
    module, maps = head(CHANNELS, 7).eval(), tuple(maps_of())
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch},) * 4
    program = torch.export.export(_Spread(module), maps, dynamic_shapes=(shapes,))
    other = tuple(maps_of(images=3))
    for ours, theirs in zip(program.module()(*other), _Spread(module)(*other), strict=True):
        torch.testing.assert_close(ours, theirs)


class _Spread(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        found = self.head(maps)
        return found if isinstance(found, tuple) else (found,)


def test_decoded_boxes_are_the_best_of_a_slow_search() -> None:
    random = torch.Generator().manual_seed(0)
    low = torch.rand(40, 2, generator=random) * 50
    boxes = torch.cat([low, low + 4 + 20 * torch.rand(40, 2, generator=random)], 1)
    logits = torch.randn(40, 3, generator=random)
    (found,) = decode(logits[None], boxes[None], SIZE, least=0.3, nms=0.4)
    kept: list[tuple[float, int, Tensor]] = []
    clipped = boxes.clamp(0, 64)
    for at in logits.flatten().argsort(descending=True).tolist():
        n, k = divmod(at, 3)
        score = float(logits[n, k].sigmoid())
        free = all(
            label != k or float(box_iou(box[None], clipped[n][None])) <= 0.4
            for _, label, box in kept
        )
        if score >= 0.3 and free:
            kept.append((score, k, clipped[n]))
    assert found["labels"].tolist() == [label for _, label, _ in kept]
    torch.testing.assert_close(found["boxes"], torch.stack([box for _, _, box in kept]))
    assert (found["scores"].diff() <= 0).all()


def test_a_model_that_sees_nothing_answers_no_boxes() -> None:
    (found,) = decode(torch.full((1, 5, 2), -9.0), torch.zeros(1, 5, 4), SIZE)
    assert found["boxes"].shape == (0, 4)


@cache
def eight() -> dict[str, Tensor]:
    """Eight scenes as tensors."""
    samples = list(scenes(range(8)))
    pictures = [np.asarray(Image.open(io.BytesIO(each.image)).convert("RGB")) for each in samples]
    most = max(len(each.box_labels) for each in samples)
    boxes, classes = torch.zeros(8, most, 4), torch.zeros(8, most, len(OBJECTS), dtype=torch.long)
    for i, each in enumerate(samples):
        assert each.boxes is not None
        boxes[i, : len(each.boxes)] = torch.from_numpy(each.boxes).float()
        for j, name in enumerate(each.box_labels):
            classes[i, j, OBJECTS.index(name)] = 1
    return {
        "images": torch.from_numpy(np.stack(pictures)).movedim(3, 1).float() / 128 - 1,
        "labels": torch.tensor([OBJECTS.index(each.labels[0]) for each in samples]),
        "boxes": boxes,
        "classes": classes,
        "masks": torch.from_numpy(
            np.stack([each.mask for each in samples if each.mask is not None])
        ),
        "depths": torch.from_numpy(
            np.stack([each.depth for each in samples if each.depth is not None])
        ),
    }


class Expert(nn.Module):
    """A backbone and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = backbone("metanet:mn_xs@random")
        self.pooled = kind == "class"
        channels = self.net.channels
        self.head = {
            "class": lambda: ClassHead(self.net.width, len(OBJECTS)),
            "boxes": lambda: DetectionHead(channels, len(OBJECTS)),
            "masks": lambda: SegmentationHead(channels, len(CLASSES)),
            "depth": lambda: DepthHead(channels),
        }[kind]()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.head(self.net(images) if self.pooled else self.net.forward_features(images))


def loss_of(kind: str, said: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    held = eight()
    if isinstance(said, tuple):
        at = losses.locations([(16, 16), (8, 8), (4, 4), (2, 2)])
        wanted = losses.targets(at, held["boxes"], held["classes"])
        return losses.detection_loss(*said, wanted)
    match kind:
        case "class":
            return losses.classification_loss(said, held["labels"])
        case "masks":
            return losses.segmentation_loss(said, held["masks"])
        case _:
            return losses.depth_loss(said, held["depths"])


def verdict(kind: str, said: Tensor | tuple[Tensor, Tensor]) -> Verdict:
    held = eight()
    task: Judged
    if isinstance(said, tuple):
        found = decode(*said, SIZE)
        return judge(Detection("torchvision"), [(found, (held["boxes"], held["classes"]))], SIZE)
    match kind:
        case "class":
            task, wanted = Classification(), held["labels"]
        case "masks":
            task, wanted = Segmentation(len(CLASSES), SIZE), held["masks"]
        case _:
            task, wanted = Depth(SIZE), held["depths"]
    return judge(task, [(said, wanted)], SIZE)


@pytest.mark.parametrize(
    ("kind", "steps", "falls", "good"),
    [
        ("class", 30, 0.05, 1.0),
        ("boxes", 60, 0.3, 0.7),
        ("masks", 60, 0.3, 0.6),
        ("depth", 60, 0.05, 6.0),
    ],
)
def test_eight_scenes_are_learned_by_heart(
    kind: str, steps: int, falls: float, good: float
) -> None:
    expert, images = Expert(kind), eight()["images"]
    optimizer = torch.optim.AdamW(expert.parameters(), 3e-3)
    costs: list[float] = []
    for _ in range(steps):
        loss = loss_of(kind, expert(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(float(loss.detach()))
    with torch.no_grad():
        for _ in range(40):  # the statistics of norms lag behind weights learned so fast
            expert(images)
        last = verdict(kind, expert.eval()(images))
    assert costs[-1] < falls * costs[0]
    assert last.value >= good if last.points > 0 else last.value <= good


def test_a_crowd_of_more_than_a_hundred_is_judged() -> None:
    boxes = torch.tensor([0.0, 0.0, 8.0, 8.0]).repeat(1, 150, 1)
    crowd = Batch(
        torch.zeros(1, 3, 64, 64).byte(), boxes=boxes, box_labels=torch.zeros(1, 150).long()
    )
    body = backbone("metanet:mn_xs@random")
    head = DetectionHead(body.channels, 1)
    assert judge_head(body, head, Source("crowd", "detection", ("dot",), crowd)).n == 1
