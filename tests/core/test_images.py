from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images_on_disk import picture
from PIL import Image
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms import v2

from roadworthy.core.images import IMAGENET, Geometry, Preprocess, placement, preprocess_from
from roadworthy.core.resizers import find_resizer
from roadworthy.errors import BadPreprocess

SIDES = st.tuples(st.integers(8, 90), st.integers(8, 90))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@given(SIDES)
def test_no_stage_is_the_identity(size) -> None:
    x = Preprocess()(noise(size))
    assert x.dtype == torch.float32
    assert np.array_equal(x.mul(255).round().byte().permute(1, 2, 0).numpy(), noise(size))


@given(SIDES)
def test_imagenet_is_torchvisions_transform_to_the_bit(size) -> None:
    wanted = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(noise(size))
    assert torch.equal(IMAGENET(noise(size)), wanted)


@pytest.mark.parametrize("antialias", [True, False])
def test_the_torch_resizers_are_torchvisions_on_tensors(antialias: bool) -> None:
    image = picture(size=(60, 80))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    wanted = v2.functional.resize(x.float(), [25, 31], antialias=antialias).round()
    name = "torch-bilinear-antialias" if antialias else "torch-bilinear"
    found = torch.from_numpy(np.array(find_resizer(name)(np.asarray(image), (25, 31)))).permute(
        2, 0, 1
    )
    assert torch.equal(found.float(), wanted.clamp(0, 255))


@given(SIDES, SIDES)
def test_geometries_keep_their_promises(size, target) -> None:
    image = noise(size)
    squash = Preprocess(resize="pillow-box", geometry="squash", size=target)(image)
    letter = Preprocess(resize="pillow-box", geometry="letterbox", size=target)(image)
    cover = Preprocess(resize="pillow-box", geometry="short-side", size=target)(image)
    assert squash.shape == letter.shape == (3, *target)
    height, width = cover.shape[1:]
    assert height >= target[0]
    assert width >= target[1]
    assert height == target[0] or width == target[1]


def test_a_letterbox_is_centred_on_its_fill() -> None:
    stages = Preprocess(resize="pillow-box", geometry="letterbox", size=(8, 8), fill=(0, 0, 0))
    x = stages(Image.new("RGB", (16, 8), (255, 255, 255)))[0]
    assert x[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_bgr_is_rgb_backwards() -> None:
    assert torch.equal(Preprocess(colour="bgr")(picture()), Preprocess()(picture()).flip(0))


def test_mean_and_std_are_on_the_scale_of_white_1() -> None:
    stages = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    x = stages(Image.new("RGB", (2, 2), (255, 255, 255)))
    assert x[:, 0, 0].tolist() == [2.0, 1.0, 0.5]


def test_a_file_holds_every_stage(tmp_path: Path) -> None:
    stages = Preprocess(
        resize="pillow-bicubic",
        geometry="letterbox",
        size=(10, 12),
        crop=(8, 8),
        colour="bgr",
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 2.0, 3.0),
        fill=(1, 2, 3),
    )
    import json

    path = tmp_path / "stages.json"
    path.write_text(json.dumps(stages.to_dict()))
    assert Preprocess.from_yaml(path) == stages
    path = tmp_path / "stages.yaml"
    path.write_text("resize: pillow-box\ngeometry: squash\nsize: 9\n")
    assert preprocess_from(str(path), None).output_size == (9, 9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reisze": "pillow-box"}, "did you mean resize"),
        ({"decode": "opencv2"}, "did you mean opencv"),
        ({"resize": "pillow-bilinaer"}, "did you mean pillow-bilinear"),
        ({"geometry": "stretch"}, "squash, letterbox"),
        ({"colour": "cmyk"}, "rgb, yuv444"),
        ({"decode": 3}, "the name of one"),
        ({"precision": "int8"}, "float32, float16"),
        ({"size": 9}, "given alone"),
        ({"crop": 0}, "crop"),
        ({"crop": "big"}, "one number of pixels"),
        ({"crop": True}, "one number of pixels"),
        ({"mean": [1]}, "three numbers"),
        ({"mean": 3}, "three numbers"),
        ({"std": [1, 0, 1]}, "above 0"),
        ({"mean": "123"}, "mean '123' given; three numbers"),
        ({"std": {1: 0, 2: 0, 3: 0}}, "three numbers"),
        ({"mean": [0, float("nan"), 0]}, "three numbers"),
        ({"std": [1, 1, float("inf")]}, "three numbers"),
        ({"mean": [0, 0, 10**400]}, "three numbers"),
        ({"fill": [1, 2]}, "three numbers"),
        ({"fill": "123"}, "three numbers"),
        ({"fill": [0, 0, 256]}, "from 0 to 255"),
        ({"fill": [0, 0, -1]}, "from 0 to 255"),
        ({"fill": [0, 0, 1.5]}, "from 0 to 255"),
        ({"fill": [0, 0, float("inf")]}, "three numbers"),
        ({"crop": 40000}, "1 to 8192 pixels"),
        ({"crop": [8192, 8193]}, "1 to 8192 pixels"),
        (
            {"resize": "pillow-box", "geometry": "squash", "size": 10**9},
            "1 to 8192 pixels are allowed",
        ),
    ],
)
def test_wrong_stages_say_what_is_allowed(values, message: str) -> None:
    with pytest.raises(BadPreprocess, match=message):
        Preprocess.from_dict(values)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "just words"])
