import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.cli import main
from roadworthy.core.images import Preprocess
from roadworthy.errors import BadData, BadInput
from roadworthy.noise.identify import EXACT, Match, identify
from roadworthy.noise.options import NORMALISATIONS
from roadworthy.requests import IdentifyRequest
from roadworthy.roadtest import identify_run

PIPELINES = {
    "as most are trained": (
        Preprocess(resize="pillow-bilinear", geometry="short-side", size=(73, 73), crop=(64, 64)),
        "imagenet",
    ),
    "served by another library": (
        Preprocess(
            "opencv", "opencv-linear", "short-side-round", (73, 73), (64, 64), "nv12-601-limited"
        ),
        "minus-1-to-1",
    ),
    "in the wrong order": (
        Preprocess("ffmpeg", "pillow-bicubic", "squash", (64, 64), colour="bgr"),
        "0-to-255",
    ),
    "in the wrong range": (
        Preprocess(
            "simplejpeg-fastdct",
            "opencv-area",
            "squash",
            (60, 64),
            None,
            "nv12-601-full-as-601-limited",
        ),
        "0-to-1",
    ),
    "not rounded": (
        Preprocess(
            resize="torch-bilinear-antialias-float",
            geometry="letterbox",
            size=(64, 64),
            fill=(0, 0, 0),
        ),
        "127-over-128",
    ),
    "by the nearest pixel": (
        Preprocess("jpegli", "opencv-nearest", "short-side-floor", (67, 67), (64, 64)),
        "imagenet",
    ),
    "by hand": (
        Preprocess(
            resize="opencv-linear", geometry="short-side-round-floor", size=(74, 74), crop=(64, 64)
        ),
        "imagenet",
    ),
    "larger than the image": (
        Preprocess(resize="opencv-cubic", geometry="short-side", size=(146, 146), crop=(128, 128)),
        "imagenet",
    ),
    "cut without resizing": (Preprocess(crop=(64, 80)), "imagenet"),
    "padded with black": (Preprocess(crop=(128, 128)), "imagenet"),
    "as it is": (Preprocess(), "0-to-1"),
}


