"""How far a student is from its teacher: what it sees, and what its heads say. 0 where they agree.

Every loss is a mean over images, so that ranks which share a batch learn what one process does.
"""

from typing import Any, assert_never

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from roadworthy.learn.batches import Task


def feature_loss(seen: Float[Tensor, "b d *axes"], wanted: Float[Tensor, "b d *axes"]) -> Tensor:
    """Mean squared error of features whose channels have a deviation of about 1."""
    return F.mse_loss(seen.float(), wanted.float())


def answer_loss(task: Task, said: Any, wanted: Any) -> Tensor:
    """How far what a head says is from what the teacher's says."""
    match task:
        case "classification" | "segmentation":
            return divergence(said, wanted)
        case "detection":
            return box_divergence(*said, *wanted)
        case "depth":
            return (said.log() - wanted.log()).abs().mean()
        case _:
            assert_never(task)


def divergence(said: Float[Tensor, "b k *axes"], wanted: Float[Tensor, "b k *axes"]) -> Tensor:
    """Kullback-Leibler divergence of the classes' shares, at each place.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> divergence(logits, logits + 5).item()
    0.0
    """
    shares, own = (each.float().log_softmax(1) for each in (wanted, said))
    return F.kl_div(own, shares, reduction="none", log_target=True).sum(1).mean()


def box_divergence(
    logits: Float[Tensor, "b n k"],
    boxes: Float[Tensor, "b n 4"],
    wanted: Float[Tensor, "b n k"],
    corners: Float[Tensor, "b n 4"],
) -> Tensor:
    """Quality focal loss (arXiv 2006.04388) of the classes, generalised IoU loss of the boxes.

    Each location counts as much as the teacher is sure that something is there.
    """
    shares = wanted.float().sigmoid()
    sure = shares.amax(2)
    total = sure.sum(1).clamp(min=1)
    off = (logits.float().sigmoid() - shares).square()
    each = F.binary_cross_entropy_with_logits(logits.float(), shares, reduction="none")
    overlap = generalized_box_iou_loss(boxes.float(), corners.float())
    return (((off * each).sum((1, 2)) + (sure * overlap).sum(1)) / total).mean()
