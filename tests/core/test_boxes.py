"""Boxes from a detector's outputs to the image file."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roadworthy.core.boxes import (
    MOST,
    OWN,
    Finish,
    candidates,
    class_count,
    finish_of,
    finished,
    finishes,
    head_of,
    overlaps,
    placed_back,
)
from roadworthy.core.images import Placement, Preprocess, placement
from roadworthy.errors import BadInput, BadModel

HERE = Placement((1.0, 1.0), (0, 0), (100, 100))


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows).reshape(-1, 6)


@pytest.mark.parametrize(
    "stages",
    [
        Preprocess(resize="pillow-box", geometry="squash", size=(352, 320)),
        Preprocess(resize="pillow-box", geometry="letterbox", size=(352, 320)),
        Preprocess(resize="pillow-box", geometry="short-side", size=(256, 256), crop=(224, 224)),
        Preprocess(),
    ],
    ids=lambda s: s.geometry or "as it is",
)
@given(
    size=st.tuples(st.integers(20, 900), st.integers(20, 900)),
    corners=st.lists(st.floats(0, 900), min_size=4, max_size=4),
)
def test_boxes_go_through_the_preprocessing_and_back(stages, size, corners) -> None:
    place = placement(stages, size)
    box = np.array([corners], np.float64)
    scale, offset = np.array([*place.scale[::-1]] * 2), np.array([*place.offset[::-1]] * 2)
    assert np.allclose(placed_back(box * scale + offset, place), box, atol=1e-9)


@pytest.mark.parametrize("geometry", ["squash", "letterbox"])
@pytest.mark.parametrize("size", [(300, 500), (500, 300), (97, 640)])
def test_what_a_detector_sees_is_found_in_the_file(geometry, size) -> None:
    """A detector that boxes what is white: its box lies where the white was painted."""
    stages = Preprocess(resize="pillow-box", geometry=geometry, size=(160, 224), fill=(0, 0, 0))
    height, width = size
    painted = [width // 5, height // 3, width // 2, height - 7]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[painted[1] : painted[3], painted[0] : painted[2]] = 255
    y, x = np.nonzero(stages(pixels)[0].numpy() > 0.5)
    seen = boxes((x.min(), y.min(), x.max() + 1, y.max() + 1, 0.9, 0))
    place = placement(stages, size)
    found = finished(seen, Finish(), place)[0, :4]
    # Pillow takes pixels whole, so an edge is off by a little more than half a pixel of the input.
    pixel = 1 / np.array([*place.scale[::-1]] * 2)
    assert np.all(np.abs(found - painted) <= 0.7 * pixel)


def fastestdet(cells: dict[tuple[int, int], tuple[float, ...]], classes: int = 3) -> Tensor:
    """Outputs that are empty but for (objectness, tx, ty, tw, th, *shares) in some cells."""
    outputs = torch.zeros(1, 5 + classes, 4, 6)
    for (row, column), values in cells.items():
        outputs[0, :, row, column] = torch.tensor(values)
    return outputs


def test_fastestdet_is_decoded_by_its_formula() -> None:
    outputs = fastestdet({(2, 4): (0.5, 0.3, -0.2, -1.0, 0.5, 0.1, 0.7, 0.2)})
    found = candidates("fastestdet", outputs)[0]
    assert found.shape == (24, 6)
    x, y = (4 + np.tanh(0.3)) * 16, (2 + np.tanh(-0.2)) * 16
    w, h = 96 / (1 + np.exp(1.0)), 64 / (1 + np.exp(-0.5))
    wanted = [x - w / 2, y - h / 2, x + w / 2, y + h / 2, 0.5**0.6 * 0.7**0.4, 1.0]
    assert np.allclose(found[2 * 6 + 4], wanted, atol=1e-4)
    assert class_count("fastestdet", outputs) == 3


def test_torchvision_answers_become_columns() -> None:
    outputs = [
        {
            "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
            "scores": torch.tensor([0.5]),
            "labels": torch.tensor([7]),
        },
        {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()},
    ]
    head = head_of(outputs)
    assert head == "torchvision"
    assert candidates(head, outputs)[0].tolist() == [[1.0, 2.0, 3.0, 4.0, 0.5, 7.0]]
    assert finished(candidates(head, outputs)[1], Finish(), HERE).shape == (0, 6)


@pytest.mark.parametrize(
    "changed",
    [{"scores": torch.ones(1)}, {"labels": torch.ones(3)}, {"boxes": torch.ones(2, 5)}],
)
def test_answers_of_different_lengths_are_refused(changed: dict[str, Tensor]) -> None:
    two = {"boxes": torch.ones(2, 4), "scores": torch.ones(2), "labels": torch.ones(2)}
    with pytest.raises(BadModel, match=r"\[n, 4\], \[n\] and \[n\] are needed"):
        candidates("torchvision", [two | changed])


@pytest.mark.parametrize(
    "outputs", [torch.zeros(2, 1000), torch.zeros(2, 9, 4), torch.zeros(9, 4), [], (1, 2), [{}]]
)
def test_other_outputs_are_refused(outputs) -> None:
    with pytest.raises(BadModel, match="FastestDet"):
        head_of(outputs)


def crowd(count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=random) * 60
    span = torch.rand(count, 2, generator=random) * 40 + 1
    score = torch.rand(count, 1, generator=random)
    label = torch.randint(0, 3, (count, 1), generator=random).float()
    return torch.cat([low, low + span, score, label], 1)


def greedy(rows: np.ndarray, finish: Finish) -> np.ndarray:
    """NMS as it is told: the strongest stays and removes those that overlap it too much."""
    left = sorted(rows[rows[:, 4] > finish.least].tolist(), key=lambda row: -row[4])
    left = left[:MOST] if finish.cut_first else left
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            row
            for row in left
            if (row[5] != best[5] and not finish.agnostic)
            or overlaps([row[:4]], [best[:4]])[0, 0] <= finish.nms
        ]
    return np.array(kept[:MOST]).reshape(-1, 6)


@pytest.mark.parametrize("post", [OWN, "nms-0.6", "nms-agnostic", "best-100-before-nms"])
@pytest.mark.parametrize("seed", range(3))
def test_nms_is_the_greedy_one(post: str, seed: int) -> None:
    rows, finish = crowd(250, seed), finish_of("fastestdet", post)
    assert np.allclose(finished(rows, finish, HERE), greedy(rows.double().numpy(), finish))


def test_each_finish_changes_what_it_says() -> None:
    found = boxes((10.2, 20.4, 30.6, 140.8, 0.9, 1), (10, 20, 30, 40, 0.2, 1))

    def corners(name: str) -> list[list[float]]:
        return finished(found, finish_of("xyxy-score-class", name), HERE)[:, :4].round(3).tolist()

    own = [[10.2, 20.4, 30.6, 140.8], [10, 20, 30, 40]]
    assert corners(OWN) == own
    assert corners("box-offset-1") == [[10.2, 20.4, 29.6, 139.8], [10, 20, 29, 39]]
    assert corners("whole-pixels") == [[10, 20, 31, 141], [10, 20, 30, 40]]
    assert corners("clipped") == [[10.2, 20.4, 30.6, 100], [10, 20, 30, 40]]
    assert corners("score-0.25") == own[:1]


def test_the_offset_is_taken_off_before_the_way_back() -> None:
    place = Placement((0.5, 0.25), (0, 0), (100, 100))
    moved = finished(boxes((4, 4, 8, 8, 0.9, 0)), Finish(offset=1.0), place)
    assert moved[0, :4].tolist() == [16, 8, 28, 14]


def test_thresholding_before_or_after_nms_is_the_same() -> None:
    rows = crowd(80, 0)
    late = finished(rows, Finish(nms=0.45), HERE)
    assert np.array_equal(late[late[:, 4] > 0.4], finished(rows, Finish(0.45, least=0.4), HERE))


def test_no_option_repeats_the_heads_own() -> None:
    assert list(finishes("fastestdet")) == [
        *(OWN, "box-offset-1", "whole-pixels", "clipped", "score-0.25"),
        *("nms-agnostic", "nms-0.6", "best-100-before-nms"),
    ]
    assert not [name for name in finishes("torchvision") if "nms" in name]


def test_an_unknown_finish_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"did you mean box-offset-1\?"):
        finish_of("torchvision", "box-offset")


def test_a_crowd_overlaps_by_what_lies_inside_it() -> None:
    box, region = [[0, 0, 10, 10]], [[0, 0, 100, 5]]
    assert overlaps(box, region, np.array([True])).tolist() == [[0.5]]
    assert overlaps(box, region)[0, 0] == pytest.approx(50 / 550)
    assert overlaps([[1, 1, 1, 5]], [[1, 1, 1, 5]]).tolist() == [[0]]
