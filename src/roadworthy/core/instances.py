"""Instance segmentation as a task: average precision of masks, as COCO computes it.

A model answers what torchvision's Mask R-CNN answers: for each image a dict of boxes ``[n 4]``,
scores and labels ``[n]``, and masks ``[n 1 h w]``, shares of one in pixels of the model's input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval.core import mask as packed
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core import precision
from roadworthy.core.boxes import MOST, Finish, candidates, chosen, finishes, named, settled
from roadworthy.core.data import Dataset
from roadworthy.core.detection import most_truths
from roadworthy.core.images import Placement, Size
from roadworthy.core.mask_data import Masks, Rle, instances
from roadworthy.core.tasks import Answer, Evidence
from roadworthy.errors import BadModel


@dataclass(frozen=True)
class Paste:
    """How a mask of the input gets into the image file.

    Args:
        level: share above which a pixel belongs to the object.
        first: cut at `level` in the input and enlarged by repeating pixels, instead of enlarged
            bilinearly and then cut.
    """

    level: float = 0.5
    first: bool = False


def _ways() -> dict[str, tuple[Finish, Paste]]:
    """Ends of boxes and masks by name, the model's own first."""
    ends = finishes("torchvision")
    own = next(iter(ends.values()))
    moved = {name: (finish, Paste()) for name, finish in ends.items()}
    # 0.3 is what OpenCV's own Mask R-CNN example cuts at.
    return moved | {"mask-0.3": (own, Paste(0.3)), "mask-before-resize": (own, Paste(first=True))}


class Instances:
    """Mean average precision of masks, as COCO computes it.

    Answers and truths are arrays of `mask_data.INSTANCE`: rows as boxes have them, ``x1 y1 x2 y2``
    and score or crowd, and class, in pixels of the image file, and packed masks of its size. A mask
    moves with its box: what takes a pixel off the box pastes the mask into one that is smaller.

    Args:
        most_truths: that an image has.
        metric: ``mask_map50`` counts overlaps from .5 on, ``mask_map`` averages over .5 to .95.

    >>> import torch
    >>> box = {"boxes": torch.tensor([[0.0, 0, 2, 2]]), "scores": torch.ones(1)}
    >>> found = [{**box, "labels": torch.ones(1), "masks": torch.ones(1, 1, 4, 4)}]
    >>> place = Placement(scale=(0.5, 0.5), offset=(0, 0), size=(8, 8))
    >>> [answer] = Instances().answers(found, [place], "as-trained")
    >>> answer["row"].tolist(), int(packed.area(answer["mask"][0]))
    ([[0.0, 0.0, 4.0, 4.0, 1.0, 1.0]], 64)
    """

    points = 100.0

    def __init__(
        self, most_truths: int = MOST, metric: Literal["mask_map50", "mask_map"] = "mask_map50"
    ) -> None:
        self.metric: str = metric
        self._ways = _ways()
        self.posts: tuple[str, ...] = tuple(self._ways)[1:]
        self._slots = max(MOST, most_truths)
        self._levels = range(precision.BITS if metric == "mask_map" else 1)

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """Objects of each image; BadInput where `post` is not known."""
        finish, paste = named(post, self._ways, "instance segmentation")
        pairs = zip(outputs, places, strict=True)
        return [_placed(found, finish, paste, place) for found, place in pairs]

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """What `precision.mean_precision` needs ``[n _]``."""
        pairs = zip(answers, truths, strict=True)
        found = [overlap(answer, truth) for answer, truth in pairs]
        rows = [answer["row"] for answer in answers], [truth["row"] for truth in truths]
        return precision.evidence(*rows, found, self._slots)

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """The mean over the classes that a resample has truths of, 0 where it has none."""
        return precision.mean_precision(evidence, counts, self._levels)

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """1 - F1 of the strong objects, taking the base's as truth; 0 where neither has any."""
        pairs = zip(map(_strong, answers), map(self.truth, base), strict=True)
        alike = [
            precision.shared(mine["row"], theirs["row"], overlap(mine, theirs))
            for mine, theirs in pairs
        ]
        return 1.0 - np.array(alike)

    def truth(self, answer: Answer) -> Answer:
        """The strong objects."""
        strong = _strong(answer).copy()
        strong["row"][:, 4] = 0
        return strong

    def brief(self, answer: Answer) -> float:
        """How many strong objects there are."""
        return float(len(_strong(answer)))


def _strong(answer: Answer) -> Answer:
    return answer[answer["row"][:, 4] > precision.STRONG]


