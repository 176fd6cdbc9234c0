import warnings
from pathlib import Path

import numpy as np
import pytest
from images_on_disk import picture, save
from PIL import Image

from roadworthy.core.sources import decode, image_paths
from roadworthy.errors import BadData


def read(path: Path) -> Image.Image:
    return decode(path.read_bytes(), str(path))


def distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize(
    ("tag", "moves"),
    [
        (1, []),
        (2, [Image.Transpose.FLIP_LEFT_RIGHT]),
        (3, [Image.Transpose.ROTATE_180]),
        (6, [Image.Transpose.ROTATE_90]),
        (8, [Image.Transpose.ROTATE_270]),
    ],
)
def test_exif_rotation_is_undone(tmp_path: Path, tag: int, moves: list[Image.Transpose]) -> None:
    upright = picture()
    stored = upright
    for move in moves:
        stored = stored.transpose(move)
    exif = Image.Exif()
    exif[0x0112] = tag
    found = read(save(tmp_path / "a.jpg", stored, exif=exif, quality=100, subsampling=0))
    assert found.size == upright.size
    assert distance(found, upright) < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    found = read(save(tmp_path / f"a{suffix}", picture().convert(mode)))
    assert found.mode == "RGB"
    if mode != "P":
        assert distance(found, picture().convert(mode).convert("RGB")) < 4


def test_sixteen_bit_gray_keeps_its_shades(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    found = np.asarray(read(save(tmp_path / "a.png", Image.fromarray(ramp))))
    assert np.array_equal(found[0, :, 0], (ramp[0] >> 8).astype(np.uint8))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(BadData, match="floating-point"):
        read(path)


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    part = np.frombuffer(whole, np.uint8)[: rng.integers(1, len(whole))].copy()
    part[rng.integers(0, len(part), 5)] ^= 255
    return part.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tiff", ".webp"])
def test_any_damage_is_bad_data_and_names_the_file(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    whole = save(tmp_path / f"a{suffix}", picture(size=(40, 40))).read_bytes()
    messages = []
    for _ in range(30):
        try:
            decode(damaged(whole, rng), f"a{suffix}")
        except BadData as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(f"a{suffix}" in m and "\n" not in m for m in messages)


@pytest.fixture
def heard():
    """Warnings as a user's Python lets them through."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        yield heard


def test_transparent_palette_entries_are_dropped_silently(tmp_path: Path, heard) -> None:
    palette = picture().quantize(16)
    path = save(tmp_path / "a.png", palette, transparency=bytes(range(16)))
    assert np.array_equal(read(path), palette.convert("RGB"))
    assert not heard


def test_large_images_are_good_and_far_larger_ones_are_refused(
    tmp_path: Path, heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", picture(size=(20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert read(path).size == (20, 20)
    assert not heard
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadData, match=r"a\.png .*exceeds limit of 200 pixels"):
        read(path)
    warnings.warn("of another kind", stacklevel=1)
    assert len(heard) == 1


def test_broken_links_are_images_and_folders_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "folder.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    save(tmp_path / "a.png")
    assert [p.name for p in image_paths(tmp_path)] == ["a.png", "broken.jpg"]
