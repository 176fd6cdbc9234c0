import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images_on_disk import picture
from PIL import Image
from torchvision.transforms import v2

from roadworthy.core.resizers import RESIZERS, Resizer, find_resizer
from roadworthy.errors import BadPreprocess

SIDES = st.tuples(st.integers(1, 60), st.integers(1, 60))
PLAIN = ("opencv-linear", "opencv-linear-exact", "torch-bilinear", "mnn-bilinear", "ncnn-bilinear")
WIDENED = ("pillow-bilinear", "torch-bilinear-antialias", "swscale-bilinear")


def usable(name: str) -> Resizer:
    resizer = find_resizer(name)
    if reason := resizer.missing():
        pytest.skip(reason)
    return resizer


@pytest.fixture(params=[resizer.name for resizer in RESIZERS])
def resizer(request: pytest.FixtureRequest) -> Resizer:
    return usable(request.param)


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    return np.array(picture(size=(height, width)))


def apart(name: str, other: str, pixels: np.ndarray, size: tuple[int, int]) -> float:
    a, b = usable(name)(pixels, size), usable(other)(pixels, size)
    return float(np.abs(a.astype(float) - b).mean())


def weights(old: int, new: int, widened: bool) -> np.ndarray:
    """Triangle filter ``[new old]`` about half-pixel centres, as wide as the shrinkage or not."""
    matrix = np.zeros((new, old))
    reach = max(old / new, 1.0) if widened else 1.0
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        first, last = int(np.floor(centre - reach)), int(np.ceil(centre + reach))
        for j in range(first, last + 1):
            weight = max(0.0, 1 - abs(j - centre) / reach)
            if widened and 0 <= j < old:
                matrix[i, j] += weight
            elif not widened:
                matrix[i, min(max(j, 0), old - 1)] += weight
    return matrix / matrix.sum(1, keepdims=True)


def test_every_name_is_there_once_and_leads_to_its_resizer() -> None:
    names = [resizer.name for resizer in RESIZERS]
    assert len(set(names)) == len(names) == 33
    assert [find_resizer(name).name for name in names] == names


def test_an_unknown_name_shows_the_nearest_and_what_is_allowed() -> None:
    with pytest.raises(BadPreprocess, match=r"opencv-linaer.*did you mean opencv-linear") as error:
        find_resizer("opencv-linaer")
    assert all(resizer.name in str(error.value) for resizer in RESIZERS)
    assert "\n" not in str(error.value)


def test_a_missing_library_says_what_to_install() -> None:
    absent = Resizer("some-linear", "no-such-library", extra="some")
    assert absent.version() is None
    with pytest.raises(
        BadPreprocess, match=r"resizer some-linear: .*pip install 'roadworthy\[some"
    ):
        absent(noise((4, 4)), (2, 2))


def test_what_is_always_there_is_not_missing() -> None:
    for resizer in RESIZERS:
        assert resizer.extra or (resizer.missing() is None and resizer.version())


def test_a_filter_that_the_library_lacks_is_refused() -> None:
    with pytest.raises(BadPreprocess, match="take one of RESIZERS"):
        Resizer("numpy-linear", "numpy", ("linear",))(noise((4, 4)), (2, 2))


@settings(max_examples=12)
@given(old=SIDES, new=SIDES)
@pytest.mark.parametrize("name", [resizer.name for resizer in RESIZERS])
def test_any_size_comes_out_and_a_flat_image_stays(name, old, new) -> None:
    resizer = usable(name)
    flat = np.full((*old, 3), (10, 200, 90), np.uint8)
    out = resizer(flat, new)
    assert out.shape == (*new, 3)
    assert out.dtype == (np.float32 if name.endswith("-float") else np.uint8)
    assert out.flags.c_contiguous
    # Through YUV, see below.
    allowed = 4 if name == "swscale-fast-bilinear" else 1e-3 if name.endswith("-float") else 0
    assert np.abs(out.astype(float) - (10, 200, 90)).max() <= allowed


def test_the_same_size_changes_nothing(resizer) -> None:
    pixels = noise((37, 53))
    assert np.array_equal(resizer(pixels, (37, 53)), pixels)


