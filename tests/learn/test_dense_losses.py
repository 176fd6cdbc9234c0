"""Losses of experts: laws, slow references, and images that say nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roadworthy.learn import dense_losses as losses
from roadworthy.learn.dense_losses import IGNORED, STRIDES, Locations, Targets, locations

AT = locations([(16, 16), (8, 8), (4, 4), (2, 2)])


def some_boxes(images: int, boxes: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(images, boxes, 2, generator=random) * 60
    side = torch.rand(images, boxes, 2, generator=random).square() * 62
    corners = torch.cat([low, (low + side).clamp(max=64)], 2)
    labels = torch.randint(-1, 2, (images, boxes, classes), generator=random)
    return corners, labels


def slow_targets(at: Locations, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Of one image: which box each location has, -1 for none, and the labels."""
    which = torch.full((len(at.points),), -1)
    labels = torch.zeros(len(at.points), classes.shape[1], dtype=classes.dtype)
    for n, ((x, y), stride) in enumerate(zip(at.points.tolist(), at.strides.tolist(), strict=True)):
        smallest = math.inf
        for m, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            wide, high = x2 - x1, y2 - y1
            level = next((s for s in STRIDES if max(wide, high) <= 8 * s), STRIDES[-1])
            if wide <= 0 or high <= 0 or level != stride:
                continue
            dx, dy = x - (x1 + x2) / 2, y - (y1 + y2) / 2
            inside = x1 < x < x2 and y1 < y < y2 and max(abs(dx), abs(dy)) < 1.5 * stride
            cell = -stride / 2 < dx <= stride / 2 and -stride / 2 < dy <= stride / 2
            if (inside or cell) and wide * high < smallest:
                smallest, which[n], labels[n] = wide * high, m, classes[m]
    return which, labels


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_targets_are_those_of_a_search_box_by_box(seed: int, boxes: int) -> None:
    corners, labels = some_boxes(2, boxes, seed)
    found = losses.targets(AT, corners, labels)
    for i in range(2):
        which, wanted = slow_targets(AT, corners[i], labels[i])
        assert torch.equal(found.classes[i], wanted)
        positive = (which >= 0) & (wanted == 1).any(1)
        assert torch.equal(found.found[i], positive)
        assert torch.equal(found.boxes[i, positive], corners[i, which[positive]])
        assert not found.boxes[i, ~positive].any()


@given(st.floats(0, 62), st.floats(0, 62), st.floats(0.5, 60), st.floats(0.5, 60))
def test_a_box_of_any_size_has_a_location(x: float, y: float, wide: float, high: float) -> None:
    box = torch.tensor([[[x, y, min(x + wide, 64.0), min(y + high, 64.0)]]])
    assert losses.targets(AT, box, torch.ones(1, 1, 1, dtype=torch.long)).found.any()


def test_a_car_is_a_vehicle_and_a_vehicle_no_other_thing_than_a_car() -> None:
    """Classes: car, vehicle, person; the second box is a vehicle of which nobody says more."""
    boxes = torch.tensor([[[2.0, 2, 20, 20], [34, 34, 60, 60]]])
    labels = torch.tensor([[[1, 1, 0], [IGNORED, 1, 0]]])
    found = losses.targets(AT, boxes, labels)
    logits = torch.zeros(1, len(AT.points), 3, requires_grad=True)
    losses.focal_loss(logits, found.classes, found.found).backward()
    grad = logits.grad
    assert grad is not None
    second = (found.boxes == boxes[0, 1]).all(2)
    assert second.any()
    assert not grad[second][:, 0].any()
    assert (grad[second][:, 1] < 0).all()
    assert (grad[second][:, 2] > 0).all()


def wanted_of(seed: int, boxes: int = 4, images: int = 3) -> Targets:
    return losses.targets(AT, *some_boxes(images, boxes, seed))


