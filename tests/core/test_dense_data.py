"""Data specs of masks and depth maps, good and bad."""

from pathlib import Path

import numpy as np
import pytest
from images_on_disk import picture, save
from PIL import Image

from roadworthy.core.data import load_data
from roadworthy.errors import BadData

SIZE = (24, 32)


def mask(values: object = 3, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.full(SIZE, values, dtype))


def masks(root: Path, **held: Image.Image | None) -> str:
    for name, own in held.items():
        save(root / "images" / f"{name}.jpg", picture(size=SIZE))
        if own is not None:
            save(root / "masks" / f"{name}.png", own)
    return f"masks:{root}"


def depths(root: Path, **held: np.ndarray) -> str:
    for name, own in held.items():
        save(root / "images" / f"{name}.jpg", picture(size=SIZE))
        save(root / "depth" / f"{name}.png", Image.fromarray(own))
    return f"depth:{root}"


def test_values_of_a_mask_are_classes(tmp_path: Path) -> None:
    dataset = load_data(masks(tmp_path, a=mask(3), b=mask(np.arange(32) % 12)) + "?ignore=11")
    assert (dataset.task, len(dataset), dataset.label(0)) == ("segmentation", 2, None)
    assert (dataset.truth(0) == 3).all()
    assert dataset.truth(1)[5].tolist() == [255 if i % 12 == 11 else i % 12 for i in range(32)]
    assert dataset.truth(1).dtype == np.uint8
    assert dataset.name(1).endswith("images/b.jpg")


def test_ids_of_masks_have_the_names_that_are_given(tmp_path: Path) -> None:
    spec = masks(tmp_path, a=mask(1))
    assert load_data(spec).classes == ()
    (tmp_path / "classes.yaml").write_text("names: {0: road, 1: sky}\n")
    assert load_data(spec).classes == ("road", "sky")
    listing = tmp_path / "other.txt"
    listing.write_text("lane\nsky\ncar\n")
    for said in ("other.txt", listing):
        assert load_data(f"{spec}?names={said}").classes == ("lane", "sky", "car")
    (tmp_path / "labels").mkdir()
    assert load_data(spec).classes == ()  # the names are those of boxes
    listing.write_text("lane\nlane\n")
    with pytest.raises(BadData, match="2 names, 1 of them different"):
        load_data(f"{spec}?names=other.txt")


def test_a_palette_is_read_by_its_numbers(tmp_path: Path) -> None:
    own = mask(np.arange(32) % 5).convert("P")
    own.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9, 50, 60, 70])
    dataset = load_data(masks(tmp_path, a=own, b=mask(255)))
    assert dataset.truth(0)[0].tolist() == [i % 5 for i in range(32)]
    assert (dataset.truth(1) == 255).all()


def test_one_bit_masks_are_two_classes(tmp_path: Path) -> None:
    dataset = load_data(masks(tmp_path, a=mask(np.arange(32) % 2 * 255).convert("1")))
    assert dataset.truth(0)[0].tolist() == [i % 2 for i in range(32)]


def test_images_without_masks_are_unlabelled(tmp_path: Path) -> None:
    dataset = load_data(masks(tmp_path, a=mask(), b=None))
    assert [dataset.known(i) for i in (0, 1)] == [True, False]
    assert dataset.truth(1) is None
    assert [dataset.labelled().name(0)] == [dataset.name(0)]


def test_without_the_folder_all_are_unlabelled(tmp_path: Path) -> None:
    dataset = load_data(masks(tmp_path, a=None, b=None))
    assert not any(map(dataset.known, (0, 1)))
    with pytest.raises(BadData, match="no labels to judge by"):
        dataset.labelled()


def test_folders_and_ends_have_other_names(tmp_path: Path) -> None:
    save(tmp_path / "test" / "sub" / "a.png", picture(size=SIZE))
    save(tmp_path / "truth" / "sub" / "a_ids.png", mask(7))
    dataset = load_data(f"masks:{tmp_path}?images=test&masks=truth&suffix=_ids.png")
    assert (dataset.truth(0) == 7).all()


