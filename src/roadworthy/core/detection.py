"""Object detection as a task: COCO's average precision of boxes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from roadworthy.core import precision
from roadworthy.core.boxes import (
    MOST,
    Head,
    candidates,
    finish_of,
    finished,
    finishes,
    overlaps,
)
from roadworthy.core.boxes_data import Boxes
from roadworthy.core.data import Dataset
from roadworthy.core.images import Placement
from roadworthy.core.tasks import Answer, Evidence
from roadworthy.errors import BadData


class Detection:
    """Mean average precision of boxes, as COCO computes it.

    An answer is ``[n 6]``, x1 y1 x2 y2 score class, in pixels of the image file, best first; a
    truth is ``[m 6]``, x1 y1 x2 y2 crowd class. Half an answer flipped means that the F1 score of
    its strong boxes against the base's, same class and an overlap of .5, is one half.

    Args:
        head: of the model.
        most_truths: that an image has.
        metric: ``map50`` counts overlaps from .5 on, ``map`` averages over .5 to .95.
        most: boxes that an image is answered with; `evidence` counts no more than `MOST`.

    >>> task = Detection("xyxy-score-class")
    >>> answer, truth = np.array([[0, 0, 9, 9, 0.8, 2.0]]), np.array([[0, 0, 9, 9, 0, 2.0]])
    >>> task.values(task.evidence([answer], [truth]), np.array([[1]])).round(6).tolist()
    [1.0]
    """

    points = 100.0

    def __init__(
        self,
        head: Head,
        most_truths: int = MOST,
        metric: Literal["map50", "map"] = "map50",
        most: int = MOST,
    ) -> None:
        self.head: Head = head
        self.metric: str = metric
        self.posts: tuple[str, ...] = tuple(finishes(head))[1:]
        self._most = most
        self._slots = max(MOST, most_truths)
        self._levels = range(precision.BITS if metric == "map" else 1)

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """Boxes of each image; BadInput where `post` is not known."""
        finish = replace(finish_of(self.head, post), most=self._most)
        pairs = zip(candidates(self.head, outputs, self._most), places, strict=True)
        return [finished(boxes, finish, place) for boxes, place in pairs]

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """What `precision.mean_precision` needs ``[n _]``."""
        pairs = zip(answers, truths, strict=True)
        found = [_overlap(answer, truth) for answer, truth in pairs]
        return precision.evidence(answers, truths, found, self._slots)

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """The mean over the classes that a resample has truths of, 0 where it has none."""
        return precision.mean_precision(evidence, counts, self._levels)

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """1 - F1 of the strong boxes, taking the base's as truth; 0 where neither has any."""
        pairs = zip(answers, base, strict=True)
        return np.array([1.0 - self._shared(answer, own) for answer, own in pairs])

    def truth(self, answer: Answer) -> Answer:
        """The strong boxes."""
        strong = _strong(answer).copy()
        strong[:, 4] = 0
        return strong

    def brief(self, answer: Answer) -> float:
        """How many strong boxes there are."""
        return float(len(_strong(answer)))

    def _shared(self, answer: Answer, base: Answer) -> float:
        mine, theirs = _strong(answer), self.truth(base)
        return precision.shared(mine, theirs, _overlap(mine, theirs))


def _strong(answer: Answer) -> Answer:
    return answer[answer[:, 4] > precision.STRONG]


def _overlap(answer: Answer, truth: Answer) -> Float[NDArray[np.float64], "_ _"]:
    return overlaps(answer[:, :4], truth[:, :4], truth[:, 4] > 0)


def detection_of(dataset: Dataset, head: Head, classes: int | None) -> Detection:
    """The task that `dataset` sets to a model with `head` and that many `classes`.

    Args:
        dataset: of boxes, or of images without any.
        head: of the model.
        classes: that the model tells apart, None where nobody knows.

    Raises:
        BadData: labels that cannot be the model's, or not a single box.
    """
    if not isinstance(dataset.source, Boxes) or not dataset.known(0):
        return Detection(head)
    return Detection(head, most_truths(dataset, dataset.source, classes))


def most_truths(dataset: Dataset, boxes: Boxes, classes: int | None) -> int:
    """How many objects an image of `dataset` has at most.

    Raises:
        BadData: labels that cannot be those of a model with that many `classes`, or not a single
            box.
    """
    held = [boxes.relative(i) for i in dataset.indices]
    highest = max((int(rows[:, 5].max()) for rows in held if len(rows)), default=None)
    if highest is None:
        raise BadData(f"{dataset.spec} has no boxes on {len(dataset)} images; give some to find")
    if classes is not None and dataset.ranked and len(dataset.classes) != classes:
        raise BadData(
            f"{dataset.spec} has {len(dataset.classes)} categories and the model {classes} "
            "classes; keep the file's own ids by ?ids=file, or list the categories of the model"
        )
    if classes is not None and highest >= classes:
        at = next(i for i, rows in enumerate(held) if (rows[:, 5] == highest).any())
        raise BadData(
            f"{dataset.name(at)} has a box of class {highest} and the model {classes} classes; "
            f"0 to {classes - 1} are allowed"
        )
    return max(map(len, held))
