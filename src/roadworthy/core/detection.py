"""Object detection as a task: COCO's average precision, fast enough to be resampled.

Boxes are matched to truths once, image by image; a resample only counts images more or less often,
which changes the sums behind precision and recall and nothing else.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

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

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which a box counts as found."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is read off."""
STRONG = 0.3
"""Score above which a box is shown to somebody: those are compared, counted and taken as truth."""
_BITS = len(IOUS)
_CELLS = 2**22


class Detection:
    """Mean average precision of boxes, as COCO computes it.

    An answer is ``[n 6]``, x1 y1 x2 y2 score class, in pixels of the image file, best first; a
    truth is ``[m 6]``, x1 y1 x2 y2 crowd class. Half an answer flipped means that the F1 score of
    its strong boxes against the base's, same class and an overlap of .5, is one half.

    Args:
        head: of the model.
        most_truths: that an image has.
        metric: ``map50`` counts overlaps from .5 on, ``map`` averages over .5 to .95.

    >>> task = Detection("xyxy-score-class")
    >>> answer, truth = np.array([[0, 0, 9, 9, 0.8, 2.0]]), np.array([[0, 0, 9, 9, 0, 2.0]])
    >>> task.values(task.evidence([answer], [truth]), np.array([[1]])).round(6).tolist()
    [1.0]
    """

    points = 100.0

    def __init__(
        self, head: Head, most_truths: int = MOST, metric: Literal["map50", "map"] = "map50"
    ) -> None:
        self.head: Head = head
        self.metric: str = metric
        self.posts: tuple[str, ...] = tuple(finishes(head))[1:]
        self._slots = max(MOST, most_truths)
        self._levels = range(_BITS if metric == "map" else 1)

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """Boxes of each image; BadInput where `post` is not known."""
        finish = finish_of(self.head, post)
        pairs = zip(candidates(self.head, outputs), places, strict=True)
        return [finished(boxes, finish, place) for boxes, place in pairs]

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """Scores, then classes and matches, of `MOST` boxes, then the truths' classes ``[n _]``.

        -1 fills what is empty; crowds are no truths that must be found.
        """
        rows = np.full((len(answers), 2 * MOST + self._slots), -1.0)
        for row, answer, truth in zip(rows, answers, truths, strict=True):
            best = answer[np.argsort(-answer[:, 4], kind="stable")][:MOST]
            wanted = truth[truth[:, 4] == 0, 5]
            row[: len(best)] = best[:, 4]
            row[MOST : MOST + len(best)] = best[:, 5] * 4**_BITS + matches(best, truth)
            row[2 * MOST : 2 * MOST + len(wanted)] = wanted
        return rows

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """The mean over the classes that a resample has truths of, 0 where it has none."""
        scores, codes, truths = np.split(evidence, [MOST, 2 * MOST], axis=1)
        image, slot = np.nonzero(scores >= 0)
        order = np.argsort(-scores[image, slot], kind="stable")
        image, code = image[order], codes[image, slot][order].astype(np.int64)
        total, present = np.zeros(len(counts)), np.zeros(len(counts), np.int64)
        for label in np.unique(truths[truths >= 0]):
            own = code >> 2 * _BITS == label
            wanted = counts @ (truths == label).sum(1)
            levels = [_precision(counts, image[own], code[own] >> i, wanted) for i in self._levels]
            total += np.mean(levels, 0)
            present += wanted > 0
        return total / np.maximum(present, 1)

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
        both = len(mine) + len(theirs)
        return 2 * int((matches(mine, theirs) & 1).sum()) / both if both else 1.0


def _strong(answer: Answer) -> Answer:
    return answer[answer[:, 4] > STRONG]


