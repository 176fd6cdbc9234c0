"""Answers for every pixel: where they are placed, and what they are worth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images_on_disk import picture, save
from PIL import Image
from torch.nn.functional import interpolate
from torchmetrics.classification import MulticlassJaccardIndex

from roadworthy.core import dense
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.dense import Depth, Segmentation, depth_of, enlarged, segmentation_of
from roadworthy.core.images import Preprocess, placement
from roadworthy.errors import BadData, BadModel

SQUASH = Preprocess(resize="pillow-box", geometry="squash", size=(24, 32))


def whole(parts) -> torch.Tensor:
    return torch.cat(list(parts), 1)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_squashed_image_is_enlarged_as_torch_does(aligned: bool) -> None:
    maps = torch.randn(5, 12, 16, generator=torch.Generator().manual_seed(0))
    place = placement(SQUASH, (61, 47))
    expected = interpolate(maps[None], (61, 47), mode="bilinear", align_corners=aligned)[0]
    assert torch.allclose(whole(enlarged(maps, place, (24, 32), aligned)), expected, atol=1e-4)


def test_parts_of_few_rows_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, place = torch.randn(5, 12, 16), placement(SQUASH, (61, 47))
    expected = whole(enlarged(maps, place, (24, 32)))
    monkeypatch.setattr(dense, "_CELLS", 5 * 47 * 7)
    parts = list(enlarged(maps, place, (24, 32)))
    assert [part.shape[1] for part in parts] == [7] * 8 + [5]
    assert torch.equal(torch.cat(parts, 1), expected)


def test_the_three_ways_to_enlarge() -> None:
    logits = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    task, places = Segmentation(4, (24, 32)), [placement(SQUASH, (50, 70))]
    said = {post: task.answers(logits, places, post)[0] for post in ("as-trained", *task.posts)}
    smooth = interpolate(logits, (50, 70), mode="bilinear").argmax(1)[0]
    corners = interpolate(logits, (50, 70), mode="bilinear", align_corners=True).argmax(1)[0]
    blocks = interpolate(logits.argmax(1)[None].float(), (50, 70), mode="nearest-exact")[0, 0]
    assert (said["as-trained"] == smooth.numpy()).mean() > 0.999
    assert (said["align-corners"] == corners.numpy()).mean() > 0.999
    assert np.array_equal(said["argmax-first"], blocks.numpy().astype(np.uint8))
    assert said["as-trained"].dtype == np.uint8


def test_letterboxed_answers_return_to_their_pixels() -> None:
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (6, 8)), np.ones((8, 8), int))
    stages = Preprocess(resize="pillow-box", geometry="letterbox", size=(32, 32), fill=(9, 9, 9))
    shown = stages.fitted(np.repeat(labels[..., None].astype(np.uint8), 3, 2))[..., 0]
    logits = torch.stack([torch.from_numpy(shown == c).float() for c in range(3)])[None]
    place = placement(stages, (48, 64))
    for post in ("as-trained", "argmax-first"):
        said = Segmentation(3, (32, 32)).answers(logits, [place], post)[0]
        assert np.array_equal(said, labels), post


def test_pixels_that_were_cropped_away_are_missed() -> None:
    stages = Preprocess(resize="pillow-box", geometry="short-side", size=(20, 20), crop=(20, 20))
    task, place = Segmentation(2, (20, 20)), placement(stages, (40, 60))
    said = task.answers(torch.stack([torch.ones(20, 20), torch.zeros(20, 20)])[None], [place], "")
    assert np.array_equal(said[0] == 0, np.pad(np.ones((40, 40), bool), ((0, 0), (10, 10))))
    assert (said[0][:, :10] == 255).all()
    evidence = task.evidence(said, [np.zeros((40, 60), np.uint8)])
    assert evidence[0].tolist() == [[1600, 1600, 2400], [0, 0, 0]]
    assert task.values(evidence, np.array([[1]])).tolist() == [1600 / 2400]
    assert task.evidence(said, said)[0, 0].tolist() == [1600, 1600, 1600]
    seen = Depth((20, 20)).answers(torch.ones(1, 1, 20, 20), [place], "")[0]
    assert np.isnan(seen[:, :10]).all()
    assert (seen[:, 10:-10] == 1).all()


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["squash", "letterbox"]),
    st.sampled_from(["as-trained", "argmax-first", "align-corners"]),
)
def test_whole_images_are_answered_whole(h: int, w: int, geometry, post: str) -> None:
    stages = Preprocess(resize="pillow-box", geometry=geometry, size=(24, 32))
    said = Segmentation(3, (24, 32)).answers(
        torch.randn(1, 3, 5, 9), [placement(stages, (h, w))], post
    )
    assert said[0].shape == (h, w)
    assert said[0].max() < 3


def scene(seed: int, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (15, 20)).astype(np.uint8)
    answer = np.where(random.random((15, 20)) < 0.4, random.integers(0, classes, (15, 20)), truth)
    truth[random.random((15, 20)) < 0.1] = 255
    return answer.astype(np.uint8), truth


def reference(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> float:
    metric = MulticlassJaccardIndex(classes, average="macro", ignore_index=255)
    for answer, truth in pairs:
        metric.update(torch.from_numpy(answer)[None].long(), torch.from_numpy(truth)[None].long())
    return float(metric.compute())


def test_mean_iou_is_that_of_torchmetrics() -> None:
    pairs = [scene(seed) for seed in range(5)]
    task = Segmentation(6, (15, 20))
    evidence = task.evidence(*zip(*pairs, strict=True))
    counts = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2], [0, 0, 5, 0, 0]])
    expected = [
        reference([pair for pair, n in zip(pairs, row, strict=True) for _ in range(n)], 6)
        for row in counts
    ]
    assert np.allclose(task.values(evidence, counts), expected, atol=1e-6)


def test_classes_that_nobody_shows_or_answers_do_not_count() -> None:
    answer, truth = np.uint8([[0, 0, 2, 2]]), np.uint8([[0, 0, 0, 0]])
    task = Segmentation(9, (1, 4))
    assert task.values(task.evidence([answer], [truth]), np.array([[1]])).tolist() == [0.25]
    assert task.values(task.evidence([truth], [truth]), np.array([[1]])).tolist() == [1.0]
    assert task.evidence([], []).shape == (0, 9, 3)


def test_flips_and_briefs_of_maps() -> None:
    a, b = np.uint8([[1, 1, 3, 255]]), np.uint8([[1, 2, 3, 255]])
    task = Segmentation(4, (1, 4))
    assert task.flips([a, a], [b, a]).tolist() == [0.25, 0.0]
    assert task.brief(a) == 1
    assert task.truth(a) is a


def test_rmse_by_hand() -> None:
    truth = np.array([[1.0, 2.0, np.nan, 4.0]])
    answers = [np.array([[1.0, 2.5, 9.0, 3.0]]), np.array([[1.0, 2.0, 9.0, np.nan]])]
    task = Depth((1, 4))
    evidence = task.evidence(answers, [truth, truth])
    assert evidence.tolist() == [[1.25, 3], [0.0, 2]]
    found = task.values(evidence, np.array([[1, 1], [2, 0], [0, 1]]))
    assert np.allclose(found, [(1.25 / 5) ** 0.5, (1.25 / 3) ** 0.5, 0])
    assert task.points == -100


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("post", ["as-trained", "nearest"])
def test_what_is_no_number_counts_as_no_distance(lost: float, post: str) -> None:
    task, places = Depth((24, 32)), [placement(SQUASH, (2, 2))]
    answers = task.answers(torch.full((1, 6, 8), lost), places, post)
    evidence = task.evidence(answers, [np.array([[3.0, 3.0], [3.0, np.nan]])])
    assert task.values(evidence, np.array([[1]])).tolist() == [3.0]


def test_depths_flip_from_a_quarter_on() -> None:
    base = np.array([[1.0, 1.0, 2.0, np.nan, 1.0, 2.0]])
    answer = np.array([[1.2, 1.3, 1.7, np.nan, np.nan, 1.5]])
    task = Depth((1, 6))
    assert np.allclose(task.flips([answer, base], [base, base]), [0.5, 0])
    assert task.brief(answer) == pytest.approx(1.4)
    assert task.brief(np.full((2, 2), np.nan)) == 0


def test_depths_are_enlarged_in_three_ways() -> None:
    maps = torch.rand(2, 6, 8)
    places = [placement(SQUASH, (50, 70))] * 2
    task = Depth((24, 32))
    smooth = interpolate(maps[:, None], (50, 70), mode="bilinear")[:, 0].numpy()
    blocks = interpolate(maps[:, None], (50, 70), mode="nearest-exact")[:, 0].numpy()
    assert np.allclose(task.answers(maps, places, "as-trained"), smooth, atol=1e-4)
    assert np.array_equal(task.answers(maps[:, None], places, "nearest"), blocks)
    assert not np.allclose(task.answers(maps, places, "align-corners"), smooth, atol=1e-2)


def masked(root: Path, *ids: int) -> Dataset:
    for i, own in enumerate(ids):
        save(root / "images" / f"{i}.jpg", picture(i))
        save(root / "masks" / f"{i}.png", Image.fromarray(np.full((24, 32), own, np.uint8)))
    return load_data(f"masks:{root}")


def test_the_task_fits_model_and_masks(tmp_path: Path) -> None:
    dataset = masked(tmp_path, 0, 3, 255)
    task = segmentation_of(dataset, {"out": torch.zeros(1, 4, 6, 8)}, (24, 32))
    assert task.evidence([dataset.truth(1)], [dataset.truth(1)]).shape == (1, 4, 3)
    with pytest.raises(BadData, match=r"mask of .*1\.jpg has class id 3 and the model 3 classes"):
        segmentation_of(dataset, torch.zeros(1, 3, 6, 8), (24, 32))


def test_a_bad_mask_is_found_before_the_sweep(tmp_path: Path) -> None:
    dataset = masked(tmp_path, 0, 1, 1)
    (tmp_path / "masks" / "2.png").write_bytes(b"rubbish")
    with pytest.raises(BadData, match=r"2\.png is corrupt"):
        segmentation_of(dataset, torch.zeros(1, 3, 6, 8), (24, 32))
    assert segmentation_of(dataset.head(2), torch.zeros(1, 3, 6, 8), (24, 32)).metric == "miou"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (torch.zeros(1, 10), r"answers \[1, 10\] where masks need \[batch, classes, height, width"),
        (torch.zeros(1, 1, 6, 8), "2 to 255 classes"),
        (torch.zeros(1, 256, 2, 2), "2 to 255 classes"),
        ([{"boxes": torch.zeros(0, 4)}], "answers a list; one tensor is needed"),
        ({"aux": torch.zeros(1, 4, 6, 8)}, "answers a dict of aux; .* under out, logits"),
    ],
)
def test_other_outputs_are_no_masks(tmp_path: Path, outputs, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        segmentation_of(masked(tmp_path, 0, 1), outputs, (24, 32))


@pytest.mark.parametrize("shape", [(1, 10), (1, 2, 6, 8), (1,)])
def test_other_outputs_are_no_depths(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "images" / "a.jpg", picture())
    with pytest.raises(BadModel, match=r"where depth maps need \[batch, 1, height, width\]"):
        depth_of(load_data(f"depth:{tmp_path}"), torch.zeros(shape), (24, 32))


def test_a_bad_depth_map_is_found_before_the_sweep(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.jpg", picture())
    save(tmp_path / "depth" / "a.png", picture())
    with pytest.raises(BadData, match=r"depth map .*a\.png holds colours"):
        depth_of(load_data(f"depth:{tmp_path}"), torch.zeros(1, 1, 6, 8), (24, 32))


def test_maps_without_a_pixel_to_judge_by_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has 2 maps and no pixel to judge by"):
        segmentation_of(masked(tmp_path, 255, 255), torch.zeros(1, 3, 6, 8), (24, 32))
    save(tmp_path / "depth" / "0.png", Image.fromarray(np.zeros((24, 32), np.uint16)))
    with pytest.raises(BadData, match="has 1 maps and no pixel to judge by"):
        depth_of(load_data(f"depth:{tmp_path}"), torch.zeros(1, 1, 6, 8), (24, 32))


def test_the_map_of_an_image_that_cannot_be_read_is_left_to_the_sweep(tmp_path: Path) -> None:
    dataset = masked(tmp_path, 0, 1)
    (tmp_path / "images" / "1.jpg").write_bytes(b"")
    assert segmentation_of(dataset, torch.zeros(1, 3, 6, 8), (24, 32)).metric == "miou"