def photo(seed: int = 0, size: tuple[int, int] = (133, 96), orientation: int = 1) -> bytes:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
    pixels = (smooth + draw.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(stream, "jpeg", quality=90, exif=exif)
    return stream.getvalue()


def made(content: bytes, stages: Preprocess) -> np.ndarray:
    return stages(stages.decoded(content, "photo.jpg")).numpy()


def normalised(stages: Preprocess, name: str) -> Preprocess:
    mean, std = next(entry[1:] for entry in NORMALISATIONS if entry[0] == name)
    return replace(stages, mean=mean, std=std)


def assert_named(first: Match, stages: Preprocess, content: bytes) -> None:
    assert first.residual <= EXACT
    np.testing.assert_allclose(made(content, first.stages), made(content, stages), atol=1e-4)


@pytest.mark.parametrize("case", PIPELINES)
def test_the_pipeline_that_made_a_tensor_is_named(case: str) -> None:
    content = photo()
    stages = normalised(*PIPELINES[case])
    first = identify(content, "photo.jpg", made(content, stages))[0]
    assert_named(first, stages, content)
    assert first.normalise == PIPELINES[case][1]
    for stage in ("decode", "resize", "geometry", "colour"):
        named = [str(getattr(first.stages, stage)), *first.equals.get(stage, [])]
        if stages.resize is not None or stage in ("decode", "colour"):
            assert str(getattr(stages, stage)) in named, stage


def test_decoders_that_do_the_same_are_named_together() -> None:
    stages = Preprocess(resize="opencv-linear", geometry="squash", size=(64, 64))
    first = identify(photo(), "photo.jpg", made(photo(), stages))[0]
    assert first.stages.decode == "pillow"
    assert {"opencv", "simplejpeg"} <= set(first.equals["decode"])
    assert "ffmpeg" not in first.equals["decode"]


def test_half_precision_is_seen_where_it_shows() -> None:
    stages = normalised(PIPELINES["as most are trained"][0], "imagenet")
    for precision in ("float16", "float32"):
        tensor = made(photo(), replace(stages, precision=precision))
        assert identify(photo(), "photo.jpg", tensor)[0].stages.precision == precision
    half = made(photo(), stages).astype(np.float16)
    assert identify(photo(), "photo.jpg", half)[0].stages.precision == "float16"


def test_a_normalisation_of_no_name_is_solved_for() -> None:
    mean, std = (0.4, 0.45, 0.5), (0.3, 0.2, 0.25)
    stages = replace(PIPELINES["as most are trained"][0], mean=mean, std=std)
    first = identify(photo(), "photo.jpg", made(photo(), stages))[0]
    assert_named(first, stages, photo())
    assert first.stages.mean == pytest.approx(mean, abs=1e-4)
    assert first.stages.std == pytest.approx(std, abs=1e-4)
    assert first.normalise == "mean 0.4 0.45 0.5 std 0.3 0.2 0.25"


@pytest.mark.parametrize("shape", ["hwc", "nchw", "nhwc"])
def test_channels_may_come_last_and_a_batch_of_one_around_them(shape: str) -> None:
    stages = Preprocess(resize="pillow-bilinear", geometry="squash", size=(64, 64))
    levels = (made(photo(), stages) * 255).round().astype(np.uint8)
    tensor = levels.transpose(1, 2, 0) if "hwc" in shape else levels
    first = identify(photo(), "photo.jpg", tensor if shape == "hwc" else tensor[None])[0]
    assert first.residual <= EXACT
    assert first.normalise == "0-to-255"


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_decoder_that_ignores_how_a_camera_was_held_is_named(orientation: int) -> None:
    content = photo(orientation=orientation)
    stages = replace(PIPELINES["as most are trained"][0], decode="pillow-ignore-exif")
    first = identify(content, "photo.jpg", made(content, stages))[0]
    assert_named(first, stages, content)
    assert first.stages.decode == "pillow-ignore-exif"


def strange(kind: str, stages: Preprocess) -> np.ndarray:
    pixels = stages.decoded(photo(), "photo.jpg")
    match kind:
        case "another photo":
            return made(photo(seed=1), stages)
        case "a corner":
            return stages(pixels[5:, 9:]).numpy()
        case "turned":
            return stages(np.rot90(pixels).copy()).numpy()
        case "mirrored":
            return stages(pixels[:, ::-1].copy()).numpy()
        case "noisy":
            draw = np.random.default_rng(0)
            tensor = stages(pixels).numpy()
            return tensor + draw.normal(0, 0.01, tensor.shape).astype(np.float32)
        case _:
            return np.full((3, 64, 64), 0.5, np.float32)


@pytest.mark.parametrize(
    "kind", ["another photo", "a corner", "turned", "mirrored", "noisy", "one colour"]
)
def test_what_no_known_pipeline_made_is_not_found(kind: str) -> None:
    tensor = strange(kind, normalised(*PIPELINES["as most are trained"]))
    matches = identify(photo(), "photo.jpg", tensor)
    assert matches[0].residual > EXACT
    assert [m.residual for m in matches] == sorted(m.residual for m in matches)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.zeros((64, 64)), r"shape \[64, 64\].*\[3, height, width\]"),
        (np.zeros((2, 3, 64, 64)), r"shape \[2, 3, 64, 64\]"),
        (np.zeros((1, 64, 64)), r"shape \[1, 64, 64\]"),
        (np.zeros((3, 4, 64)), "8 pixels a side"),
        (np.zeros((3, 0, 0)), "8 pixels a side"),
        (np.float32(1), r"shape \[\]"),
        (np.full((3, 64, 64), np.nan), "NaN"),
        (np.full((3, 64, 64), 1e300), "infinite"),
        (np.full((3, 64, 64), 1e9), "1e.09"),
        (np.zeros((3, 64, 64), complex), "complex128"),
        (np.zeros((3, 64, 64), "U3"), "real numbers"),
    ],
)
def test_a_tensor_that_is_no_image_is_refused(tensor: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        identify(photo(), "photo.jpg", np.asarray(tensor))


def request(folder: Path, content: bytes, tensor: np.ndarray) -> IdentifyRequest:
    (folder / "photo.jpg").write_bytes(content)
    np.save(folder / "fed.npy", tensor)
    return IdentifyRequest(folder / "photo.jpg", folder / "fed.npy")


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"photo\.jpg is corrupt or no image"):
        identify_run(request(tmp_path, b"no image", np.zeros((3, 64, 64))))
    with pytest.raises(BadData, match=r"photo\.jpg is truncated"):
        identify_run(request(tmp_path, photo()[:2000], np.zeros((3, 64, 64))))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    asked = request(tmp_path, photo(), np.zeros((3, 64, 64)))
    gone = tmp_path / "gone"
    with pytest.raises(BadData, match=r"--image .*gone cannot be read"):
        identify_run(replace(asked, image=gone))
    for path in (gone, tmp_path, asked.image):
        with pytest.raises(BadInput, match=r"--tensor .* cannot be read.*\.npy"):
            identify_run(replace(asked, tensor=path))


def test_archives_and_pickles_are_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, photo(), np.zeros((3, 64, 64)))
    np.savez(tmp_path / "several.npz", a=np.zeros(1), b=np.zeros(1))
    np.save(tmp_path / "pickled.npy", np.array([{}, None], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(asked.tensor.read_bytes()[:500])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("several.npz", "pickled.npy", "cut.npy", "empty.npy"):
        with pytest.raises(BadInput, match=f"--tensor .*{name} cannot be read"):
            identify_run(replace(asked, tensor=tmp_path / name))


def test_the_command_prints_what_it_found_and_nothing_else(tmp_path: Path, capfd) -> None:
    stages = normalised(*PIPELINES["served by another library"])
    asked = request(tmp_path, photo(), made(photo(), stages))
    files = ["--image", str(asked.image), "--tensor", str(asked.tensor)]
    assert main(["noise", "identify", "--json", *files]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["found"] is True
    needed = {"decode", "resize", "geometry", "colour", "normalise", "residual"}
    assert all(needed <= set(match) for match in told["matches"])
    assert told["matches"][0]["normalise"] == "minus-1-to-1"
    assert told["matches"][0]["resize"] == "opencv-linear"