def matches(
    boxes: Float[NDArray[np.float64], "n 6"], truth: Float[NDArray[np.float64], "m 6"]
) -> Int[NDArray[np.int64], " n"]:
    """What boxes, best first, are at each of `IOUS`: bit i says found, bit 10 + i says ignored.

    Each takes the truth of its class, still free, that it overlaps most; one that only meets a
    crowd is neither right nor wrong (Lin et al. 2014).

    >>> box = [0, 0, 10, 10, 0.9, 1]
    >>> matches(np.array([box, box], float), np.array([[0, 0, 10, 6, 0, 1.0]])).tolist()
    [7, 0]
    """
    truth = truth[np.argsort(truth[:, 4], kind="stable")]
    crowd = truth[:, 4] > 0
    found = np.zeros(len(boxes), np.int64)
    if not len(truth):
        return found
    overlap = overlaps(boxes[:, :4], truth[:, :4], crowd)
    overlap[boxes[:, None, 5] != truth[None, :, 5]] = 0
    free = np.ones((_BITS, len(truth)), np.bool_)
    bits = 1 << np.arange(_BITS)
    for i in np.flatnonzero(overlap.max(1) >= IOUS[0]):
        reached = np.where(free & (overlap[i] >= IOUS[:, None]), overlap[i], 0.0)
        sure = reached * ~crowd
        right, ignored = sure.max(1) > 0, reached.max(1) > 0
        # Of equal overlaps the evaluators of COCO take the last.
        taken = len(truth) - 1 - sure[:, ::-1].argmax(1)
        free[right, taken[right]] = False
        found[i] = bits[right].sum() + (bits[ignored & ~right].sum() << _BITS)
    return found


def _precision(
    counts: Int[NDArray[np.int64], "r n"],
    image: Int[NDArray[np.int64], " d"],
    code: Int[NDArray[np.int64], " d"],
    wanted: Int[NDArray[np.int64], " r"],
) -> Float[NDArray[np.float64], " r"]:
    """Average precision of one class, whose boxes lie in `image`, best first, in each resample."""
    judged = code >> _BITS & 1 == 0
    image, hit = image[judged], (code[judged] & 1).astype(np.bool_)
    if not hit.any():
        return np.zeros(len(counts))
    last = int(np.flatnonzero(hit)[-1]) + 1
    step = max(1, _CELLS // last)
    parts = [
        _interpolated(counts[i : i + step][:, image[:last]], hit[:last], wanted[i : i + step])
        for i in range(0, len(counts), step)
    ]
    return np.concatenate(parts)


def _interpolated(
    weights: Int[NDArray[np.int64], "r d"],
    hit: Bool[NDArray[np.bool_], " d"],
    wanted: Int[NDArray[np.int64], " r"],
) -> Float[NDArray[np.float64], " r"]:
    """Mean over `RECALLS` of the best precision at that recall or beyond."""
    right = weights[:, hit].cumsum(1)
    precision = right / np.maximum(weights.cumsum(1)[:, hit], 1)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    passed = np.searchsorted(RECALLS, right / np.maximum(wanted, 1)[:, None], side="right")
    return (best * np.diff(passed, prepend=0)).sum(1) / len(RECALLS)


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
    held = [dataset.source.relative(i) for i in dataset.indices]
    highest = max((int(boxes[:, 5].max()) for boxes in held if len(boxes)), default=None)
    if highest is None:
        raise BadData(f"{dataset.spec} has no boxes on {len(dataset)} images; give some to find")
    if classes is not None and dataset.ranked and len(dataset.classes) != classes:
        raise BadData(
            f"{dataset.spec} has {len(dataset.classes)} categories and the model {classes} "
            "classes; keep the file's own ids by ?ids=file, or list the categories of the model"
        )
    if classes is not None and highest >= classes:
        at = next(i for i, boxes in enumerate(held) if (boxes[:, 5] == highest).any())
        raise BadData(
            f"{dataset.name(at)} has a box of class {highest} and the model {classes} classes; "
            f"0 to {classes - 1} are allowed"
        )
    return Detection(head, max(map(len, held)))
