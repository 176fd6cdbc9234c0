"""Judging: the metrics of `core`, batch by batch, and errors whatever the direction."""

import numpy as np
import pytest
import torch

from roadworthy.core.dense import Depth, Segmentation
from roadworthy.core.detection import Detection
from roadworthy.core.tasks import Classification
from roadworthy.errors import BadData
from roadworthy.learn.judge import judge

SIZE = (8, 8)


def test_batches_do_not_matter() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, 8, 8, generator=random)
    masks = torch.randint(0, 4, (6, 8, 8), generator=random, dtype=torch.uint8)
    masks[:, :2] = 255
    whole = judge(Segmentation(4, SIZE), [(logits, masks)], SIZE)
    parts = zip(logits.split(2), masks.split(2), strict=True)
    assert judge(Segmentation(4, SIZE), parts, SIZE) == whole
    said, known = logits.argmax(1), masks != 255
    shares = [
        float(((said == k) & (masks == k)).sum())
        / float(((said == k) & known | (masks == k)).sum())
        for k in range(4)
    ]
    assert whole.value == pytest.approx(np.mean(shares))


def test_labels_that_nobody_gave_are_left_out() -> None:
    batch = torch.eye(4), torch.tensor([0, -1, -1, 0])
    assert judge(Classification(), [batch], SIZE).value == 0.5
    assert judge(Classification(), [batch], SIZE).n == 2
    with pytest.raises(BadData, match="no image to judge by"):
        judge(Classification(), [(torch.eye(2), torch.tensor([-1, -1]))], SIZE)


def test_depth_is_judged_where_it_was_measured() -> None:
    depths = torch.full((2, 1, 2, 2), 3.0)
    truths = torch.full((2, 8, 8), 5.0)
    truths[0, :4], truths[1, :4] = torch.nan, 0.0
    assert judge(Depth(SIZE), [(depths, truths)], SIZE).value == pytest.approx(2.0)


def test_a_box_of_two_classes_is_found_as_either_and_ignored_ones_are_no_fault() -> None:
    boxes, classes = (
        torch.tensor([[[0.0, 0, 4, 4], [0, 0, 0, 0]]]),
        torch.tensor([[[1, 1, -1]] * 2]),
    )
    found = {
        "boxes": torch.tensor([[0.0, 0, 4, 4]] * 3),
        "scores": torch.tensor([0.9, 0.8, 0.95]),
        "labels": torch.tensor([0, 1, 2]),
    }
    task = Detection("torchvision")
    assert judge(task, [([found], (boxes, classes))], SIZE).value == pytest.approx(1)
    strict = classes.clamp(min=0)
    other = {**found, "labels": torch.tensor([0, 2, 2])}
    assert judge(task, [([other], (boxes, strict))], SIZE).value == pytest.approx(0.5)