def test_a_file_without_stages_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadPreprocess, match=r"a\.yaml"):
        Preprocess.from_yaml(tmp_path / "a.yaml")


def test_the_choice_of_preprocessing(tmp_path: Path) -> None:
    own = Preprocess(crop=(3, 3))
    assert preprocess_from(None, own) is own
    assert preprocess_from("imagenet", own) is IMAGENET
    with pytest.raises(BadPreprocess, match="--preprocess imagenet"):
        preprocess_from(None, None)
    with pytest.raises(BadPreprocess, match=r"FILE\.yaml"):
        preprocess_from("imagnet", own)
    with pytest.raises(BadPreprocess, match="cannot be read"):
        preprocess_from(str(tmp_path / "none.yaml"), own)


def test_the_largest_sides_and_levels_are_allowed() -> None:
    stages = Preprocess.from_dict(
        {"crop": [8192, 1], "fill": [0, 255, 7.0], "mean": ["1e-3", 0, 1]}
    )
    assert stages == Preprocess(crop=(8192, 1), fill=(0, 255, 7), mean=(0.001, 0.0, 1.0))
    assert stages(picture()).shape == (3, 8192, 1)


def test_the_advice_of_a_file_without_stages_works(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("- crop\n")
    with pytest.raises(BadPreprocess, match="holds no stages") as found:
        Preprocess.from_yaml(path)
    path.write_text(str(found.value).partition("e.g. ")[2])
    assert Preprocess.from_yaml(path).size == (256, 256)


@pytest.mark.parametrize("text", ["crop: big", "size: 9", "reisze: 3", "crop: 2020-13-45"])
def test_a_fault_in_a_file_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadPreprocess, match=r"preprocess file .*a\.yaml"):
        Preprocess.from_yaml(tmp_path / "a.yaml")


@given(SIDES, SIDES, st.sampled_from(get_args(Geometry)), st.booleans())
def test_a_placement_says_where_a_corner_went(size, target, geometry, cropped) -> None:
    crop = tuple(max(1, side - 3) for side in target) if cropped else None
    stages = Preprocess(
        resize="pillow-nearest", geometry=geometry, size=target, crop=crop, fill=(0, 0, 0)
    )
    place = placement(stages, size)
    white = stages.fitted(np.full((*size, 3), 255, np.uint8))
    inside = [
        (max(0, o), min(length, round(o + side * scale)))
        for o, side, scale, length in zip(
            place.offset, size, place.scale, white.shape[:2], strict=True
        )
    ]
    (top, bottom), (left, right) = inside
    wanted = np.zeros_like(white)
    wanted[top:bottom, left:right] = 255
    assert np.array_equal(white, wanted)