def test_the_pixels_that_were_given_stay_and_may_lie_in_any_way(resizer) -> None:
    pixels = photo(40, 50)
    wanted = resizer(pixels, (21, 19))
    wider = np.zeros((40, 60, 3), np.uint8)
    wider[:, 5:55] = pixels
    view = wider[:, 5:55]
    view.flags.writeable = False
    assert np.array_equal(resizer(view, (21, 19)), wanted)
    assert np.array_equal(view, pixels)


def test_threads_do_not_spoil_each_others_pixels(resizer) -> None:
    images = [noise((201 + i, 303), seed=i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pixels: resizer(pixels, (122, 123)), images * 4))
    alone = [resizer(pixels, (122, 123)) for pixels in images] * 4
    assert all(map(np.array_equal, together, alone))


def test_no_two_are_the_same_but_those_known_to_be() -> None:
    pixels = photo(160, 200)
    results: dict[bytes, set[str]] = {}
    for resizer in RESIZERS:
        if not resizer.missing():
            results.setdefault(resizer(pixels, (51, 67)).tobytes(), set()).add(resizer.name)
    nearest = {"pillow-nearest", "opencv-nearest-exact", "mnn-nearest", "mnn-bicubic"}
    plain = {"opencv-linear", "ncnn-bilinear"}
    corners = {"opencv-nearest", "torch-nearest"}
    cubic = {"opencv-cubic", "torch-bicubic"}
    exact = {"opencv-linear-exact", "torch-bilinear", "mnn-bilinear"}
    known = (nearest, plain, corners, cubic, exact)
    assert all(any(same <= group for group in known) for same in results.values() if len(same) > 1)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("size", [(11, 17), (31, 23), (90, 77)])
def test_plain_bilinear_reads_two_pixels_each_way(name, size) -> None:
    pixels = noise((40, 50))
    down, across = weights(40, size[0], widened=False), weights(50, size[1], widened=False)
    wanted = np.einsum("ih,hwc,jw->ijc", down, pixels.astype(float), across)
    assert np.abs(usable(name)(pixels, size) - wanted).max() < 1.2


@pytest.mark.parametrize("name", WIDENED)
@pytest.mark.parametrize("size", [(11, 17), (31, 23), (90, 77)])
def test_antialiased_bilinear_reads_all_that_the_new_pixel_covers(name, size) -> None:
    pixels = photo(40, 50)
    down, across = weights(40, size[0], widened=True), weights(50, size[1], widened=True)
    wanted = np.einsum("ih,hwc,jw->ijc", down, pixels.astype(float), across)
    assert np.abs(usable(name)(pixels, size) - wanted).mean() < 0.5


def test_antialiasing_sets_libraries_apart_and_their_makers_do_not() -> None:
    pixels, size = noise((160, 200)), (40, 50)
    assert apart("torch-bilinear-antialias", "pillow-bilinear", pixels, size) < 0.3
    assert apart("torch-bicubic-antialias", "pillow-bicubic", pixels, size) < 0.3
    assert apart("torch-bilinear", "opencv-linear", pixels, size) < 0.3
    assert apart("opencv-linear", "pillow-bilinear", pixels, size) > 1


@given(old=SIDES, new=SIDES)
def test_opencvs_exact_nearest_is_pillows(old, new) -> None:
    pixels = noise(old)
    exact = find_resizer("opencv-nearest-exact")(pixels, new)
    assert np.array_equal(exact, find_resizer("pillow-nearest")(pixels, new))


def test_opencvs_nearest_is_not() -> None:
    pixels = noise((40, 40))
    corners = find_resizer("opencv-nearest")(pixels, (10, 10))
    assert np.array_equal(corners, pixels[::4, ::4])
    assert np.array_equal(find_resizer("torch-nearest")(pixels, (10, 10)), corners)
    assert np.array_equal(find_resizer("pillow-nearest")(pixels, (10, 10)), pixels[2::4, 2::4])