def said_of(images: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(images, len(AT.points), 3, generator=random)
    span = 1 + 9 * torch.rand(images, len(AT.points), 2, generator=random)
    return logits, torch.cat([AT.points - span, AT.points + span], 2)


def test_detection_loss_is_that_of_a_loop() -> None:
    wanted, (logits, boxes) = wanted_of(3), said_of()
    total = 0.0
    for i in range(3):
        number = max(1, int(wanted.found[i].sum()))
        for n in range(len(AT.points)):
            for k in range(3):
                y = int(wanted.classes[i, n, k])
                if y != IGNORED:
                    p = 1 / (1 + math.exp(-float(logits[i, n, k])))
                    right, alpha = (p, 0.25) if y else (1 - p, 0.75)
                    total -= alpha * (1 - right) ** 2 * math.log(right) / number / 3
            if wanted.found[i, n]:
                total += (1 - slow_giou(boxes[i, n], wanted.boxes[i, n])) / number / 3
    assert float(losses.detection_loss(logits, boxes, wanted)) == pytest.approx(total, rel=1e-4)


def slow_giou(a: Tensor, b: Tensor) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    wide, high = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    shared = max(0.0, wide) * max(0.0, high)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
    return shared / union - (hull - union) / hull


def masks_of(seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 4, (images, 8, 8), generator=random, dtype=torch.uint8)
    masks[torch.rand(masks.shape, generator=random) < 0.3] = 255
    return torch.randn(images, 5, 8, 8, generator=random), masks


def test_segmentation_loss_is_that_of_a_loop() -> None:
    logits, masks = masks_of(1)
    total = 0.0
    for scores, mask in zip(logits, masks, strict=True):
        pixels = [(y, x) for y in range(8) for x in range(8) if mask[y, x] != 255]
        p = {at: scores[:, *at].softmax(0).tolist() for at in pixels}
        entropy = -sum(math.log(p[at][int(mask[at])]) for at in pixels) / len(pixels)
        dice: list[float] = []
        for k in {int(mask[at]) for at in pixels}:
            hit = sum(p[at][k] for at in pixels if mask[at] == k)
            there = sum(int(mask[at]) == k for at in pixels)
            dice.append(2 * hit / (sum(p[at][k] ** 2 for at in pixels) + there))
        total += (entropy + 1 - sum(dice) / len(dice)) / 3
    assert float(losses.segmentation_loss(logits, masks)) == pytest.approx(total, rel=1e-5)


def depths_of(seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    truths = 1 + 50 * torch.rand(images, 8, 8, generator=random)
    holes = torch.rand(truths.shape, generator=random)
    truths[holes < 0.2] = torch.nan
    truths[holes > 0.8] = 0.0
    truths[:, 0, 0] = -1.0
    truths[:, 0, 1] = torch.inf
    return 1 + 50 * torch.rand(images, 1, 8, 8, generator=random), truths


def test_depth_loss_is_equation_4_of_the_paper() -> None:
    depths, truths = depths_of(2)
    total = 0.0
    for said, truth in zip(depths[:, 0], truths, strict=True):
        pairs = zip(said.flatten().tolist(), truth.flatten().tolist(), strict=True)
        d = [math.log(a) - math.log(b) for a, b in pairs if 0 < b < math.inf]
        total += (sum(e * e for e in d) / len(d) - 0.5 * (sum(d) / len(d)) ** 2) / 3
    assert float(losses.depth_loss(depths, truths)) == pytest.approx(total, rel=1e-5)


def test_depth_loss_knows_a_common_factor_as_half_of_its_square() -> None:
    _, truths = depths_of(2)
    good = torch.where(truths > 0, truths, 1.0).clamp(max=60)[:, None]
    assert float(losses.depth_loss(good, truths)) == pytest.approx(0, abs=1e-12)
    assert float(losses.depth_loss(2 * good, truths)) == pytest.approx(math.log(2) ** 2 / 2)


def test_perfect_answers_cost_next_to_nothing() -> None:
    wanted = wanted_of(4)
    boxes = torch.where(wanted.found[..., None], wanted.boxes, torch.tensor([0.0, 0, 1, 1]))
    assert float(losses.detection_loss(40.0 * wanted.classes - 20, boxes, wanted)) < 1e-4
    _, masks = masks_of(1)
    sure = 40 * torch.nn.functional.one_hot(masks.long().clamp(max=4), 5).movedim(3, 1).float()
    assert float(losses.segmentation_loss(sure, masks)) < 1e-4


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    """So that ranks with a part of the batch each agree with one that has it all."""
    wanted, (logits, boxes) = wanted_of(3), said_of()
    maps, masks = masks_of(1)
    depths, truths = depths_of(2)
    labels = torch.tensor([0, IGNORED, 2])

    def all_losses(part: slice) -> Tensor:
        each = Targets(*(x[part] for x in wanted))
        return torch.stack(
            [
                losses.detection_loss(logits[part], boxes[part], each),
                losses.segmentation_loss(maps[part], masks[part]),
                losses.depth_loss(depths[part], truths[part]),
                losses.classification_loss(logits[part, 0], labels[part]),
            ]
        )

    singly = torch.stack([all_losses(slice(i, i + 1)) for i in range(3)])
    torch.testing.assert_close(all_losses(slice(0, 3)), singly.mean(0))
    assert not singly[1, 3:].any()


@pytest.mark.parametrize("fill", [0, 2])
def test_images_that_say_nothing_cost_a_zero_with_a_gradient(fill: int) -> None:
    empty, none = torch.zeros(2, fill, 4), torch.zeros(2, fill, 3, dtype=torch.long)
    wanted = losses.targets(AT, empty, none)
    logits, boxes = (x.requires_grad_() for x in said_of(2))
    maps = torch.randn(2, 5, 2, 2, requires_grad=True)
    depths = torch.rand(2, 1, 2, 2).add(1).requires_grad_()
    zeros = [
        losses.giou_loss(boxes, wanted.boxes, wanted.found),
        losses.segmentation_loss(maps, torch.full((2, 8, 8), 255, dtype=torch.uint8)),
        losses.depth_loss(depths, torch.full((2, 8, 8), torch.nan)),
        losses.depth_loss(depths, torch.zeros(2, 8, 8)),
        losses.classification_loss(logits[:, 0], torch.tensor([IGNORED] * 2)),
    ]
    assert [zero.item() for zero in zeros] == [0.0] * 5
    background = losses.focal_loss(logits, wanted.classes, wanted.found)
    torch.stack([*zeros, background]).sum().backward()
    for x in (boxes, maps, depths):
        assert x.grad is not None
        assert not x.grad.any()
    assert logits.grad is not None
    assert (logits.grad > 0).any()
    assert logits.grad.isfinite().all()


def test_losses_are_float32_under_autocast() -> None:
    wanted, (logits, boxes) = wanted_of(3), said_of()
    maps, masks = masks_of(1)
    depths, truths = depths_of(2)
    with torch.autocast("cpu", torch.bfloat16):
        halves = logits.bfloat16(), boxes.bfloat16()
        assert losses.detection_loss(*halves, wanted).dtype == torch.float32
        assert losses.segmentation_loss(maps.bfloat16(), masks).dtype == torch.float32
        assert losses.depth_loss(depths.bfloat16(), truths).dtype == torch.float32
        exact = losses.depth_loss(depths, truths)
    assert torch.equal(exact, losses.depth_loss(depths, truths))
