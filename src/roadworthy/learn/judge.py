"""How good a model is on held-out data, by the metric of its type of task."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core.dense import Depth, Segmentation
from roadworthy.core.detection import Detection
from roadworthy.core.images import Placement, Size
from roadworthy.core.tasks import Answer, Classification
from roadworthy.errors import BadData
from roadworthy.learn.dense_losses import IGNORED

Judged = Classification | Detection | Segmentation | Depth


@dataclass(frozen=True)
class Verdict:
    """A metric over `n` images; `points`, as tasks have them, are above 0 if higher is better."""

    metric: str
    value: float
    points: float
    n: int


def judge(task: Judged, batches: Iterable[tuple[Any, Any]], size: Size) -> Verdict:
    """The metric of `task` over all batches of outputs and targets.

    =================  ===============================  ==========================================
    task               outputs                          targets
    =================  ===============================  ==========================================
    Classification     logits ``[b k]``                 labels ``[b]``; those below 0 do not count
    Detection          what `heads.decode` returns      boxes ``[b m 4]`` and classes ``[b m k]``
    Segmentation       logits ``[b k y x]``             masks ``[b h w]``, 255 does not count
    Depth              metres ``[b 1 y x]``             metres ``[b h w]``; holes do not count
    =================  ===============================  ==========================================

    Args:
        size: height and width of the input, which masks and depths have too.

    Raises:
        BadData: not one image to judge by.

    >>> batch = torch.tensor([[0.0, 3.0], [9.0, 0.0]]), torch.tensor([1, 1])
    >>> judge(Classification(), [batch], (32, 32)).value
    0.5
    """
    found: list[NDArray[np.float64]] = []
    for outputs, wanted in batches:
        truths = _truths(task, wanted)
        places = [Placement((1.0, 1.0), (0, 0), size)] * len(truths)
        answers = task.answers(_held(outputs), places, "as-trained")
        known = [pair for pair in zip(answers, truths, strict=True) if pair[1] is not None]
        if known:
            found.append(task.evidence(*map(list, zip(*known, strict=True))))
    if not found:
        raise BadData("no image to judge by; give held-out data that says something of the task")
    evidence = np.concatenate(found)
    value = float(task.values(evidence, np.ones((1, len(evidence)), np.int64))[0])
    return Verdict(task.metric, value, task.points, len(evidence))


def truth_rows(
    boxes: Float[Tensor, "m 4"], classes: Int[Tensor, "m k"]
) -> Float[NDArray[np.float64], "_ 6"]:
    """Truths as `core.precision` takes them: a row for each class of a box, crowds where ignored.

    >>> truth_rows(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1, 0, -1]])).tolist()
    [[0.0, 0.0, 2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0, 1.0, 2.0]]
    """
    real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    which, label = torch.nonzero(real[:, None] & (classes != 0)).T
    crowd = classes[which, label] == IGNORED
    rows = torch.cat([boxes[which].double(), torch.stack([crowd, label], 1).double()], 1)
    return rows.cpu().numpy()


def _truths(task: Judged, wanted: Any) -> list[Answer | None]:
    match task:
        case Classification():
            return [None if label < 0 else np.array([label]) for label in wanted.tolist()]
        case Detection():
            return [truth_rows(*each) for each in zip(*wanted, strict=True)]
        case Segmentation():
            return list(wanted.cpu().numpy())
        case Depth():
            known = wanted.float().cpu()
            return list(torch.where(known > 0, known, torch.nan).numpy())
        case _:
            assert_never(task)


def _held(outputs: Any) -> Any:
    """Outputs on the CPU in float32, where answers are made."""
    match outputs:
        case Tensor():
            return outputs.detach().float().cpu()
        case _:
            return [{name: x.detach().cpu() for name, x in each.items()} for each in outputs]
