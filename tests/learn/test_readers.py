"""Each layout gives the samples that its files say; what does not fit is refused in one line."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.errors import BadData
from roadworthy.learn.readers import Origin, read_captions, read_spec
from roadworthy.learn.sample import Sample
from roadworthy.learn.sources import source


def png(width: int = 8, height: int = 6) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (width, height)).save(held, "PNG")
    return held.getvalue()


def gray(value: int) -> bytes:
    held = io.BytesIO()
    Image.new("L", (8, 6), value).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize(
    ("said", "blamed"),
    [
        ({"captions": (" ",)}, "empty caption"),
        ({"mask": np.zeros((8, 6), np.uint8)}, "8x6 and its mask 6x8"),
        ({"depth": np.zeros((6, 7), np.float32)}, "depth map 7x6"),
        ({"boxes": np.array([[0.0, 0, 9, 6]]), "box_labels": ("car",)}, "inside 8x6"),
        ({"boxes": np.array([[2.0, 2, 2, 6]]), "box_labels": ("car",)}, "x1 < x2"),
        ({"boxes": np.array([[0.0, 0, 1, 1]])}, "1 boxes and 0 class names"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(said: dict[str, object], blamed: str) -> None:
    with pytest.raises(BadData, match=blamed):
        Sample(png(), "a.png", "s", **said)  # pyright: ignore[reportArgumentType]


def test_masks_bring_the_names_of_their_ids(tmp_path: Path) -> None:
    for folder, image in (("images", png()), ("masks", gray(1))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(image)
    spec = f"masks:{tmp_path}"
    assert next(read_spec(spec, Origin("s"))).mask_labels == ()
    (tmp_path / "own.txt").write_text("road\n\nsky\n")
    named = source(f"{spec}?names=own.txt", "segmentation", 32)
    assert named.classes == ("road", "sky")
    (tmp_path / "classes.yaml").write_text("names: [road]\n")
    with pytest.raises(BadData, match="beyond its 1 classes"):
        source(spec, "segmentation", 32)


@pytest.mark.parametrize("text", ["", "image,caption\n", "image,caption\na.png, \n", "a,b\nc,d\n"])
def test_listings_without_captions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "captions.txt").write_text(text)
    with pytest.raises(BadData, match="caption"):
        list(read_captions(tmp_path / "captions.txt", tmp_path, Origin("s")))


def test_every_layout_of_the_real_sets(data: Path) -> None:
    flickr = data / "flickr8k_1000"
    captioned = list(read_captions(flickr / "captions.txt", flickr / "images", Origin("flickr8k")))
    assert (len(captioned), sum(len(each.captions) for each in captioned)) == (1000, 5000)
    coco = list(read_spec(f"yolo:{data / 'coco_val128'}", Origin("coco")))
    assert (len(coco), sum(len(each.box_labels) for each in coco)) == (128, 898)
    cells = [f"voc:{data / 'bccd'}?split={split}" for split in ("trainval", "test")]
    splits = [list(read_spec(spec, Origin("bccd"))) for spec in cells]
    assert sum(map(len, splits)) == 364
    assert {n for part in splits for s in part for n in s.box_labels} == {"RBC", "WBC", "Platelets"}
    camvid = f"masks:{data / 'camvid'}?images=val&masks=valannot&ignore=11"
    masked = list(read_spec(camvid, Origin("camvid", split="val")))
    assert len(masked) == 101
    assert all(each.mask is not None and each.mask.shape == (360, 480) for each in masked)
    depths = f"depth:{data / 'rgbd_7scenes'}?images=.&depth=.&suffix=.depth.png"
    first = next(read_spec(depths, Origin("7scenes")))
    assert first.depth is not None
    assert 0.1 < np.nanmedian(first.depth) < 10
    tiny = next(read_spec(f"npz:{data / 'tiny_imagenet' / 'val.npz'}", Origin("tiny_imagenet")))
    assert len(tiny.labels) == 1
