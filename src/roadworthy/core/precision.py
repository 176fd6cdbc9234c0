"""Average precision as COCO computes it, for boxes or masks alike, fast enough to be resampled.

Answers are matched to truths once, image by image; a resample only counts images more or less
often, which changes the sums behind precision and recall and nothing else.

A row of an answer is ``x1 y1 x2 y2 score class``, of a truth ``x1 y1 x2 y2 crowd class``; how far
the two overlap is for the task to say.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from roadworthy.core.boxes import MOST
from roadworthy.core.tasks import Evidence

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which an answer counts as found."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is read off."""
STRONG = 0.3
"""Score above which an answer is shown to somebody: those are compared, counted, taken as truth."""
BITS = len(IOUS)
_CELLS = 2**22

Rows = Float[NDArray[np.float64], "_ 6"]
Overlap = Float[NDArray[np.float64], "_ _"]


def evidence(
    answers: Sequence[Rows], truths: Sequence[Rows], overlaps: Sequence[Overlap], slots: int
) -> Evidence:
    """Scores, then classes and matches, of `MOST` answers, then the truths' classes ``[n _]``.

    -1 fills what is empty of the `slots` for truths; crowds are no truths that must be found.
    """
    rows = np.full((len(answers), 2 * MOST + slots), -1.0)
    for row, answer, truth, overlap in zip(rows, answers, truths, overlaps, strict=True):
        order = np.argsort(-answer[:, 4], kind="stable")[:MOST]
        best = answer[order]
        wanted = truth[truth[:, 4] == 0, 5]
        row[: len(best)] = best[:, 4]
        found = matches(best, truth, overlap[order])
        row[MOST : MOST + len(best)] = best[:, 5] * 4**BITS + found
        row[2 * MOST : 2 * MOST + len(wanted)] = wanted
    return rows


def mean_precision(
    evidence: Evidence, counts: Int[NDArray[np.int64], "r n"], levels: Sequence[int]
) -> Float[NDArray[np.float64], " r"]:
    """Mean over `levels` of `IOUS` and over the classes that a resample has truths of, else 0."""
    scores, codes, truths = np.split(evidence, [MOST, 2 * MOST], axis=1)
    image, slot = np.nonzero(scores >= 0)
    order = np.argsort(-scores[image, slot], kind="stable")
    image, code = image[order], codes[image, slot][order].astype(np.int64)
    total, present = np.zeros(len(counts)), np.zeros(len(counts), np.int64)
    for label in np.unique(truths[truths >= 0]):
        own = code >> 2 * BITS == label
        wanted = counts @ (truths == label).sum(1)
        found = [_precision(counts, image[own], code[own] >> i, wanted) for i in levels]
        total += np.mean(found, 0)
        present += wanted > 0
    return total / np.maximum(present, 1)


def shared(mine: Rows, theirs: Rows, overlap: Overlap) -> float:
    """F1 score of `mine` with `theirs` as truth, at an overlap of .5; 1 where neither has any."""
    both = len(mine) + len(theirs)
    return 2 * int((matches(mine, theirs, overlap) & 1).sum()) / both if both else 1.0


def matches(
    answer: Float[NDArray[np.float64], "n 6"],
    truth: Float[NDArray[np.float64], "m 6"],
    overlap: Float[NDArray[np.float64], "n m"],
) -> Int[NDArray[np.int64], " n"]:
    """What answers, best first, are at each of `IOUS`: bit i says found, bit 10 + i says ignored.

    Each takes the truth of its class, still free, that it overlaps most; one that only meets a
    crowd is neither right nor wrong (Lin et al. 2014).

    >>> box, truth = [0, 0, 10, 10, 0.9, 1], np.array([[0, 0, 10, 6, 0, 1.0]])
    >>> matches(np.array([box, box], float), truth, np.array([[0.6], [0.6]])).tolist()
    [7, 0]
    """
    found = np.zeros(len(answer), np.int64)
    if not len(truth):
        return found
    order = np.argsort(truth[:, 4], kind="stable")
    truth = truth[order]
    crowd = truth[:, 4] > 0
    overlap = np.where(answer[:, None, 5] == truth[None, :, 5], overlap[:, order], 0.0)
    free = np.ones((BITS, len(truth)), np.bool_)
    bits = 1 << np.arange(BITS)
    for i in np.flatnonzero(overlap.max(1) >= IOUS[0]):
        reached = np.where(free & (overlap[i] >= IOUS[:, None]), overlap[i], 0.0)
        sure = reached * ~crowd
        right, ignored = sure.max(1) > 0, reached.max(1) > 0
        # Of equal overlaps the evaluators of COCO take the last.
        taken = len(truth) - 1 - sure[:, ::-1].argmax(1)
        free[right, taken[right]] = False
        found[i] = bits[right].sum() + (bits[ignored & ~right].sum() << BITS)
    return found


def _precision(
    counts: Int[NDArray[np.int64], "r n"],
    image: Int[NDArray[np.int64], " d"],
    code: Int[NDArray[np.int64], " d"],
    wanted: Int[NDArray[np.int64], " r"],
) -> Float[NDArray[np.float64], " r"]:
    """Average precision of a class, whose answers lie in `image`, best first, in each resample."""
    judged = code >> BITS & 1 == 0
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