def overlap(answer: Answer, truth: Answer) -> Float[NDArray[np.float64], "_ _"]:
    """Intersection over union of every mask of `answer` with every one of `truth`.

    Of a crowd it is the part of the answer's mask that lies inside.
    """
    if not len(answer) or not len(truth):
        return np.zeros((len(answer), len(truth)))
    crowd = (truth["row"][:, 4] > 0).astype(int).tolist()
    found = packed.iou(list(answer["mask"]), list(truth["mask"]), crowd)
    return np.nan_to_num(np.asarray(found, np.float64).reshape(len(answer), len(truth)))


def _placed(found: dict[str, Tensor], finish: Finish, paste: Paste, place: Placement) -> Answer:
    """The best objects of one image, best first, in pixels of its file."""
    boxes = candidates("torchvision", [found])[0]
    order = chosen(boxes, finish)
    rows = boxes[order].double().numpy()
    own = rows[:, :4].copy()
    rows[:, :4] = settled(own, finish, place)
    masks = found["masks"][order, 0].numpy()
    each = zip(masks, own, rows[:, :4], strict=True)
    return instances(rows, [pasted(mask, a, b, place.size, paste) for mask, a, b in each])


def pasted(
    mask: Float[NDArray[np.float32], "h w"],
    own: Float[NDArray[np.float64], "4"],
    target: Float[NDArray[np.float64], "4"],
    size: Size,
    paste: Paste,
) -> Rle:
    """`mask`, moved and stretched as its box `own` was to `target`, on an image of `size`.

    Empty where either box has no width or no height.
    """
    canvas = np.zeros(size, np.uint8, order="F")
    lit: NDArray[np.bool_] = mask > paste.level
    y = _seen(np.asarray(lit.any(1)), own[1::2], target[1::2], size[0])
    x = _seen(np.asarray(lit.any(0)), own[::2], target[::2], size[1])
    rows, columns = y[0], x[0]
    if len(rows) and len(columns):
        if paste.first:
            part = lit[np.ix_(y[1].astype(int), x[1].astype(int))]
        else:
            share = _between(_between(mask, y[1]).T, x[1]).T
            part = share > paste.level
        canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = part
    return packed.encode(canvas)


def _seen(
    lit: NDArray[np.bool_], own: NDArray[np.float64], target: NDArray[np.float64], count: int
) -> tuple[Int[NDArray[np.int64], " k"], Float[NDArray[np.float64], " k"]]:
    """Along one axis the image's pixels near what is `lit`, and where their centres are in it."""
    where = np.flatnonzero(lit)
    (low, high), (start, stop) = own, target
    if not len(where) or high <= low or stop <= start:
        return np.zeros(0, np.int64), np.zeros(0)
    at = low + (np.arange(count) + 0.5 - start) * (high - low) / (stop - start)
    near = (at >= max(0, where[0] - 1)) & (at < min(len(lit), where[-1] + 2))
    return np.flatnonzero(near), at[near]


def _between(
    values: Float[NDArray[Any], "a b"], at: Float[NDArray[np.float64], " k"]
) -> Float[NDArray[Any], "k b"]:
    """Rows of `values` interpolated linearly, centres at half numbers, the edges repeated."""
    low = np.clip(np.floor(at - 0.5), 0, len(values) - 1).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    share = np.clip(at - 0.5 - low, 0, 1).astype(np.float32)[:, None]
    return values[low] * (1 - share) + values[high] * share


def instances_of(dataset: Dataset, outputs: Any, seen: Size) -> Instances:
    """The task that `dataset` sets to a model with such `outputs` for inputs of the size `seen`.

    Raises:
        BadModel: outputs without masks, or with masks of another size.
        BadData: not a single object to find.
    """
    if not _has_masks(outputs, seen):
        raise BadModel(
            f"the model answers {_described(outputs)} where instances are needed; a list of dicts "
            "of boxes [n, 4], scores, labels and masks [n, 1, h, w] is allowed, as torchvision's "
            f"Mask R-CNN answers, here of {seen[0]}x{seen[1]} pixels as the input: wrap the model "
            "in a module that returns these"
        )
    if not isinstance(dataset.source, Masks) or not dataset.known(0):
        return Instances()
    return Instances(most_truths(dataset, dataset.source.boxes, None))


def _has_masks(outputs: Any, seen: Size) -> bool:
    match outputs:
        case [
            {
                "boxes": Tensor() as boxes,
                "scores": Tensor(),
                "labels": Tensor(),
                "masks": Tensor(ndim=4) as masks,
            },
            *_,
        ]:
            count, channels, *size = masks.shape
            return count == len(boxes) and channels == 1 and (not count or tuple(size) == seen)
        case _:
            return False


def _described(outputs: Any) -> str:
    match outputs:
        case Tensor():
            return str(list(outputs.shape))
        case [dict() as first, *_]:
            return ", ".join(f"{key} {list(value.shape)}" for key, value in first.items())
        case _:
            return type(outputs).__name__