def test_maps_beside_their_images_are_no_images(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", picture(size=SIZE))
    save(tmp_path / "a.depth.png", Image.fromarray(np.full(SIZE, 1500, np.uint16)))
    dataset = load_data(f"depth:{tmp_path}?images=.&depth=.&suffix=.depth.png")
    assert (dataset.task, len(dataset), dataset.name(0)) == ("depth", 1, str(tmp_path / "a.jpg"))
    assert np.allclose(dataset.truth(0), 1.5)


def test_depths_are_metres_where_something_was_seen(tmp_path: Path) -> None:
    own = np.full(SIZE, 2500, np.uint16)
    own[0, :3] = 0, 65535, 40
    spec = depths(tmp_path, a=own)
    found = load_data(spec).truth(0)
    assert np.isnan(found[0, :2]).all()
    assert np.allclose([found[0, 2], found[1, 1]], [0.04, 2.5])
    assert np.allclose(load_data(f"{spec}?scale=5000").truth(0)[1], 0.5)


def test_the_map_lies_on_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images" / "a.jpg", picture(size=SIZE), exif=exif)
    save(tmp_path / "masks" / "a.png", mask().transpose(Image.Transpose.ROTATE_90))
    assert load_data(f"masks:{tmp_path}").truth(0).shape == SIZE[::-1]


def test_the_hash_follows_masks_and_their_meaning(tmp_path: Path) -> None:
    spec = masks(tmp_path, a=mask(1))
    first, void = load_data(spec).sha256, load_data(f"{spec}?ignore=4").sha256
    masks(tmp_path, a=mask(2))
    assert len({first, void, load_data(spec).sha256}) == 3
    masks(tmp_path, a=mask(1))
    assert load_data(spec).sha256 == first


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (mask().convert("RGB"), r"holds colours \(mode RGB\); one number for each pixel"),
        (mask().convert("RGBA"), r"holds colours \(mode RGBA\)"),
        (mask().resize((16, 12)), r"a.png is 16x12 and its image .*a.jpg 32x24"),
        (mask(300, np.uint16), r"values from 300 to 300; class ids from 0 to 254"),
        (mask(-1, np.int32), r"values from -1 to -1; class ids from 0 to 254"),
    ],
)
def test_a_bad_mask_is_named(tmp_path: Path, own: Image.Image, message: str) -> None:
    path = tmp_path / "masks" / "a.png"
    spec = masks(tmp_path, a=mask())
    path.unlink()
    save(path, own, format="TIFF")
    with pytest.raises(BadData, match=f"mask .*{message}") as error:
        load_data(spec).truth(0)
    assert "a.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_or_vanished_mask_is_named(tmp_path: Path) -> None:
    dataset = load_data(masks(tmp_path, a=mask(np.random.default_rng(0).integers(9, size=SIZE))))
    path = tmp_path / "masks" / "a.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadData, match=r"mask .*a\.png is corrupt or no image"):
        dataset.truth(0)
    path.write_bytes(b"")
    with pytest.raises(BadData, match=r"mask .*a\.png is corrupt or no image"):
        dataset.truth(0)
    path.unlink()
    with pytest.raises(BadData, match=r"a\.png cannot be read: No such file"):
        dataset.truth(0)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?classes=4", "classes= given in masks:.*; masks:DIR is allowed, with .* ignore, images"),
        ("?ignore=road", "ignore=road given in masks:.*; a whole number is needed"),
        ("?ignore=", "ignore= given in masks:.*; a whole number is needed"),
        ("?ignore=1.5", "ignore=1.5 given"),
        ("?", "a.* has"),
        ("?nonsense", "nonsense= given"),
        ("?images=nowhere", r"no images in .*nowhere; name the folders by masks:DIR\?images=NAME"),
        ("?images=empty", "no images in .*empty"),
        ("?masks=nowhere", r"no mask for any of 1 images, e.g. .*nowhere/a\.png"),
        ("?masks=empty", "no mask for any of 1 images"),
        ("?suffix=_ids.png", r"e.g. .*masks/a_ids\.png; the same stem is needed"),
    ],
)
def test_a_bad_spec_is_answered(tmp_path: Path, query: str, message: str) -> None:
    spec = masks(tmp_path, a=mask())
    (tmp_path / "empty").mkdir()
    if query == "?":
        assert len(load_data(spec + query)) == 1
        return
    with pytest.raises(BadData, match=message) as error:
        load_data(spec + query)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", ["0", "-1000", "1e-300", "nan", "inf", "mm"])
def test_a_bad_scale_is_answered(tmp_path: Path, scale: str) -> None:
    spec = depths(tmp_path, a=np.ones(SIZE, np.uint16))
    with pytest.raises(BadData, match=f"scale={scale}"):
        load_data(f"{spec}?scale={scale}")


def test_a_bare_kind_is_refused() -> None:
    for kind in ("masks", "depth"):
        with pytest.raises(BadData, match=f"{kind}:DIR"):
            load_data(f"{kind}:")
        with pytest.raises(BadData, match=f"{kind}:.* given; {kind}:DIR is allowed"):
            load_data(f"{kind}:?suffix=.png")


@pytest.mark.data
def test_the_real_sets_are_read(data: Path) -> None:
    camvid = load_data(f"masks:{data}/camvid?images=test&masks=testannot&ignore=11")
    assert len(camvid) == 233
    assert set(np.unique(camvid.truth(0))) <= {*range(11), 255}
    coco = load_data(f"masks:{data}/coco_val128?ignore=0")
    assert (len(coco), len(coco.labelled())) == (128, 100)
    seen = load_data(f"depth:{data}/rgbd_7scenes?images=.&depth=.&suffix=.depth.png")
    assert len(seen) == 200
    assert 1.5 < np.nanmedian(seen.truth(0)) < 2.5
