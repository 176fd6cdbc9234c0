import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_tree import jpeg
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from roadworthy.core.batches import batches, load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Preprocess
from roadworthy.errors import BadData, BadPreprocess
from roadworthy.noise.classes import group
from roadworthy.noise.deployed import as_deployed
from roadworthy.noise.mix import Mixed, RandomArea, RandomPreprocess, different

BASE = Preprocess(
    resize="pillow-bilinear",
    geometry="squash",
    size=(16, 16),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.25, 0.5),
)
TWO = {"decoders": ["pillow", "ffmpeg"], "resizers": ["pillow-box", "opencv-nearest"]}
STAGES: tuple[Mixed, ...] = ("decode", "resize", "colour")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed=i))
    return tmp_path / "photos"


@pytest.fixture
def photos(folder: Path) -> Dataset:
    return load_data(f"imagefolder:{folder}")


def alone(stages: Preprocess, content: bytes) -> torch.Tensor:
    return stages(stages.decoded(content, "photo"))


def test_one_option_a_stage_is_plain_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg())
    mix = RandomPreprocess(BASE, ["ffmpeg"], ["opencv-area"], ["bgr"])
    chosen = replace(BASE, decode="ffmpeg", resize="opencv-area", colour="bgr")
    for form in (jpeg(), path, str(path)):
        assert torch.equal(mix(form), alone(chosen, jpeg()))
    # What was decoded before is not decoded again.
    with Image.open(path) as image:
        assert torch.equal(mix(image), chosen(image))
        assert torch.equal(mix(np.asarray(image)), chosen(image))


def test_every_combination_is_drawn_and_nothing_else() -> None:
    mix = RandomPreprocess(BASE, **TWO, colours=["rgb"])
    wanted = {
        alone(replace(BASE, decode=d, resize=r), jpeg()).numpy().tobytes()
        for d in TWO["decoders"]
        for r in TWO["resizers"]
    }
    assert len(wanted) == 4
    torch.manual_seed(0)
    assert {mix(jpeg()).numpy().tobytes() for _ in range(60)} == wanted


