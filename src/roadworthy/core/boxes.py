"""From a detector's outputs to boxes in the image file: heads, and what comes after them.

=====================  =========================================================================
head                   recognised by
=====================  =========================================================================
``fastestdet``         one tensor ``[b 5+k h w]``: objectness, four of the box, a share of each
                       class, on a grid of 16 pixels (dog-qiuqiu/FastestDet)
``xyxy-score-class``   one tensor ``[b n 6]`` of finished boxes in pixels of the model's input
``xyxy-shares``        one tensor ``[b n 4+k]``: corners in pixels of the input and a share of each
                       of k classes, not two, since six columns are those above
``torchvision``        per image a dict of boxes ``[n 4]``, scores and labels ``[n]``, finished,
                       in pixels of the input; labels are taken as they stand
=====================  =========================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, assert_never

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from roadworthy.core.images import Placement
from roadworthy.errors import BadInput, BadModel

Head = Literal["fastestdet", "xyxy-score-class", "xyxy-shares", "torchvision"]
MOST = 100
"""Boxes that an image is answered with, the best ones, where nothing else is said; COCO counts no
more of a class."""
OWN = "as-trained"
_STRIDE = 16
_NMS = {"fastestdet": 0.45, "xyxy-shares": 0.5}
"""Overlap from which boxes go, of heads that leave that to others."""


@dataclass(frozen=True)
class Finish:
    """What is done to a head's boxes.

    There is no choice of thresholding scores before or after NMS: only stronger boxes remove
    weaker ones, so both give the same boxes. Cutting to the best `most` before NMS does not.

    Args:
        nms: overlap (IoU) above which the weaker box goes; None where the model did that itself.
        agnostic: boxes of other classes are removed too.
        cut_first: only the best `most` boxes reach NMS, instead of the best `most` leaving it.
        least: score that a box must exceed.
        offset: pixels of the input taken off x2 and y2, for boxes that count pixels inclusively.
        clipped: boxes end where the image ends.
        whole: corners are rounded to whole pixels of the image.
        most: boxes that stay.
    """

    nms: float | None = None
    agnostic: bool = False
    cut_first: bool = False
    least: float = 0.01
    offset: float = 0.0
    clipped: bool = False
    whole: bool = False
    most: int = MOST


_ALWAYS: dict[str, dict[str, Any]] = {
    "box-offset-1": {"offset": 1.0},
    "whole-pixels": {"whole": True},
    "clipped": {"clipped": True},
    "score-0.25": {"least": 0.25},
}
_WITH_NMS: dict[str, dict[str, Any]] = {
    "nms-agnostic": {"agnostic": True},
    "nms-0.45": {"nms": 0.45},
    "nms-0.6": {"nms": 0.6},
    "best-100-before-nms": {"cut_first": True},
}


def finishes(head: Head) -> dict[str, Finish]:
    """The head's own finish, as ``as-trained``, and the others that deployments have.

    >>> list(finishes("xyxy-score-class"))
    ['as-trained', 'box-offset-1', 'whole-pixels', 'clipped', 'score-0.25']
    """
    own = Finish(nms=_NMS.get(head))
    changes = _ALWAYS if own.nms is None else {**_ALWAYS, **_WITH_NMS}
    others = {name: replace(own, **change) for name, change in changes.items()}
    return {OWN: own, **{name: other for name, other in others.items() if other != own}}


def finish_of(head: Head, post: str) -> Finish:
    """The finish of that name; BadInput names those there are."""
    return named(post, finishes(head), f"a detector with {head} outputs")


Kind = TypeVar("Kind")


def named(post: str, known: Mapping[str, Kind], who: str) -> Kind:
    """What `post` stands for; BadInput names those that `who` has."""
    if post not in known:
        near = get_close_matches(post, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadInput(f"post {post!r} given{hint}; {who} has {', '.join(known)}")
    return known[post]


def head_of(outputs: Any) -> Head:
    """The head that made `outputs`, by their shape; see the table above.

    Raises:
        BadModel: outputs of no known head.

    >>> head_of(torch.zeros(1, 85, 22, 22)), head_of(torch.zeros(1, 300, 6))
    ('fastestdet', 'xyxy-score-class')
    >>> head_of(torch.zeros(1, 340, 9))
    'xyxy-shares'
    """
    match outputs:
        case Tensor() if outputs.ndim == 4 and outputs.shape[1] > 5:
            return "fastestdet"
        case Tensor() if outputs.ndim == 3 and outputs.shape[2] == 6:
            return "xyxy-score-class"
        case Tensor() if outputs.ndim == 3 and outputs.shape[2] > 4:
            return "xyxy-shares"
        case [{"boxes": Tensor(), "scores": Tensor(), "labels": Tensor()}, *_]:
            return "torchvision"
        case _:
            pass
    given = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    raise BadModel(
        f"the model answers {given} where a detector is needed; [b, 5 + classes, h, w] of "
        "FastestDet, [b, n, 6] of x1 y1 x2 y2 score class, [b, n, 4 + classes] of x1 y1 x2 y2 and "
        "a share of each class, or a list of dicts of boxes, scores and "
        "labels are allowed: wrap the model in a module that returns one of these"
    )


def class_count(head: Head, outputs: Any) -> int | None:
    """How many classes the head tells apart, None where its outputs do not say."""
    match head:
        case "fastestdet":
            return outputs.shape[1] - 5
        case "xyxy-shares":
            return outputs.shape[2] - 4
        case _:
            return None


def candidates(head: Head, outputs: Any, most: int = MOST) -> list[Float[Tensor, "_ 6"]]:
    """Boxes of each image, x1 y1 x2 y2 score class, in pixels of the model's input.

    Args:
        most: that will stay, of which heads without NMS give ten times as many.
    """
    match head:
        case "fastestdet":
            return list(_fastestdet(outputs))
        case "xyxy-score-class":
            return list(outputs)
        case "xyxy-shares":
            return list(_shares(outputs, most))
        case "torchvision":
            return [_columns(each) for each in outputs]
        case _:
            assert_never(head)


def _fastestdet(outputs: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ 6"]:
    rows, columns = outputs.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = torch.stack([x, y]) + outputs[:, 1:3].tanh()
    span = outputs[:, 3:5].sigmoid() * torch.tensor([columns, rows]).view(2, 1, 1)
    share, label = outputs[:, 5:].max(1)
    score = outputs[:, 0].clamp(0, 1) ** 0.6 * share.clamp(0, 1) ** 0.4
    corners = torch.cat([centre - span / 2, centre + span / 2], 1) * _STRIDE
    rest = torch.stack([score, label.to(score)], 1)
    return torch.cat([corners, rest], 1).flatten(2).transpose(1, 2)


def _shares(outputs: Float[Tensor, "b n _"], most: int) -> Float[Tensor, "b m 6"]:
    """A box for each of the best shares: a location may answer several classes."""
    corners, shares = outputs[..., :4], outputs[..., 4:]
    best, at = shares.flatten(1).topk(min(10 * most, shares[0].numel()))
    rows, classes = at // shares.shape[2], at % shares.shape[2]
    picked = corners.gather(1, rows[..., None].expand(-1, -1, 4))
    return torch.cat([picked, torch.stack([best, classes.to(best)], 2)], 2)


def _columns(found: dict[str, Tensor]) -> Float[Tensor, "_ 6"]:
    boxes, scores, labels = (found[name].float() for name in ("boxes", "scores", "labels"))
    if scores.ndim != 1 or scores.shape != labels.shape or boxes.shape != (len(scores), 4):
        raise BadModel(
            f"the model answers boxes {list(boxes.shape)}, scores {list(scores.shape)} and labels "
            f"{list(labels.shape)} for an image; [n, 4], [n] and [n] are needed"
        )
    return torch.cat([boxes, torch.stack([scores, labels], 1)], 1)


def finished(
    boxes: Float[Tensor, "_ 6"], finish: Finish, place: Placement
) -> Float[NDArray[np.float64], "_ 6"]:
    """The best boxes, best first, in pixels of the image file.

    >>> place = Placement(scale=(0.5, 0.5), offset=(2, 0), size=(8, 16))
    >>> finished(torch.tensor([[0.0, 2.0, 4.0, 6.0, 0.9, 3.0]]), Finish(), place)[0, :4].tolist()
    [0.0, 0.0, 8.0, 8.0]
    """
    found = boxes[chosen(boxes, finish)].double().numpy()
    found[:, :4] = settled(found[:, :4], finish, place)
    return found


def chosen(boxes: Float[Tensor, "_ 6"], finish: Finish) -> Int[Tensor, " _"]:
    """Which boxes stay, the best first."""
    order = torch.nonzero(boxes[:, 4] > finish.least).flatten()
    order = order[boxes[order, 4].argsort(descending=True, stable=True)]
    if finish.nms is not None:
        order = order[: finish.most] if finish.cut_first else order
        left = boxes[order]
        groups = torch.zeros(len(left)) if finish.agnostic else left[:, 5]
        corners = left[:, :4] - finish.offset * torch.tensor([0.0, 0.0, 1.0, 1.0])
        order = order[batched_nms(corners, left[:, 4], groups, finish.nms)]
    return order[: finish.most]


def settled(
    corners: Float[NDArray[np.float64], "_ 4"], finish: Finish, place: Placement
) -> Float[NDArray[np.float64], "_ 4"]:
    """Corners in pixels of the input as the image file gets them."""
    found = placed_back(corners - finish.offset * np.array([0.0, 0.0, 1.0, 1.0]), place)
    if finish.clipped:
        height, width = place.size
        found = found.clip(0, (width, height, width, height))
    return found.round() if finish.whole else found


def placed_back(
    corners: Float[NDArray[np.float64], "n 4"], place: Placement
) -> Float[NDArray[np.float64], "n 4"]:
    """Corners x1 y1 x2 y2 in pixels of the image file, given in pixels of the model's input."""
    (down, across), (top, left) = place.scale, place.offset
    return (corners - np.array([left, top] * 2)) / np.array([across, down] * 2)


def overlaps(
    a: Sequence[Any] | NDArray[np.float64],
    b: Sequence[Any] | NDArray[np.float64],
    crowd: NDArray[np.bool_] | None = None,
) -> Float[NDArray[np.float64], "n m"]:
    """Intersection over union of every box of `a` with every one of `b`.

    Of a `crowd` in `b` it is the part of the box of `a` that lies inside, as COCO has it.

    >>> overlaps([[0, 0, 2, 2]], [[1, 0, 3, 2]]).round(3).tolist()
    [[0.333]]
    """
    one, two = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (a, b))
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    own, other = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, two))
    union = own[:, None] + other[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], own[:, None], union)
    return shared / np.maximum(union, np.finfo(float).tiny)
