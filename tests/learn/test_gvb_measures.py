"""The benchmark's metrics against slow ones that say in loops what the rules are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.images import Placement
from roadworthy.core.sources import png
from roadworthy.errors import BadData
from roadworthy.learn.gvb.box_measures import (
    FALSE_PER_IMAGE,
    FaceAP,
    MissRate,
    VocAP,
    area_under,
    eleven_points,
    face_precision,
    miss_rate,
    voc_curve,
)
from roadworthy.learn.gvb.entries import entry
from roadworthy.learn.gvb.measures import MeanIoU, MeanPerClass, Rmse, Top1, judged
from roadworthy.learn.gvb.part import Part, Target
from roadworthy.learn.gvb.shown import _answering
from roadworthy.learn.readers import Origin
from roadworthy.learn.sample import Sample

Boxes = NDArray[np.float64]


def classed(labels: list[int], classes: str = "abc") -> Part:
    names = tuple(map(str, range(len(labels))))
    return Part(
        Origin("set"), "classification", tuple(classes), names, lambda _: _none(), tuple(labels)
    )


def _none() -> Sample:
    raise AssertionError("not an image is read")


def numbers(*said: int) -> list[NDArray[Any]]:
    return [np.array([each, 0.9]) for each in said]


def test_accuracy_counts_images_and_mean_per_class_counts_classes() -> None:
    part = classed([0, 0, 0, 1])
    said = numbers(0, 0, 0, 2)
    assert Top1()(said, part).value == 0.75
    scored = MeanPerClass()(said, part)
    assert scored.value == 0.5
    assert scored.also == {"top-1": 0.75}
    assert scored.told == ()  # the part's own lines name classes without an image
    assert part.empty == ("c",)
    with pytest.raises(ValueError, match="zip"):
        Top1()(said[:-1], part)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_mean_per_class_is_the_mean_of_the_accuracies(pairs: list[tuple[int, int]]) -> None:
    labels, said = [list(each) for each in zip(*pairs, strict=True)]
    shares = []
    for label in set(labels):
        own = [answer for answer, truth in zip(said, labels, strict=True) if truth == label]
        shares.append(own.count(label) / len(own))
    found = MeanPerClass()(numbers(*said), classed(labels, "abcd")).value
    assert found == pytest.approx(sum(shares) / len(shares))


def overlap(a: Any, b: Any, wider: float = 0, own: bool = False) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + wider
    height = min(a[3], b[3]) - max(a[1], b[1]) + wider
    if min(width, height) <= 0:
        return 0.0
    one, two = ((each[2] - each[0] + wider) * (each[3] - each[1] + wider) for each in (a, b))
    return width * height / (one if own else one + two - width * height)


@st.composite
def scenes(draw: st.DrawFn, images: int = 3) -> tuple[list[Boxes], list[Target]]:
    """Tall boxes that often overlap, and answers near them, no two of the same score."""
    seed = draw(st.integers(0, 10_000))
    random = np.random.default_rng(seed)
    answers, targets = [], []
    scores = iter(random.permutation(200) / 200)
    for _ in range(images):
        n, m = random.integers(0, 5), random.integers(0, 9)
        corner = random.integers(0, 40, (n, 2))
        boxes = np.concatenate([corner, corner + random.integers([10, 45], [30, 90], (n, 2))], 1)
        near = boxes[random.integers(0, n, m)] if n else random.integers(0, 30, (m, 4))
        moved = near + random.integers(-6, 7, (m, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        rows = [[*each, next(scores), random.integers(2)] for each in moved]
        flags = {name: random.random(n) < 0.3 for name in ("all", "easy", "reasonable")}
        answers.append(np.array(rows, np.float64).reshape(-1, 6))
        targets.append(Target(boxes.astype(np.float64), random.integers(0, 2, n), flags))
    return answers, targets


def ranked(answers: list[Boxes]) -> list[tuple[int, NDArray[np.float64]]]:
    rows = [(i, row) for i, each in enumerate(answers) for row in each]
    return sorted(rows, key=lambda each: -each[1][4])


@settings(max_examples=25)
@given(scenes())
def test_voc_takes_the_most_overlapped_object_and_leaves_difficult_ones_out(
    scene: tuple[list[Boxes], list[Target]],
) -> None:
    answers, targets = scene
    wanted = sum(int(((t.classes == 1) & ~t.ignored["all"]).sum()) for t in targets)
    used: set[tuple[int, int]] = set()
    recall, precision = [], []
    right = counted = 0
    for i, row in ranked(answers):
        if row[5] != 1:
            continue
        objects = [j for j, label in enumerate(targets[i].classes) if label == 1]
        shares = {j: overlap(row, targets[i].boxes[j]) for j in objects}
        best = max(shares, key=lambda j: shares[j], default=None)
        found = best is not None and shares[best] >= 0.5
        if found and targets[i].ignored["all"][best]:
            continue
        counted += 1
        if found and (i, best) not in used:
            used.add((i, best))
            right += 1
        recall.append(right / max(wanted, 1))
        precision.append(right / counted)
    curve = voc_curve(answers, targets, 1)
    if not wanted:
        assert curve is None
        return
    assert curve is not None
    assert curve[0].tolist() == pytest.approx(recall)
    assert curve[1].tolist() == pytest.approx(precision)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 3))
def test_average_precision_is_the_mean_of_the_best_precision_beyond(
    hits: list[bool], missed: int
) -> None:
    wanted = max(1, sum(hits) + missed)
    right = np.cumsum(hits)
    recall, precision = right / wanted, right / np.arange(1, len(hits) + 1)
    points = list(zip(recall, precision, strict=True))

    def best(least: float) -> float:
        return max((p for r, p in points if r >= least - 1e-9), default=0.0)

    eleven = sum(best(i / 10) for i in range(11)) / 11
    area = sum(best(i / wanted) for i in range(1, wanted + 1)) / wanted
    assert eleven_points(recall, precision) == pytest.approx(eleven)
    assert area_under(recall, precision) == pytest.approx(area)


@settings(max_examples=8)
@given(scenes())
def test_faces_are_judged_at_a_thousand_thresholds(scene: tuple[list[Boxes], list[Target]]) -> None:
    answers, targets = scene
    wanted = sum(int((~t.ignored["easy"]).sum()) for t in targets)
    scores = [row[4] for _, row in ranked(answers)]
    if not wanted:
        with pytest.raises(BadData, match="no face is easy"):
            face_precision(answers, targets, "easy")
        return
    used: set[tuple[int, int]] = set()
    events: list[tuple[float, bool]] = []
    for i, row in ranked(answers):
        shares = [overlap(row, box, wider=1) for box in targets[i].boxes]
        best = int(np.argmax(shares)) if shares else -1
        found = bool(shares) and shares[best] >= 0.5
        if found and targets[i].ignored["easy"][best]:
            continue
        events.append((row[4], found and (i, best) not in used))
        if found:
            used.add((i, best))
    curve = []
    for t in range(1000):
        low, high = (min(scores), max(scores)) if scores else (0, 1)
        least = 1 - (t + 1) / 1000
        kept = [hit for score, hit in events if (score - low) / ((high - low) or 1) >= least]
        curve.append((sum(kept) / wanted, sum(kept) / max(len(kept), 1)))
    area, last = 0.0, 0.0
    for i, (recall, _) in enumerate(curve):
        if recall > last:
            area += (recall - last) * max(p for _, p in curve[i:])
            last = recall
    assert face_precision(answers, targets, "easy") == pytest.approx(area)


@settings(max_examples=25)
@given(scenes())
def test_the_miss_rate_is_read_off_at_nine_rates_of_false_boxes(
    scene: tuple[list[Boxes], list[Target]],
) -> None:
    answers, targets = scene
    wanted = sum(int((~t.ignored["reasonable"]).sum()) for t in targets)
    if not wanted:
        return
    points = [(0.0, 1.0)]
    for least in sorted({row[4] for _, row in ranked(answers)}):
        right = wrong = 0
        for answer, target in zip(answers, targets, strict=True):
            used: set[int] = set()
            for row in sorted(answer, key=lambda each: -each[4]):
                if row[4] < least or row[3] - row[1] < 40:
                    continue
                asked = ~target.ignored["reasonable"]
                shares = [
                    (overlap(row, box), j)
                    for j, box in enumerate(target.boxes)
                    if asked[j] and j not in used
                ]
                best = max(shares, default=(0.0, -1))
                if best[0] >= 0.5:
                    used.add(best[1])
                    right += 1
                elif not any(
                    overlap(row, box, own=True) >= 0.5
                    for j, box in enumerate(target.boxes)
                    if not asked[j]
                ):
                    wrong += 1
        points.append((wrong / len(targets), 1 - right / wanted))
    missed = [min(m for rate, m in points if rate <= at + 1e-9) for at in FALSE_PER_IMAGE]
    slow = np.exp(np.mean(np.log(np.maximum(missed, 1e-10))))
    assert miss_rate(answers, targets, "reasonable") == pytest.approx(slow)


def found(targets: list[Target], classes: tuple[str, ...]) -> Part:
    names = tuple(map(str, range(len(targets))))
    return Part(
        Origin("set"), "detection", classes, names, lambda _: _none(), target=targets.__getitem__
    )


def asked(setting: str, *flags: bool, **more: list[bool]) -> Target:
    boxes = np.array([[60.0 * i, 0, 60 * i + 30, 80] for i in range(len(flags))])
    ignored = {name: np.array(each) for name, each in {setting: list(flags), **more}.items()}
    return Target(boxes, np.zeros(len(flags), np.int64), ignored)


def right_boxes(target: Target, score: float = 0.9) -> Boxes:
    rows = np.tile([score, 0.0], (len(target.boxes), 1))
    return np.concatenate([target.boxes, rows], 1)


def test_perfect_answers_are_perfect_and_none_are_worth_nothing() -> None:
    voc, faces = asked("all", False, True), asked("easy", False, medium=[False], hard=[False])
    persons = asked("reasonable", False, True, heavy=[True, False])
    none = np.zeros((0, 6))
    for measure, target, best, worst in (
        (VocAP(), voc, 1, 0), (FaceAP(), faces, 1, 0), (MissRate(), persons, 1e-10, 1),
    ):  # fmt: skip
        part = found([target], ("a",))
        assert measure([right_boxes(target)], part).value == pytest.approx(best)
        assert measure([none], part).value == worst
        assert (best > worst) == measure.higher
        with pytest.raises(BadData, match="2 answers to 1 images"):
            measure([none, none], part)


def test_classes_without_an_object_are_left_out_and_told() -> None:
    target = asked("all", False)
    scored = VocAP()([right_boxes(target)], found([target], ("dog", "cat")))
    assert scored.value == pytest.approx(1)
    assert scored.told == ("no object of 1 (cat); left out",)
    with pytest.raises(BadData, match="no object to find"):
        VocAP()([right_boxes(target)], found([asked("all", True)], ("dog",)))
    person = asked("reasonable", True, heavy=[False])
    with pytest.raises(BadData, match="no reasonable pedestrian"):
        MissRate()([right_boxes(person)], found([person], ("pedestrian",)))


def test_what_mostly_lies_in_a_crowd_does_not_count() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 80, 80]])
    flags = np.array([False, True])
    target = Target(boxes, np.zeros(2, np.int64), {"all": flags})
    answers = np.array([[0, 0, 10, 10, 0.5, 0], [30, 30, 40, 40, 0.9, 0], [70, 70, 95, 95, 0.8, 0]])
    for crowds, precision in ((None, 1 / 3), (flags, 1 / 2)):
        part = found([replace(target, crowds=crowds)], ("dog",))
        assert VocAP()([answers], part).value == pytest.approx(precision)


def masked(masks: list[Any], classes: tuple[str, ...]) -> Part:
    return _maps("segmentation", classes, [{"mask": np.array(each, np.uint8)} for each in masks])


def deep(*depths: Any) -> Part:
    return _maps("depth", (), [{"depth": np.array(each, np.float32)} for each in depths])


def _maps(task: Any, classes: tuple[str, ...], said: list[dict[str, Any]]) -> Part:
    def read(number: int) -> Sample:
        (pixels,) = said[number].values()
        return Sample(
            png(Image.fromarray(np.zeros((*pixels.shape, 3), np.uint8))),
            f"image {number}",
            "set",
            **said[number],
        )

    return Part(Origin("set"), task, classes, tuple(map(str, range(len(said)))), read)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 255])), min_size=2, max_size=24)
)
def test_miou_counts_pixels_of_all_images_and_skips_void(pixels: list[tuple[int, int]]) -> None:
    answers, truths = (np.array([each], np.uint8) for each in zip(*pixels, strict=True))
    part = masked([truths[:, :1], truths[:, 1:]], ("a", "b", "c", "d"))
    judged_pixels = [(a, t) for a, t in pixels if t != 255]
    shares = []
    for label in range(4):
        both = sum(a == t == label for a, t in judged_pixels)
        either = sum(label in (a, t) for a, t in judged_pixels)
        shares += [both / either] if either else []
    said = [answers[:, :1], answers[:, 1:]]
    if not shares:
        with pytest.raises(BadData, match="mIoU is undefined"):
            MeanIoU()(said, part)
        return
    scored = MeanIoU()(said, part)
    assert scored.value == pytest.approx(np.mean(shares))
    assert bool(scored.told) == (len(shares) < 4)


def test_rmse_is_of_each_image_between_the_caps_and_of_clipped_answers() -> None:
    measure = Rmse(nearest=1.0, farthest=10.0)
    part = deep([[0.5, 2, 4, 10, np.nan]], [[5.0, 12, 12, 12, 12]], [[20.0] * 5])
    answers = [np.array([[9, 2, 40, 1, 1.0]]), np.array([[0.0, 1, 1, 1, 1]]), np.ones((1, 5))]
    first, second = np.sqrt(((10 - 4) ** 2 + 0) / 2), 5.0 - 1
    scored = measure(answers, part)
    assert scored.value == pytest.approx((first + second) / 2)
    assert scored.told == ("1 (image 2) without a depth to judge by; left out",)
    with pytest.raises(BadData, match="no depth to judge by"):
        measure(answers[:1], deep([[20.0] * 5]))
    with pytest.raises(BadData, match=r"answered \[1, 4\] and has \[1, 5\] pixels"):
        measure([np.ones((1, 4))], deep([[5.0] * 5]))


def test_images_of_one_name_are_images_of_their_own() -> None:
    part = deep([[4.0]], [[4.0]], [[4.0]])
    same = replace(part, read=lambda i: replace(part.read(i), name="twice"))
    assert Rmse()([np.array([[each]]) for each in (4.0, 6.0, 8.0)], same).value == 2.0


@pytest.mark.parametrize(
    ("name", "size", "inside", "outside", "farthest"),
    [
        ("kitti", (375, 1242), (153, 44), (152, 44), 80),
        ("kitti", (375, 1242), (370, 1196), (370, 1197), 80),
        ("nyuv2", (480, 640), (45, 41), (44, 41), 10),
        ("nyuv2", (480, 640), (470, 600), (471, 600), 10),
    ],
)
def test_depth_is_judged_where_the_official_crops_say(
    name: str, size: Any, inside: Any, outside: Any, farthest: float
) -> None:
    measure = entry(name).metric
    assert isinstance(measure, Rmse)
    assert measure.farthest == farthest
    seen = judged(*size, measure.crop)
    assert seen[inside]
    assert not seen[outside]
    depth = np.full(size, 5.0, np.float32)
    answer = np.full(size, 5.0)
    answer[outside] = 1
    assert measure([answer], deep(depth)).value == 0
    answer[inside] = 1
    assert measure([answer], deep(depth)).value == pytest.approx(4 / np.sqrt(seen.sum()))


def test_a_crowd_of_more_than_a_hundred_is_answered_whole() -> None:
    corners = torch.arange(150)[:, None] * 4 + torch.tensor([0, 0, 3, 3])
    said = torch.cat([corners, torch.full((150, 1), 0.5)], 1)[None]
    place = Placement((1.0, 1.0), (0, 0), (600, 600))
    (found,) = _answering("detection", 1, 600).answers(said, [place], "as-trained")
    assert len(found) == 150
