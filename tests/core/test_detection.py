"""Average precision against faster-coco-eval, and what resampling makes of it."""

import contextlib
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from images_on_disk import save

from roadworthy.core.boxes import MOST, overlaps
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.detection import Detection, detection_of
from roadworthy.core.images import Preprocess, placement
from roadworthy.core.precision import matches
from roadworthy.errors import BadData


def scene(seed: int, crowds: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Truths of one image, and answers that find some of them more or less well."""
    random = np.random.default_rng(seed)
    count = random.integers(0, 8)
    low, span = random.uniform(0, 300, (count, 2)), random.uniform(5, 90, (count, 2))
    label = random.integers(0, 4, count)
    is_crowd = random.random(count) < 0.3 if crowds else np.zeros(count)
    truth = np.column_stack([low, low + span, is_crowd, label]).reshape(-1, 6)
    near = np.concatenate([truth, truth, truth[::2]])
    corners = near[:, :4] + random.normal(0, 5, (len(near), 4))
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    wrong = random.random(len(near)) < 0.15
    answer = np.column_stack(
        [corners, random.uniform(0.02, 1, len(near)), near[:, 5] + wrong]
    ).reshape(-1, 6)
    return answer[np.argsort(-answer[:, 4])], truth


def reference(answers: list[np.ndarray], truths: list[np.ndarray]) -> tuple[float, float]:
    """AP of .5 to .95 and AP50 by faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    def wide(row: np.ndarray) -> list[float]:
        return [row[0], row[1], row[2] - row[0], row[3] - row[1]]

    annotations = [
        {
            "image_id": i,
            "category_id": int(row[5]),
            "bbox": wide(row),
            "area": float((row[2] - row[0]) * (row[3] - row[1])),
            "iscrowd": int(row[4]),
        }
        for i, truth in enumerate(truths)
        for row in truth
    ]
    found = [
        {"image_id": i, "category_id": int(r[5]), "bbox": wide(r), "score": float(r[4])}
        for i, answer in enumerate(answers)
        for r in answer
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(
            {
                "images": [{"id": i} for i in range(len(truths))],
                "annotations": [{"id": i, **each} for i, each in enumerate(annotations, 1)],
                "categories": [{"id": i, "name": str(i)} for i in range(91)],
            }
        )
        judge = COCOeval_faster(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


def measured(answers: list[np.ndarray], truths: list[np.ndarray], metric="map50", counts=None):
    task = Detection("xyxy-score-class", metric=metric)
    counts = np.ones((1, len(truths)), np.int64) if counts is None else counts
    return task.values(task.evidence(answers, truths), counts)


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", [0, 1000, 2000])
def test_both_metrics_are_cocos(seed: int, crowds: bool) -> None:
    answers, truths = map(list, zip(*(scene(seed + i, crowds) for i in range(30)), strict=True))
    mean, at_half = reference(answers, truths)
    assert 0.1 < at_half < 0.99
    assert measured(answers, truths)[0] == pytest.approx(at_half, abs=1e-9)
    assert measured(answers, truths, "map")[0] == pytest.approx(mean, abs=1e-9)


def test_counting_images_is_repeating_them() -> None:
    answers, truths = map(list, zip(*(scene(i) for i in range(12)), strict=True))
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=6)
    values = measured(answers, truths, counts=counts)
    for row, value in zip(counts, values, strict=True):
        drawn = np.repeat(np.arange(12), row)
        repeated = reference([answers[i] for i in drawn], [truths[i] for i in drawn])
        assert value == pytest.approx(repeated[1], abs=1e-9)


def test_classes_without_truths_in_a_resample_are_left_out() -> None:
    box = [0, 0, 9, 9]
    answers = [np.array([[*box, 0.9, 1.0]]), np.zeros((0, 6))]
    truths = [np.array([[*box, 0, 1.0]]), np.array([[*box, 0, 2.0]])]
    counts = np.array([[1, 1], [2, 0], [0, 2]])
    assert measured(answers, truths, counts=counts) == pytest.approx([0.5, 1.0, 0.0])
    assert measured([np.zeros((0, 6))], [np.zeros((0, 6))]).tolist() == [0.0]


def test_a_thousand_resamples_of_a_hundred_images_take_seconds() -> None:
    random = np.random.default_rng(0)
    evidence = np.full((128, 3 * MOST), -1.0)
    evidence[:, :MOST] = random.random((128, MOST))
    found = random.random((128, MOST)) < 0.05
    evidence[:, MOST : 2 * MOST] = random.integers(0, 80, (128, MOST)) * 4**10 + found
    evidence[:, 2 * MOST : 2 * MOST + 7] = random.integers(0, 80, (128, 7))
    counts = random.multinomial(128, np.full(128, 1 / 128), size=1000)
    start = time.process_time()
    Detection("fastestdet").values(evidence, counts)
    assert time.process_time() - start < 5


def test_every_truth_is_found_once_and_by_the_strongest() -> None:
    def found(boxes: list, truth: np.ndarray) -> list[int]:
        rows = np.array(boxes, float)
        return matches(rows, truth, overlaps(rows[:, :4], truth[:, :4])).tolist()

    truth = np.array([[0, 0, 10, 10, 0, 1.0], [0, 0, 10, 8, 0, 1.0]])
    exact, flat = [0, 0, 10, 10, 0.9, 1], [0, 0, 10, 8, 0.8, 1]
    assert found([exact, flat], truth) == [1023, 1023]
    # The third finds nothing left; another class finds nothing at all.
    assert found([exact, flat, flat], truth) == [1023, 1023, 0]
    assert found([[0, 0, 10, 10, 0.9, 2]], truth) == [0]
    assert found([exact], np.zeros((0, 6))) == [0]


def test_flips_are_the_strong_boxes_that_are_not_shared() -> None:
    task = Detection("torchvision")
    a, b, weak = [0, 0, 9, 9, 0.9, 1], [50, 50, 60, 60, 0.8, 1], [80, 80, 90, 90, 0.2, 1]
    both, one, none = (np.array(r, float).reshape(-1, 6) for r in ([a, b], [a, weak], [weak]))
    other = one.copy()
    other[:, 5] = 2
    flips = task.flips([both, one, none, none, other], [both, both, both, none, one])
    assert flips.round(3).tolist() == [0, 0.333, 1, 0, 1]
    assert task.flips([both], [one]).tolist() == task.flips([one], [both]).tolist()
    assert task.brief(one) == 1
    assert task.truth(one).tolist() == [[0, 0, 9, 9, 0, 1]]


def test_evidence_of_parts_can_be_joined() -> None:
    answers, truths = map(list, zip(*(scene(i) for i in range(9)), strict=True))
    task = Detection("fastestdet", most_truths=150)
    parts = [task.evidence(answers[i : i + 4], truths[i : i + 4]) for i in (0, 4, 8)]
    assert np.array_equal(np.concatenate(parts), task.evidence(answers, truths))
    assert task.evidence([], []).shape == (0, 350)


def yolo(root: Path, *labels: str) -> Dataset:
    for i, text in enumerate(labels):
        save(root / "images" / f"{i}.png")
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{i}.txt").write_text(text)
    return load_data(f"yolo:{root}")


def test_labels_beyond_the_models_classes_are_named(tmp_path: Path) -> None:
    dataset = yolo(tmp_path, "1 .5 .5 .2 .2", "7 .5 .5 .2 .2")
    assert detection_of(dataset, "fastestdet", 8).metric == "map50"
    with pytest.raises(BadData, match=r"1\.png has a box of class 7 and the model 7 classes; 0 to"):
        detection_of(dataset, "fastestdet", 7)
    detection_of(dataset, "torchvision", None)


def test_a_set_without_a_single_box_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no boxes on 2 images"):
        detection_of(yolo(tmp_path, "", ""), "fastestdet", 80)


def test_ranks_are_the_models_classes_only_if_all_are_there(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    held = {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 5, "name": "cell"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(held))
    with pytest.raises(BadData, match=r"1 categories and the model 80 classes.*\?ids=file"):
        detection_of(load_data(f"coco:{tmp_path}@a.json"), "fastestdet", 80)
    detection_of(load_data(f"coco:{tmp_path}@a.json?ids=file"), "fastestdet", 80)


@pytest.mark.data
def test_fastestdet_reaches_its_figure_as_coco_counts_it(data: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = str(data / "fastestdet" / "fastestdet.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    stages = Preprocess(resize="opencv-linear", geometry="squash", size=(352, 352), colour="bgr")
    dataset = load_data(f"yolo:{data / 'coco_val128'}")
    task = detection_of(dataset, "fastestdet", 80)
    answers: list[np.ndarray] = []
    for i in range(len(dataset)):
        image = dataset.load(i)
        fed = {session.get_inputs()[0].name: stages(image)[None].numpy()}
        place = placement(stages, image.size[::-1])
        outputs = torch.from_numpy(session.run(None, fed)[0])
        answers += task.answers(outputs, [place], "as-trained")
    truths = [dataset.truth(i) for i in range(len(dataset))]
    mean, at_half = reference(answers, truths)
    assert at_half == pytest.approx(0.3567, abs=0.002)
    evidence, once = task.evidence(answers, truths), np.ones((1, len(dataset)), np.int64)
    assert task.values(evidence, once)[0] == pytest.approx(at_half, abs=1e-6)
    both = Detection("fastestdet", metric="map").values(evidence, once)
    assert both[0] == pytest.approx(mean, abs=1e-6)
