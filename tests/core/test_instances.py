"""Average precision of masks against faster-coco-eval, and masks put back into the image file."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as packed
from images_on_disk import save
from torch import Tensor

from roadworthy.core.data import load_data
from roadworthy.core.images import Placement, Preprocess, placement
from roadworthy.core.instances import Instances, instances_of, overlap
from roadworthy.core.mask_data import instances
from roadworthy.errors import BadData, BadInput, BadModel

WHOLE = Placement(scale=(1.0, 1.0), offset=(0, 0), size=(60, 80))


def blob(centre: np.ndarray, radii: np.ndarray, size: tuple[int, int]) -> dict:
    y, x = np.mgrid[: size[0], : size[1]]
    inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
    return packed.encode(np.asfortranarray(inside.astype(np.uint8)))


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truths of one image, some of them crowds, and answers that find them more or less well."""
    random = np.random.default_rng(seed)
    count, size = random.integers(0, 7), (120, 160)
    centres, radii = random.uniform(10, 110, (count, 2)), random.uniform(5, 40, (count, 2))
    labels, crowds = random.integers(0, 3, count), random.random(count) < 0.2
    rows = np.zeros((count, 6))
    rows[:, 4], rows[:, 5] = crowds, labels
    truth = instances(rows, [blob(*each, size) for each in zip(centres, radii, strict=True)])
    near = np.concatenate([np.arange(count)] * 2)
    moved = zip(
        centres[near] + random.normal(0, 4, (len(near), 2)),
        radii[near] * random.uniform(0.7, 1.3, (len(near), 2)),
        strict=True,
    )
    found = np.zeros((len(near), 6))
    found[:, 4] = random.uniform(0.02, 1, len(near))
    found[:, 5] = labels[near] + (random.random(len(near)) < 0.15)
    return instances(found, [blob(*each, size) for each in moved]), truth


