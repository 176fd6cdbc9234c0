from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tree import jpeg
from torch import Tensor, nn

from roadworthy.core.batches import batches
from roadworthy.core.data import load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.predict import TorchPredictor, predict
from roadworthy.core.tasks import Classification
from roadworthy.errors import BadData, BadModel
from roadworthy.noise import sweep as module
from roadworthy.noise.sweep import Bench, sweep
from roadworthy.noise.systems import System

SMALL = Preprocess(resize="pillow-bilinear", geometry="squash", size=(16, 16))
BASE = System(SMALL)
OTHERS = [
    System(replace(SMALL, resize="opencv-nearest")),
    System(replace(SMALL, colour="bgr")),
    System(SMALL, post="half-softmax"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(10):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(jpeg(seed=i))
    return tmp_path / "photos"


def predictor() -> TorchPredictor:
    torch.manual_seed(0)
    return TorchPredictor(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 5)).eval())


def bench(photos: Path, **changes) -> Bench:
    one = predictor()
    return Bench(load_data(f"imagefolder:{photos}"), Classification(), lambda _: one, **changes)


def test_a_sweep_finds_what_each_system_answers_alone(photos: Path) -> None:
    found = sweep(bench(photos, batch_size=3), BASE, OTHERS, "sweep")
    dataset = load_data(f"imagefolder:{photos}")
    for system in (BASE, *OTHERS[:2]):
        alone = predict(predictor(), batches(dataset, system.preprocess, 10).images()).argmax(1)
        assert found.brief[system].tolist() == alone.tolist()
        labels = torch.tensor([dataset.label(i) for i in range(10)])
        assert found.evidence[system].tolist() == (alone == labels).float().tolist()
    wanted = (found.brief[OTHERS[0]] != found.brief[BASE]).astype(float)
    assert found.flips[OTHERS[0]].tolist() == wanted.tolist()
    assert found.flips[BASE].sum() == 0


def test_unlabelled_images_are_judged_by_the_training_system(photos: Path) -> None:
    for file in photos.rglob("*.jpg"):
        file.rename(photos / file.name)
    for folder in ("a", "b"):
        (photos / folder).rmdir()
    found = sweep(bench(photos), BASE, OTHERS, "sweep")
    assert found.evidence[BASE].tolist() == [1.0] * 10
    assert found.evidence[OTHERS[0]].tolist() == (1 - found.flips[OTHERS[0]]).tolist()


def test_an_image_that_one_option_cannot_read_is_kept_out_of_all(photos: Path) -> None:
    (photos / "a" / "2.jpg").write_bytes(b"no image")
    with pytest.raises(BadData, match=r"2\.jpg.*--skip-bad"):
        sweep(bench(photos), BASE, OTHERS, "sweep")
    found = sweep(bench(photos, skip_bad=True), BASE, OTHERS, "sweep")
    assert len(found.bad) == 1
    assert all(len(found.evidence[system]) == 9 for system in (BASE, *OTHERS))


def test_finished_shards_are_not_run_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    calls: list[int] = []
    one = predictor()

    class Dying:
        name = "dying"

        def __call__(self, images: Tensor) -> Tensor:
            calls.append(len(images))
            if len(calls) == 7:
                raise KeyboardInterrupt
            return one(images)

    half = replace(bench(photos, kept=tmp_path / "kept"), predictor=lambda _: Dying())
    with pytest.raises(KeyboardInterrupt):
        sweep(half, BASE, OTHERS, "sweep")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    found = sweep(half, BASE, OTHERS, "sweep")
    assert len(calls) == 7 + 3  # one shard of three different inputs was left
    for kept in (tmp_path / "kept").iterdir():
        kept.write_bytes(kept.read_bytes()[:200])
    found = sweep(bench(photos, kept=tmp_path / "kept"), BASE, OTHERS, "sweep")
    whole = sweep(bench(photos), BASE, OTHERS, "sweep")
    for system in (BASE, *OTHERS):
        assert np.array_equal(found.evidence[system], whole.evidence[system])


def test_answers_that_are_not_finite_are_refused(photos: Path) -> None:
    class Broken:
        name = "broken"

        def __call__(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 5), float("nan"))

    broken = replace(bench(photos), predictor=lambda _: Broken())
    with pytest.raises(BadModel, match="broken answers NaN"):
        sweep(broken, BASE, OTHERS, "sweep")


def test_answers_for_another_number_of_images_are_refused(photos: Path) -> None:
    class First:
        name = "first"

        def __call__(self, images: Tensor) -> Tensor:
            return torch.zeros(1, 5)

    broken = replace(bench(photos), predictor=lambda _: First())
    with pytest.raises(BadModel, match="first answers for 1 of a batch of 10"):
        sweep(broken, BASE, OTHERS, "sweep")


def test_what_was_kept_without_bad_images_is_run_again_where_they_stop(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "a" / "2.jpg").write_bytes(b"no image")
    sweep(bench(photos, skip_bad=True, kept=tmp_path / "kept"), BASE, OTHERS, "sweep")
    with pytest.raises(BadData, match=r"2\.jpg.*--skip-bad"):
        sweep(bench(photos, kept=tmp_path / "kept"), BASE, OTHERS, "sweep")


def test_a_shard_that_was_damaged_anywhere_stops_nothing(photos: Path, tmp_path: Path) -> None:
    sweep(bench(photos, kept=tmp_path / "kept"), BASE, [], "sweep")
    [path] = (tmp_path / "kept").iterdir()
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        module._load(path, [BASE])
