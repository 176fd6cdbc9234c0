"""Metrics of boxes by the rules of VOC, WIDER FACE and CityPersons."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from roadworthy.core.boxes import overlaps
from roadworthy.errors import BadData
from roadworthy.learn.gvb.detection import ALL, EASES, HEAVY, HEIGHTS, REASONABLE
from roadworthy.learn.gvb.measures import Scored
from roadworthy.learn.gvb.part import Part, Target, few

Answer = Float[NDArray[np.float64], "_ 6"]
Values = Float[NDArray[np.float64], " _"]
Flags = Bool[NDArray[np.bool_], " _"]
_LEAST = 0.5
"""Overlap from which a box counts as found."""
FALSE_PER_IMAGE = np.array([0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0])
"""Nine rates, evenly spaced in their logarithm, at which the miss rate is read off."""
_TALLER = 1.25


@dataclass(frozen=True)
class VocAP:
    """Average precision at an overlap of .5, averaged over the classes.

    By the rule of 2007, the mean of the best precision from eleven recalls on; the area under the
    curve, the rule since 2010, stands beside it.
    """

    name: str = "AP50"
    higher: bool = True

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image; classes without an object to find are left out and told."""
        held, targets = _held(answers, part)
        curves = [voc_curve(held, targets, label) for label in range(len(part.classes))]
        lost = [name for name, each in zip(part.classes, curves, strict=True) if each is None]
        known = [each for each in curves if each is not None]
        if not known:
            raise BadData(f"{part.origin.source} has no object to find; AP50 is undefined")
        told = (f"no object of {few(lost)}; left out",) if lost else ()
        eleven, area = (
            float(np.mean([rule(*each) for each in known])) for rule in (eleven_points, area_under)
        )
        return Scored(eleven, {"AP50, area": area}, told)


def _held(answers: Iterable[Answer], part: Part) -> tuple[list[Answer], list[Target]]:
    assert part.target is not None
    held = [np.asarray(each, np.float64).reshape(-1, 6) for each in answers]
    if len(held) != len(part):
        raise BadData(f"{len(held)} answers to {len(part)} images given; one each is needed")
    return held, [part.target(i) for i in range(len(part))]


def voc_curve(
    answers: Sequence[Answer], targets: Sequence[Target], label: int
) -> tuple[Values, Values] | None:
    """Recall and precision with each answer of a class, best first; None without an object of it.

    An answer belongs to the object that it overlaps most, difficult ones included; it is right if
    it is the first of its object, wrong if it is not, and does not count where that is difficult.
    """
    found: list[tuple[float, bool, bool]] = []
    wanted = 0
    for answer, target in zip(answers, targets, strict=True):
        own = target.classes == label
        ignored = target.ignored[ALL][own]
        wanted += int((~ignored).sum())
        mine = _best_first(answer[answer[:, 5] == label])
        hit, left_out = _claimed(overlaps(mine[:, :4], target.boxes[own]), ignored)
        if target.crowds is not None:
            left_out |= ~hit & _inside(mine, target.boxes[own & target.crowds])
        found += zip(mine[:, 4].tolist(), hit.tolist(), left_out.tolist(), strict=True)
    if not wanted:
        return None
    return _curve([(score, hit) for score, hit, left_out in found if not left_out], wanted)


def _best_first(answer: Answer) -> Answer:
    return answer[np.argsort(-answer[:, 4], kind="stable")]


def _inside(answer: Answer, crowds: Float[NDArray[np.float64], "_ 4"]) -> Flags:
    """Which answers lie in a crowd by half of their own area or more, as COCO counts them."""
    left, right = answer[:, None, :4], crowds[None]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    own = (answer[:, 2:4] - answer[:, :2]).clip(0).prod(1)
    return (sides.clip(0).prod(2) >= _LEAST * own[:, None]).any(1)


def _claimed(shared: Float[NDArray[np.float64], "_ _"], ignored: Flags) -> tuple[Flags, Flags]:
    """Which answers, best first, are right, and which do not count."""
    hit, left_out = np.zeros((2, len(shared)), np.bool_)
    free = np.ones(len(ignored), np.bool_)
    for i, row in enumerate(shared if len(ignored) else ()):
        best = int(row.argmax())
        if row[best] >= _LEAST:
            left_out[i] = ignored[best]
            hit[i] = free[best] and not ignored[best]
            free[best] = False
    return hit, left_out


def _curve(found: Sequence[tuple[float, bool]], wanted: int) -> tuple[Values, Values]:
    order = sorted(found, key=lambda each: -each[0])
    right = np.cumsum([hit for _, hit in order], dtype=np.float64)
    return right / wanted, right / np.arange(1, len(order) + 1)


def eleven_points(recall: Values, precision: Values) -> float:
    """The mean of the best precision at recalls of 0, 0.1 ... 1 and beyond.

    >>> round(eleven_points(np.array([0.5, 0.5]), np.array([1.0, 0.5])), 3)
    0.545
    """
    best = [precision[recall >= each - 1e-12].max(initial=0.0) for each in np.linspace(0, 1, 11)]
    return float(np.mean(best))