def reference(answers: list[np.ndarray], truths: list[np.ndarray]) -> tuple[float, float]:
    """Mask AP of .5 to .95 and at .5 by faster-coco-eval."""

    def entry(image: int, each: np.ndarray) -> dict:
        mask = {"size": each["mask"]["size"], "counts": each["mask"]["counts"].decode()}
        label = int(each["row"][5])
        return {"image_id": image, "category_id": label, "segmentation": mask}

    annotations = [
        entry(i, each)
        | {"iscrowd": int(each["row"][4]), "area": float(packed.area(each["mask"]))}
        | {"bbox": packed.toBbox([each["mask"]])[0].tolist()}
        for i, truth in enumerate(truths)
        for each in truth
    ]
    found = [
        entry(i, each) | {"score": float(each["row"][4])}
        for i, answer in enumerate(answers)
        for each in answer
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(
            {
                "images": [
                    {"id": i, "height": 1, "width": 1}
                    | (
                        dict(zip(("height", "width"), t["mask"][0]["size"], strict=True))
                        if len(t)
                        else {}
                    )
                    for i, t in enumerate(truths)
                ],
                "annotations": [{"id": i, **each} for i, each in enumerate(annotations, 1)],
                "categories": [{"id": i, "name": str(i)} for i in range(91)],
            }
        )
        judge = COCOeval_faster(coco, coco.loadRes(found), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


def measured(answers: list, truths: list, counts: np.ndarray | None = None) -> list[np.ndarray]:
    counts = np.ones((1, len(answers)), np.int64) if counts is None else counts
    both = Instances(metric="mask_map"), Instances()
    return [task.values(task.evidence(answers, truths), counts) for task in both]


@pytest.mark.parametrize("seed", [0, 1000])
def test_both_metrics_are_cocos(seed: int) -> None:
    answers, truths = map(list, zip(*(scene(seed + i) for i in range(30)), strict=True))
    wanted = reference(answers, truths)
    assert 0.1 < wanted[0] < wanted[1] < 0.99
    assert [float(value[0]) for value in measured(answers, truths)] == pytest.approx(
        wanted, abs=1e-9
    )


def test_counting_images_is_repeating_them() -> None:
    answers, truths = map(list, zip(*(scene(i) for i in range(10)), strict=True))
    counts = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=3)
    values = measured(answers, truths, counts)[1]
    for row, value in zip(counts, values, strict=True):
        drawn = np.repeat(np.arange(10), row)
        wanted = reference([answers[i] for i in drawn], [truths[i] for i in drawn])
        assert value == pytest.approx(wanted[1], abs=1e-9)


def output(mask: Tensor, box: list[float], score: float = 0.9, label: int = 1) -> dict[str, Tensor]:
    rest = {"scores": torch.tensor([score]), "labels": torch.tensor([label])}
    return {"boxes": torch.tensor([box]), "masks": mask[None, None], **rest}


@pytest.mark.parametrize("size", [(60, 80), (200, 90), (33, 47)])
@pytest.mark.parametrize("post", ["as-trained", "mask-before-resize"])
@pytest.mark.parametrize(
    "stages",
    [
        Preprocess(resize="pillow-box", geometry="squash", size=(64, 64)),
        Preprocess(resize="pillow-box", geometry="letterbox", size=(64, 64)),
        Preprocess(resize="pillow-box", geometry="short-side", size=(72, 72), crop=(64, 64)),
    ],
)
def test_masks_come_back_to_where_they_were(
    stages: Preprocess, size: tuple[int, int], post: str
) -> None:
    """A disc in the file, seen through the preprocessing, is answered as the same disc."""
    height, width = size
    centre, radius = np.array([0.45 * height, 0.55 * width]), 0.2 * min(size)
    y, x = np.mgrid[:height, :width] + 0.5
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    shown = stages((disc * 255).astype(np.uint8)[..., None].repeat(3, 2))
    seen = shown[0]
    where = torch.nonzero(seen > 0.5)
    low, high = where.amin(0), where.amax(0) + 1
    box = [float(each) for each in (low[1], low[0], high[1], high[0])]
    place = placement(stages, size)
    [answer] = Instances().answers([output(seen, box)], [place], post)
    mask = packed.decode(answer["mask"][0]).astype(bool)
    assert mask.shape == size
    both = (mask & disc).sum() / (mask | disc).sum()
    assert both > (0.9 if post == "as-trained" else 0.8)


def half(level: float = 1.0) -> dict[str, Tensor]:
    mask = torch.zeros(60, 80)
    mask[20:40, 10:50] = level
    return output(mask, [10, 20, 50, 40])


def decoded(post: str, found: dict[str, Tensor], place: Placement = WHOLE) -> np.ndarray:
    [answer] = Instances().answers([found], [place], post)
    return packed.decode(answer["mask"][0])


def test_a_mask_of_its_own_size_stays_as_it_is() -> None:
    mask = decoded("as-trained", half())
    assert np.array_equal(mask, half()["masks"][0, 0].numpy())
    assert np.array_equal(mask, decoded("clipped", half()))


def test_ends_change_boxes_and_masks() -> None:
    shorter = decoded("box-offset-1", half())
    assert shorter.sum() == pytest.approx(19 * 39, abs=30)
    assert not shorter[39].any()
    assert not shorter[:, 49].any()
    assert decoded("as-trained", half(0.4)).sum() == 0
    assert decoded("mask-0.3", half(0.4)).sum() == 800
    slope = torch.zeros(60, 80)
    slope[20:40, 10:50] = torch.linspace(0, 1, 40)
    twice = Placement(scale=(0.5, 0.5), offset=(0, 0), size=(120, 160))
    smooth, coarse = (
        decoded(post, output(slope, [10, 20, 50, 40]), twice)
        for post in ("as-trained", "mask-before-resize")
    )
    assert 0 < np.abs(smooth.astype(int) - coarse).sum() <= 120
    assert np.array_equal(coarse[::2, ::2], coarse[1::2, 1::2])
    with pytest.raises(BadInput, match=r"did you mean mask-0\.3\?.*instance segmentation has"):
        Instances().answers([half()], [WHOLE], "mask-0.33")


def test_boxes_without_an_area_have_empty_masks() -> None:
    found = half()
    found["boxes"][0, 2] = found["boxes"][0, 0]
    [answer] = Instances().answers([found], [WHOLE], "as-trained")
    assert packed.area(answer["mask"][0]) == 0
    assert overlap(answer, answer).tolist() == [[0]]
    nothing = {key: value[:0] for key, value in half().items()}
    [answer] = Instances().answers([nothing], [WHOLE], "as-trained")
    assert len(answer) == 0
    assert overlap(answer, answer).shape == (0, 0)


def test_flips_are_the_strong_objects_that_are_not_shared() -> None:
    task = Instances()
    a = instances(
        np.array([[0, 0, 0, 0, 0.9, 1.0]]), [blob(np.full(2, 30), np.full(2, 9), (60, 80))]
    )
    b = instances(
        np.array([[0, 0, 0, 0, 0.8, 1.0]]), [blob(np.full(2, 50), np.full(2, 9), (60, 80))]
    )
    weak = b.copy()
    weak["row"][:, 4] = 0.2
    both, one, none = np.concatenate([a, b]), np.concatenate([a, weak]), weak
    flips = task.flips([both, one, none, none], [both, both, both, none])
    assert flips.round(3).tolist() == [0, 0.333, 1, 0]
    assert task.brief(both) == 2
    assert task.brief(one) == 1
    assert len(task.truth(one)) == 1
    assert task.truth(one)["row"][0, 4] == 0
    assert one["row"][0, 4] == 0.9


def test_models_without_masks_and_data_without_objects_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("")
    dataset = load_data(f"instances:{tmp_path}")
    with pytest.raises(BadData, match="no boxes on 1 images"):
        instances_of(dataset, [half()], (60, 80))
    boxes = {key: value for key, value in half().items() if key != "masks"}
    with pytest.raises(BadModel, match=r"answers boxes \[1, 4\], scores \[1\], labels \[1\] where"):
        instances_of(dataset, [boxes], (60, 80))
    with pytest.raises(BadModel, match=r"answers \[1, 5\] where instances are needed"):
        instances_of(dataset, torch.zeros(1, 5), (60, 80))
    with pytest.raises(BadModel, match=r"masks \[1, 60, 80\]"):
        instances_of(dataset, [half() | {"masks": torch.zeros(1, 60, 80)}], (60, 80))


def perturbed(truth: np.ndarray, random: np.random.Generator, size: int) -> np.ndarray:
    """Masks moved, cut and doubled, with scores and now and then another class."""
    rows, masks = [], []
    for each in np.concatenate([truth, truth[::2]]):
        mask = packed.decode(each["mask"])
        mask = np.roll(mask, random.integers(-size, size + 1, 2), (0, 1))
        mask[:, : int(random.integers(0, mask.shape[1] // 3))] = 0
        label = each["row"][5] if random.random() < 0.9 else 1.0
        rows.append([*each["row"][:4], random.uniform(0.05, 1), label])
        masks.append(packed.encode(np.asfortranarray(mask)))
    return instances(np.array(rows).reshape(-1, 6), masks)


@pytest.mark.data
def test_mask_precision_of_coco_val128_is_cocos(data: Path) -> None:
    dataset = load_data(f"instances:{data / 'coco_val128'}?ids=file").labelled()
    random = np.random.default_rng(0)
    truths = [dataset.truth(i) for i in range(len(dataset))]
    answers = [perturbed(truth, random, 6) for truth in truths]
    wanted = reference(answers, truths)
    assert 0.1 < wanted[0] < wanted[1] < 0.95
    assert [float(value[0]) for value in measured(answers, truths)] == pytest.approx(
        wanted, abs=1e-6
    )


def test_masks_of_another_size_than_the_input_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    dataset = load_data(f"instances:{tmp_path}")
    assert instances_of(dataset, [half()], (60, 80)).metric == "mask_map50"
    with pytest.raises(BadModel, match="here of 120x160 pixels as the input"):
        instances_of(dataset, [half()], (120, 160))
    nothing = {key: value[:0] for key, value in half().items()}
    assert instances_of(dataset, [nothing], (120, 160)).metric == "mask_map50"
