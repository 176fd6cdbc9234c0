import io
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from images_on_disk import picture
from PIL import Image

from roadworthy.core.decoders import DECODERS, Decoder, find_decoder
from roadworthy.core.sources import decode
from roadworthy.errors import BadData, BadPreprocess

ORIENTATION, COPYRIGHT = 0x0112, 0x8298
PICTURE = picture(3, (41, 60))
TURNING = tuple(d for d in DECODERS if d.name != "pillow-ignore-exif")


def with_library(decoders: tuple[Decoder, ...]) -> list:
    """One test each; skipped where an optional library is not installed."""
    return [
        pytest.param(
            d,
            id=d.name,
            marks=pytest.mark.skipif(bool(d.extra and d.missing()), reason=str(d.missing())),
        )
        for d in decoders
    ]


every_decoder = pytest.mark.parametrize("decoder", with_library(DECODERS))
every_turning_decoder = pytest.mark.parametrize("decoder", with_library(TURNING))


def named(name: str) -> Decoder:
    decoder = find_decoder(name)
    if decoder.extra and decoder.missing():
        pytest.skip(str(decoder.missing()))
    return decoder


def encoded(image: Image.Image = PICTURE, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(decode(content, "reference"))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


def tagged(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(PICTURE, kind, exif=exif, quality=95, subsampling=0, lossless=True)


def noise(*shape: int, depth: type = np.uint8) -> np.ndarray:
    levels = np.iinfo(depth).max + 1
    return np.random.default_rng(0).integers(0, levels, shape).astype(depth)


def transparent() -> Image.Image:
    return Image.fromarray(np.dstack([np.asarray(PICTURE), noise(41, 60)]))


def moving(kind: str) -> bytes:
    return encoded(
        PICTURE, kind, save_all=True, append_images=[picture(4, (41, 60))], lossless=True
    )


EXACT = {
    "rgb": encoded(kind="PNG"),
    "alpha": encoded(transparent(), "PNG"),
    "gray": encoded(PICTURE.convert("L"), "PNG"),
    "gray alpha": encoded(transparent().convert("LA"), "PNG"),
    "palette": encoded(PICTURE.quantize(16), "PNG"),
    "palette alpha": encoded(PICTURE.quantize(16), "PNG", transparency=bytes(range(16))),
    "one bit": encoded(PICTURE.convert("1"), "PNG"),
    "16-bit gray": encoded(Image.fromarray(noise(9, 7, depth=np.uint16)), "PNG"),
    "16-bit rgb": cv2.imencode(".png", noise(9, 7, 3, depth=np.uint16))[1].tobytes(),
    "16-bit alpha": cv2.imencode(".png", noise(9, 7, 4, depth=np.uint16))[1].tobytes(),
    "webp": encoded(kind="WEBP", lossless=True),
    "webp alpha": encoded(transparent(), "WEBP", lossless=True, exact=True),
    "webp frames": moving("WEBP"),
    "png frames": moving("PNG"),
    "gif frames": moving("GIF"),
    "bmp": encoded(kind="BMP"),
    "tiff": encoded(kind="TIFF", compression="tiff_lzw"),
    "ppm": encoded(kind="PPM"),
}


@every_decoder
def test_files_without_loss_are_the_same_for_every_decoder(decoder: Decoder) -> None:
    for kind, content in EXACT.items():
        assert np.array_equal(decoder(content, kind), by_pillow(content)), kind


def test_sixteen_bits_keep_the_upper_byte_and_alpha_leaves_the_colour() -> None:
    deep = noise(9, 7, 3, depth=np.uint16)[..., ::-1] >> 8
    assert np.array_equal(find_decoder("pillow")(EXACT["16-bit rgb"], "a"), deep)
    assert np.array_equal(find_decoder("pillow")(EXACT["alpha"], "a"), np.asarray(PICTURE))


@every_decoder
@pytest.mark.parametrize(
    "options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"keep_rgb": True}]
)
def test_a_jpeg_is_close_to_pillows(decoder: Decoder, options: dict) -> None:
    content = encoded(quality=90, **options)
    pixels = decoder(content, "a.jpg")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    # Its chroma is coarse and saturated, where upsampling matters most: real images are closer.
    assert distance(pixels, by_pillow(content)) < 6


@every_turning_decoder
@pytest.mark.parametrize(("kind", "limit"), [("JPEG", 2), ("PNG", 1e-9), ("WEBP", 1e-9)])
def test_every_orientation_is_undone(decoder: Decoder, kind: str, limit: float) -> None:
    for orientation in range(1, 9):
        content = tagged(orientation, kind)
        upright = by_pillow(content)
        assert upright.shape == ((60, 41, 3) if orientation > 4 else (41, 60, 3))
        assert distance(decoder(content, "a"), upright) < limit, orientation


def test_who_ignores_exif_shows_the_image_as_stored() -> None:
    for orientation in range(1, 9):
        pixels = find_decoder("pillow-ignore-exif")(tagged(orientation, "PNG"), "a")
        assert np.array_equal(pixels, np.asarray(PICTURE)), orientation


@every_decoder
def test_orientations_that_exif_does_not_define_change_nothing(decoder: Decoder) -> None:
    for orientation in (0, 9, 65535):
        pixels = decoder(tagged(orientation, "JPEG"), "a")
        assert np.array_equal(pixels, decoder(tagged(1, "JPEG"), "a")), orientation


@every_decoder
def test_gray_becomes_rgb(decoder: Decoder) -> None:
    content = encoded(PICTURE.convert("L"))
    pixels = decoder(content, "a.jpg")
    assert np.array_equal(pixels, pixels[..., :1].repeat(3, axis=2))
    assert distance(pixels, by_pillow(content)) < 1


@every_decoder
@pytest.mark.parametrize("subsampling", [0, 2])
def test_cmyk_becomes_rgb_as_in_pillow(decoder: Decoder, subsampling: int) -> None:
    content = encoded(PICTURE.convert("CMYK"), subsampling=subsampling)
    assert distance(decoder(content, "press.jpg"), by_pillow(content)) < 5


def test_who_leaves_cmyk_to_us_gets_pillows_formula() -> None:
    content = encoded(PICTURE.convert("CMYK"))
    for name in ("jpeglib-6b", "pyvips"):
        if find_decoder(name).missing() is None:
            assert np.array_equal(find_decoder(name)(content, "a"), by_pillow(content))


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds a JPEG, and so an end of image long before its own."""
    exif = Image.Exif()
    exif[0x010E] = encoded(picture(size=(8, 8))).decode("latin-1")
    content = encoded(exif=b"Exif\0\0" + exif.tobytes() + encoded(picture(size=(8, 8))))
    assert content.count(b"\xff\xd9") > 1
    return content


WHOLE = {
    "jpg": encoded(),
    "progressive.jpg": encoded(progressive=True),
    "thumbnail.jpg": with_thumbnail(),
    "png": encoded(kind="PNG"),
    "webp": encoded(kind="WEBP"),
    "gif": encoded(kind="GIF"),
}


@every_decoder
def test_truncated_files_are_refused_and_named(decoder: Decoder) -> None:
    for kind, whole in WHOLE.items():
        decoder(whole, kind)
        # A GIF is whole without its last byte; of the others each byte counts.
        most = len(whole) * 9 // 10 if kind == "gif" else len(whole) - 1
        for size in (len(whole) // 3, len(whole) * 2 // 3, most - 19, most):
            with pytest.raises(BadData, match=f"image cut/{kind} ") as caught:
                decoder(whole[:size], f"cut/{kind}")
            assert "\n" not in str(caught.value)


@every_decoder
def test_bytes_after_the_end_do_no_harm(decoder: Decoder) -> None:
    for kind in ("jpg", "png", "webp"):
        pixels = decoder(WHOLE[kind] + bytes(100), kind)
        assert np.array_equal(pixels, decoder(WHOLE[kind], kind)), kind


@every_decoder
def test_what_is_no_image_is_refused_and_named(decoder: Decoder) -> None:
    for content in (b"", b"no image at all", b"\xff\xd8\xff\xd9", bytes(1000)):
        with pytest.raises(BadData, match=r"image notes\.jpg is corrupt or no image"):
            decoder(content, "notes.jpg")


@every_decoder
def test_the_content_decides_not_the_name(decoder: Decoder) -> None:
    assert np.array_equal(decoder(EXACT["rgb"], "a.jpg"), np.asarray(PICTURE))
    assert np.array_equal(decoder(WHOLE["jpg"], "a.png"), decoder(WHOLE["jpg"], "a.jpg"))


@every_decoder
def test_damage_inside_is_bad_data_or_pixels(decoder: Decoder) -> None:
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(12):
        content = np.frombuffer(WHOLE["jpg"], np.uint8).copy()
        content[rng.integers(2, len(content) - 2, 3)] ^= 255
        try:
            decoder(content.tobytes(), "damaged.jpg")
        except BadData as error:
            messages.append(str(error))
    assert len(messages) > 1
    assert all("image damaged.jpg " in m and "\n" not in m for m in messages)


def enormous() -> bytes:
    content = bytearray(WHOLE["jpg"])
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = b"\xfd\xe8\xfd\xe8"
    return bytes(content)


@every_decoder
def test_far_too_large_images_are_refused_by_their_header(decoder: Decoder) -> None:
    with pytest.raises(BadData, match=r"bomb\.jpg .*4225000000 pixels.* exceeds limit"):
        decoder(enormous(), "bomb.jpg")


@every_decoder
def test_large_images_are_good(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 41 * 60 - 1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        assert decoder(WHOLE["jpg"], "a.jpg").shape == (41, 60, 3)
    assert Image.DecompressionBombWarning not in {w.category for w in heard}


def test_damaged_metadata_are_no_warnings() -> None:
    stream = io.BytesIO()
    PICTURE.save(stream, "TIFF", tiffinfo={COPYRIGHT: "somebody"})
    # The tag claims to be longer than the file.
    whole, tag = stream.getvalue(), struct.pack("<HHI", COPYRIGHT, 2, len("somebody") + 1)
    damaged = whole.replace(tag, struct.pack("<HHI", COPYRIGHT, 2, 10**6))
    assert damaged != whole
    with warnings.catch_warnings(record=True) as heard:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        assert find_decoder("opencv")(damaged, "a.tif").shape == (41, 60, 3)
    assert not heard


def test_a_crash_of_mnn_is_bad_data_and_the_next_image_is_good() -> None:
    decoder = named("mnn")
    before = decoder(WHOLE["jpg"], "good.jpg")
    # MNN knows no arithmetic coding, which this claims to be.
    bad = WHOLE["jpg"].replace(b"\xff\xc0", b"\xff\xc9", 1)
    with pytest.raises(BadData, match=r"image bad\.jpg cannot be decoded by mnn: MNN crashed"):
        decoder(bad, "bad.jpg")
    assert np.array_equal(decoder(WHOLE["jpg"], "good.jpg"), before)


SAME = ("opencv", "simplejpeg", "torchvision", "jpeglib-6b", "jpeglib-turbo", "jpeglib-mozjpeg")


@pytest.mark.parametrize("name", [*SAME, "pyvips"])
def test_the_libjpeg_family_is_one_class(name: str) -> None:
    for content in (encoded(quality=90, subsampling=2), encoded(quality=75, subsampling=0)):
        assert np.array_equal(named(name)(content, "a"), by_pillow(content))


OTHER = (
    "ffmpeg",
    "jpegli",
    "simplejpeg-fastdct",
    "simplejpeg-fastupsample",
    "simplejpeg-fastdct-fastupsample",
    "jpeglib-7",
    "jpeglib-8",
    "jpeglib-9",
    "mnn",
)


@pytest.mark.parametrize("name", OTHER)
def test_the_others_differ_a_little(name: str) -> None:
    content = encoded(picture(5, (120, 160)), quality=90, subsampling=2)
    assert 0 < distance(named(name)(content, "a"), by_pillow(content)) < 3


def test_versions_do_not_mix_on_threads() -> None:
    content = encoded(quality=90, subsampling=2)
    decoders = [named("jpeglib-6b"), named("jpeglib-9"), named("mnn")] * 10
    alone = [d(content, "a") for d in decoders[:3]] * 10
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda d: d(content, "a"), decoders))
    assert all(map(np.array_equal, together, alone))


def test_names_are_unique_and_pillow_is_the_reference() -> None:
    assert DECODERS[0].name == "pillow"
    assert len({d.name for d in DECODERS}) == len(DECODERS)
    assert len({(d.library, d.flags) for d in DECODERS}) == len(DECODERS)


@pytest.mark.parametrize(
    ("given", "nearest"), [("simplejpg", "simplejpeg"), ("PyVips", "pyvips"), ("ffmpg", "ffmpeg")]
)
def test_an_unknown_name_shows_the_nearest_and_all(given: str, nearest: str) -> None:
    with pytest.raises(BadPreprocess, match=rf"decode '{given}' given .*mean .*{nearest}.*\?") as e:
        find_decoder(given)
    assert str(e.value).endswith(f"{', '.join(d.name for d in DECODERS)} are allowed")


def test_a_missing_library_says_how_to_install_it() -> None:
    optional = Decoder("a", "no-such-library", (), "jpeglib")
    assert optional.version() is None
    assert str(optional.missing()).endswith("pip install 'roadworthy[jpeglib]'")
    assert str(Decoder("a", "no-such-library").missing()).endswith("pip install no-such-library")


@pytest.mark.parametrize("name", ["simplejpeg", "jpeglib-9", "pyvips"])
def test_a_library_that_cannot_be_imported_is_no_fault_of_the_image(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = find_decoder(name)
    monkeypatch.setitem(sys.modules, decoder.library.removesuffix("-binary"), None)
    with pytest.raises(BadPreprocess, match=f"decoder {name}: {decoder.library} "):
        decoder(WHOLE["jpg"], "a.jpg")


@pytest.mark.data
@every_decoder
def test_photographs_come_close_to_pillows(decoder: Decoder, data: Path) -> None:
    for path in sorted((data / "imagenet_sample").glob("*.JPEG"))[:5]:
        content = path.read_bytes()
        assert distance(decoder(content, path.name), by_pillow(content)) < 3