def area_under(recall: Values, precision: Values) -> float:
    """The area under the best precision at each recall and beyond.

    >>> area_under(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 0.75]))
    0.875
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


@dataclass(frozen=True)
class FaceAP:
    """Average precision of faces as WIDER FACE's own evaluation computes it; hard is the metric."""

    name: str = "AP hard"
    higher: bool = True

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image: hard, and easy and medium beside it."""
        held, targets = _held(answers, part)
        easy, medium, hard = (face_precision(held, targets, ease) for ease in EASES)
        return Scored(hard, {"AP easy": easy, "AP medium": medium})


_LEVELS = 1000


def face_precision(answers: Sequence[Answer], targets: Sequence[Target], ease: str) -> float:
    """Area under the curve of 1000 thresholds on the scores, stretched to 0 to 1 over all images.

    An answer belongs to the face that it overlaps most. Where that one need not be found in this
    setting the answer does not count; all others are proposals, also a second one of a face. Sides
    count one pixel more than their ends differ, as in the official code.

    Raises:
        BadData: no face of this setting.
    """
    wanted = sum(int((~target.ignored[ease]).sum()) for target in targets)
    if not wanted:
        raise BadData(f"no face is {ease}; its average precision is undefined")
    scores = np.concatenate([each[:, 4] for each in answers]) if answers else np.zeros(0)
    low, span = (scores.min(), np.ptp(scores) or 1.0) if len(scores) else (0.0, 1.0)
    proposed, right = np.zeros(_LEVELS), np.zeros(_LEVELS)
    for answer, target in zip(answers, targets, strict=True):
        mine = _best_first(answer)
        mine[:, 4] = (mine[:, 4] - low) / span
        wider = [0.0, 0.0, 1.0, 1.0]
        shared = overlaps(mine[:, :4] + wider, target.boxes + wider)
        hit, left_out = _claimed(shared, target.ignored[ease])
        proposed += _reached(mine[~left_out, 4])
        right += _reached(mine[hit, 4])
    precision = right / np.maximum(proposed, 1)
    return area_under(right / wanted, precision)


def _reached(scores: Values) -> Values:
    """How many scores are at least 0.999, 0.998 ... 0."""
    levels = 1 - np.arange(1, _LEVELS + 1) / _LEVELS
    return len(scores) - np.searchsorted(np.sort(scores), levels).astype(np.float64)


@dataclass(frozen=True)
class MissRate:
    """Pedestrians that are missed, as CityPersons counts them; reasonable ones are the metric."""

    name: str = "miss rate"
    higher: bool = False

    def __call__(self, answers: Iterable[Answer], part: Part) -> Scored:
        """Of an answer to each image: reasonable, and heavily occluded beside it."""
        held, targets = _held(answers, part)
        reasonable, heavy = (
            miss_rate(held, targets, each) if _some(targets, each) else float("nan")
            for each in (REASONABLE, HEAVY)
        )
        if np.isnan(reasonable):
            raise BadData(f"{part.origin.source} has no reasonable pedestrian; nothing to miss")
        if np.isnan(heavy):
            return Scored(reasonable, told=("no pedestrian is heavily occluded",))
        return Scored(reasonable, {"miss rate, heavy": heavy})


def _some(targets: Sequence[Target], setting: str) -> bool:
    return any((~target.ignored[setting]).any() for target in targets)


def miss_rate(answers: Sequence[Answer], targets: Sequence[Target], setting: str) -> float:
    """Geometric mean of the share that is missed, at nine rates of false boxes per image.

    An answer takes the free pedestrian that it overlaps most; one that only meets what need not be
    found, by the share of the answer's own area, does not count. Answers lower than the setting's
    pedestrians by more than a factor of 1.25 are dropped first (Dollar et al. 2012).
    """
    lowest = HEIGHTS[setting][0] / _TALLER
    found: list[tuple[float, bool]] = []
    wanted = 0
    for answer, target in zip(answers, targets, strict=True):
        best = _best_first(answer)
        mine = best[best[:, 3] - best[:, 1] >= lowest]
        ignored = target.ignored[setting]
        wanted += int((~ignored).sum())
        shared = overlaps(mine[:, :4], target.boxes, ignored)
        said = zip(mine[:, 4].tolist(), _taken(shared, ignored), strict=True)
        found += [(score, hit) for score, hit in said if hit is not None]
    recall, _ = _curve(found, wanted)
    right = recall * wanted
    wrong = (np.arange(1, len(found) + 1) - right) / len(targets)
    last = np.searchsorted(wrong, FALSE_PER_IMAGE + 1e-12, side="right")
    reached = np.concatenate([[0.0], recall])[last]
    return float(np.exp(np.log(np.maximum(1 - reached, 1e-10)).mean()))


def _taken(shared: Float[NDArray[np.float64], "_ _"], ignored: Flags) -> list[bool | None]:
    """Whether each answer, best first, is right; None where it does not count."""
    said: list[bool | None] = []
    free = ~ignored
    for row in shared:
        reached = np.where(row >= _LEAST, row, 0.0)
        sure = reached * free
        if sure.any():
            free[int(sure.argmax())] = False
            said.append(True)
        else:
            said.append(None if (reached * ignored).any() else False)
    return said