@pytest.mark.parametrize(
    ("name", "a"),
    [("opencv-cubic", -0.75), ("torch-bicubic", -0.75), ("pillow-bicubic", -0.5)],
)
def test_how_sharp_cubic_is(name, a) -> None:
    """One bright column, enlarged twice: a quarter and three quarters of a pixel from it and on."""
    dark = np.full((8, 16, 3), 60, np.uint8)
    dark[:, 8] = 160
    near = [(a + 2) * t**3 - (a + 3) * t**2 + 1 for t in (0.75, 0.25, 0.25, 0.75)]
    far = [a * (t**3 - 5 * t**2 + 8 * t - 4) for t in (1.75, 1.25)]
    wanted = np.array([*far, *near, *far[::-1]]) * 100 + 60
    row = find_resizer(name)(dark, (8, 32))[4, 13:21, 0]
    assert np.abs(row - wanted).max() <= 1


@pytest.mark.parametrize(
    ("mode", "antialias"),
    [
        ("nearest", False),
        ("bilinear", False),
        ("bilinear", True),
        ("bicubic", False),
        ("bicubic", True),
    ],
)
def test_torch_is_torchvision_on_tensors(mode, antialias) -> None:
    pixels = photo(60, 80)
    x = torch.from_numpy(pixels).permute(2, 0, 1)
    how = v2.InterpolationMode(mode)
    wanted = v2.functional.resize(x, [25, 31], interpolation=how, antialias=antialias)
    got = find_resizer(f"torch-{mode}" + "-antialias" * antialias)(pixels, (25, 31))
    # Where the processor has AVX2 torchvision has 8-bit code of its own.
    assert np.abs(got.astype(int) - wanted.permute(1, 2, 0).numpy()).max() <= 1
    exact = v2.functional.resize(x.float(), [25, 31], interpolation=how, antialias=antialias)
    assert np.array_equal(got, exact.clamp(0, 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", ["torch-bilinear", "torch-bilinear-antialias"])
def test_unrounded_torch_is_rounded_torch_before_it_is_rounded(name) -> None:
    pixels = noise((60, 80))
    unrounded = find_resizer(f"{name}-float")(pixels, (25, 31))
    assert np.array_equal(np.rint(unrounded), find_resizer(name)(pixels, (25, 31)))
    assert (unrounded != np.rint(unrounded)).mean() > 0.5


def test_aligned_corners_keep_the_corners() -> None:
    pixels = noise((31, 41))
    out = find_resizer("torch-bilinear-align-corners")(pixels, (7, 9))
    assert np.array_equal(out, pixels[::5, ::5])


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "area", "lanczos", "fast-bilinear"])
def test_only_swscales_fast_bilinear_spreads_colour_through_yuv(name) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255
    taller = find_resizer(f"swscale-{name}")(stripes, (97, 64))
    assert (np.abs(taller.astype(int) - stripes[:1]).max() > 50) == (name == "fast-bilinear")


def test_mnns_bicubic_is_the_nearest_pixel() -> None:
    pixels = photo(60, 80)
    nearest = usable("mnn-nearest")(pixels, (25, 31))
    assert np.array_equal(usable("mnn-bicubic")(pixels, (25, 31)), nearest)
    assert (nearest == find_resizer("pillow-nearest")(pixels, (25, 31))).mean() > 0.8


def test_pyvips_shrinks_as_pillow_does() -> None:
    pixels = photo(160, 200)
    for kernel, name in (("linear", "bilinear"), ("cubic", "bicubic"), ("lanczos3", "lanczos")):
        assert apart(f"pyvips-{kernel}", f"pillow-{name}", pixels, (80, 100)) < 0.5


def test_mnn_leaves_stdout_alone() -> None:
    usable("mnn-bilinear")
    code = "from roadworthy.core.libraries import load; load('MNN.cv'); print('alone')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "alone\n"


@pytest.mark.data
def test_on_photographs_there_are_two_kinds_of_bilinear(data: Path) -> None:
    files = sorted((data / "imagenet_sample").glob("*.JPEG"))[:5]
    plain = set(PLAIN) & {resizer.name for resizer in RESIZERS if not resizer.missing()}
    for pixels in (np.array(Image.open(file).convert("RGB")) for file in files):
        between = apart("opencv-linear", "pillow-bilinear", pixels, (224, 224))
        assert between > 0.5
        assert all(apart(x, "pillow-bilinear", pixels, (224, 224)) < between / 3 for x in WIDENED)
        assert all(apart(x, "opencv-linear", pixels, (224, 224)) < between / 3 for x in plain)
