"""Laws of the pictures: they show what changes, by the factor they state, and stay small."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_tree import jpeg

from roadworthy.core.data import load_data
from roadworthy.core.images import Preprocess
from roadworthy.noise.options import Option
from roadworthy.noise.pictures import SIDE, THUMBNAIL, magnified, pictures
from roadworthy.noise.systems import System

SMALL = Preprocess(resize="pillow-bilinear", geometry="squash", size=(160, 140))
BASE = System(SMALL)


def option(stage: Any, name: str, **changes: Any) -> Option:
    return Option(stage, name, System(replace(SMALL, **changes)))


CHOSEN = [
    option("decode", "simplejpeg-fastdct", decode="simplejpeg-fastdct"),
    option("colour", "bgr", colour="bgr"),
    option("geometry", "letterbox", geometry="letterbox"),
    option("geometry", "smaller", size=(64, 64)),
    option("normalise", "0-to-1", mean=None),
]
FLIPS = [
    {"index": 2, "label": 0, "before": 0.0, "after": 1.0},
    {"index": 5, "label": None, "before": 1.0, "after": 7.0},
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(6):
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(jpeg(seed=i))
    return tmp_path / "photos"


def opened(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), np.float32)


def test_every_visible_change_is_shown(photos: Path) -> None:
    found = pictures(load_data(f"imagefolder:{photos}"), BASE, CHOSEN, FLIPS)
    names = [row["option"] for row in found["differences"]]
    assert names == ["simplejpeg-fastdct", "bgr", "letterbox", "smaller"]
    for row in found["differences"]:
        assert found["shots"][row["shot"]]["picture"].startswith("data:image/jpeg")
        assert opened(row["picture"]).max() > 30
    assert {opened(shot["picture"]).shape for shot in found["shots"]} == {(SIDE, SIDE, 3)}
    assert json.loads(json.dumps(found)) == found


def test_a_difference_is_the_one_of_its_image(photos: Path) -> None:
    data = load_data(f"imagefolder:{photos}")
    found = pictures(data, BASE, [CHOSEN[1]], [])
    row, shot = found["differences"][0], found["shots"][0]
    index = next(i for i in range(len(data)) if data.name(i) == shot["file"])
    view = np.asarray(SMALL.fitted(SMALL.decoded(data.content(index), "x")), np.float32)
    moved = np.abs(view - view[..., ::-1])
    assert row["levels"] == pytest.approx(moved.mean(), rel=1e-5)
    top, left = corner(view, opened(shot["picture"]))
    part = moved[top : top + SIDE, left : left + SIDE]
    wanted = np.clip(part * row["factor"], 0, 255)
    assert np.abs(opened(row["picture"]) - wanted).mean() < 20
    assert part.mean() > moved.mean()


def corner(whole: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    height, width = (w - p + 1 for w, p in zip(whole.shape[:2], part.shape[:2], strict=True))
    tries = [(top, left) for top in range(height) for left in range(width)]
    return min(tries, key=lambda at: np.abs(whole[at[0] :, at[1] :][:SIDE, :SIDE] - part).mean())


def test_what_changes_only_one_image_is_shown_there(photos: Path) -> None:
    plain = Preprocess(crop=(40, 40))
    grey = Image.open(photos / "dog" / "3.jpg").convert("L")  # no swap of channels shows in it
    exif = Image.Exif()
    exif[0x0112] = 3
    grey.save(photos / "dog" / "3.jpg", exif=exif)
    turned = Option(
        "decode", "pillow-ignore-exif", System(replace(plain, decode="pillow-ignore-exif"))
    )
    swapped = Option("colour", "bgr", System(replace(plain, colour="bgr")))
    found = pictures(load_data(f"imagefolder:{photos}"), System(plain), [turned, swapped], [])
    shown = found["shots"][found["differences"][0]["shot"]]
    assert Path(shown["file"]).name == "3.jpg"
    assert found["differences"][1]["shot"] != found["differences"][0]["shot"]


def test_flips_are_photos_with_names(photos: Path) -> None:
    found = pictures(load_data(f"imagefolder:{photos}"), BASE, [], FLIPS)
    assert set(found["thumbnails"]) == {"2", "5"}
    assert opened(found["thumbnails"]["2"]).shape == (THUMBNAIL, THUMBNAIL, 3)
    assert found["names"] == {"0": "cat", "1": "dog"}
    assert found["shots"] == found["differences"] == []


def test_an_unreadable_photo_is_left_out(photos: Path) -> None:
    (photos / "cat" / "2.jpg").write_bytes(b"no image")
    data = load_data(f"imagefolder:{photos}")
    broken = next(i for i in range(len(data)) if data.name(i).endswith("2.jpg"))
    flips = [{**FLIPS[0], "index": i} for i in range(len(data))]
    found = pictures(data, BASE, CHOSEN[:2], flips)
    assert set(found["thumbnails"]) == {str(i) for i in range(len(data)) if i != broken}
    assert len(found["differences"]) == 2


@given(st.floats(0.0, 255.0), st.integers(0, 2**31))
def test_magnifying_keeps_ratios_until_it_clips(scale: float, seed: int) -> None:
    moved = np.random.default_rng(seed).random((12, 12, 3)) * scale
    bright, factor = magnified(moved)
    assert factor in {1, 2, 4, 8, 16, 32, 64}
    assert np.abs(bright - np.minimum(moved * factor, 255)).max() <= 0.5
    assert (bright == 255).mean() <= 0.02 or factor == 1