def test_draws_are_even_and_fixed_by_the_seed() -> None:
    mix = RandomPreprocess(BASE)
    draws = [mix.draw(torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(mix.draw(generator).resize for _ in range(1300))
    assert set(drawn) == set(mix.choices["resize"])
    assert all(60 < times < 140 for times in drawn.values())
    torch.manual_seed(5)
    first = mix.draw()
    torch.manual_seed(5)
    assert mix.draw() == first


def test_workers_of_a_loader_differ_and_repeat_by_seed(folder: Path) -> None:
    mix = RandomPreprocess(BASE, augment=RandomArea())
    data = ImageFolder(str(folder), loader=str, transform=pickle.loads(pickle.dumps(mix)))
    data.samples = data.samples[:1] * 8

    def epoch(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([x for x, _ in DataLoader(data, 4, num_workers=2)])

    first = epoch(0)
    # Each worker has one of the two batches.
    assert not torch.equal(first[:4], first[4:])
    assert torch.equal(first, epoch(0))
    assert not torch.equal(first, epoch(1))


@pytest.mark.parametrize("stage", STAGES)
def test_no_two_of_the_default_options_are_the_same(stage: Mixed, photos: Dataset) -> None:
    names = RandomPreprocess(BASE).choices[stage]
    found = group(photos, [replace(BASE, **{stage: name}) for name in names], 0.4)
    assert found.members == tuple(range(len(names)))


def test_the_default_decoders_are_all_there_are_without_extras(photos: Dataset) -> None:
    """But for jpegli, which would refuse CMYK."""
    common = {d.name for d in DECODERS if d.extra is None}
    found = set(different(photos, Preprocess(), "decode")) & common
    assert found == {*RandomPreprocess(BASE).choices["decode"], "jpegli"}


def test_defaults_keep_what_the_system_has() -> None:
    odd = replace(BASE, decode="jpegli", resize="opencv-linear-exact", colour="bgr")
    choices = RandomPreprocess(odd).choices
    assert [choices[stage][0] for stage in STAGES] == ["jpegli", "opencv-linear-exact", "bgr"]
    assert all(name == "bgr" or name.endswith("-bgr") for name in choices["colour"])
    assert RandomPreprocess(Preprocess()).choices["resize"] == ()


def test_errors_of_colour_are_no_noise(photos: Dataset) -> None:
    found = different(photos, replace(BASE, colour="bgr"), "colour")
    assert found[0] == "bgr"
    assert len(found) > 4
    assert all(name.endswith("bgr") and "-as-" not in name for name in found)
    assert different(photos, Preprocess(), "resize") == ()


def test_a_random_area_lies_inside_and_has_its_share() -> None:
    pixels = np.arange(40 * 60, dtype=np.uint16)[..., None].astype(np.uint8).reshape(40, 60, 1)
    torch.manual_seed(0)
    sizes = {RandomArea((0.25, 0.5))(pixels).shape for _ in range(50)}
    shares = [h * w / 2400 for h, w, _ in sizes]
    assert len(sizes) > 20
    assert 0.2 < min(shares) < max(shares) < 0.55


def test_augmentation_comes_before_resizing() -> None:
    mix = RandomPreprocess(BASE, ["pillow"], ["pillow-box"], ["rgb"], lambda p: p[:, ::-1])
    turned = np.asarray(BASE.decoded(jpeg(), "photo"))[:, ::-1]
    assert torch.equal(mix(jpeg()), replace(BASE, resize="pillow-box")(turned))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resizers": ["opencv-linaer"]}, "did you mean opencv-linear"),
        ({"decoders": []}, "name one or more"),
        ({"colours": ["sepia"]}, "rgb"),
    ],
)
def test_bad_options_are_told(options: dict, message: str) -> None:
    with pytest.raises(BadPreprocess, match=message):
        RandomPreprocess(BASE, **options)


def test_resizers_need_a_size() -> None:
    with pytest.raises(BadPreprocess, match="does not resize"):
        RandomPreprocess(Preprocess(), resizers=["pillow-box"])


def test_bad_images_are_named(tmp_path: Path) -> None:
    mix = RandomPreprocess(BASE)
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:-40])
    for image, message in (
        (tmp_path / "none.jpg", "none.jpg cannot be read"),
        (tmp_path / "cut.jpg", "cut.jpg is truncated"),
        (np.zeros((4, 4, 3), np.float32), "float32 given"),
    ):
        with pytest.raises(BadData, match=message):
            mix(image)


def test_calibration_meets_every_option_equally_often_and_in_no_order(photos: Dataset) -> None:
    mix = RandomPreprocess(BASE, **TWO, colours=["rgb"])
    seen, rest = as_deployed(photos, mix, seed=0)
    images, labels = load_tensor(seen, rest)
    assert labels.tolist() == [photos.label(i) for i in range(12)]
    systems = [replace(BASE, decode=d, resize=r) for d in TWO["decoders"] for r in TWO["resizers"]]
    views = [load_tensor(photos, system)[0] for system in systems]
    origin = [[torch.equal(x, view[i]) for view in views].index(True) for i, x in enumerate(images)]
    decoders = [TWO["decoders"][o // 2] for o in origin]
    assert Counter(decoders) == {"pillow": 6, "ffmpeg": 6}
    assert Counter(TWO["resizers"][o % 2] for o in origin) == {"pillow-box": 6, "opencv-nearest": 6}
    assert decoders not in (["pillow", "ffmpeg"] * 6, ["pillow"] * 6 + ["ffmpeg"] * 6)


def test_calibration_is_the_same_every_time(photos: Dataset) -> None:
    def images(seed: int, size: int) -> torch.Tensor:
        seen, rest = as_deployed(photos.subset(8, seed=3), RandomPreprocess(BASE), seed)
        return torch.cat(list(batches(seen, rest, size).images()))

    assert torch.equal(images(0, 3), images(0, 8))
    assert not torch.equal(images(0, 8), images(1, 8))


def test_unreadable_calibration_images_are_left_out_by_name(photos: Dataset, folder: Path) -> None:
    (folder / "a" / "00.jpg").write_bytes(b"no image")
    seen, rest = as_deployed(photos, RandomPreprocess(BASE), seed=0)
    parts = batches(seen, rest, 4, skip_bad=True)
    assert sum(len(x) for x, _ in parts) == 11
    assert [Path(name).name for name in parts.skipped] == ["00.jpg"]
