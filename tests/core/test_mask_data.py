"""Data specs of images with outlines, good and bad."""

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as packed
from images_on_disk import picture, save
from PIL import Image

from roadworthy.core.data import Dataset, load_data
from roadworthy.errors import BadData

TWO = "names: [cat, dog]\n"
# The left half, and a triangle of the lower right corner.
HALF, CORNER = "1 0 0 .5 0 .5 1 0 1", "0 1 0 1 1 .5 1"


def folder(root: Path, labels: dict[str, str | None], inner: str = "labels") -> str:
    for name, text in labels.items():
        save(root / "images" / f"{name}.png", picture(size=(40, 80)))
        if text is not None:
            (root / inner).mkdir(exist_ok=True)
            (root / inner / f"{name}.txt").write_text(text)
    (root / "classes.yaml").write_text(TWO)
    return f"instances:{root}"


def pixels(dataset: Dataset, index: int = 0) -> list[np.ndarray]:
    return [packed.decode(mask) for mask in dataset.truth(index)["mask"]]


def test_outlines_are_boxes_and_masks_in_pixels_of_the_file(tmp_path: Path) -> None:
    dataset = load_data(folder(tmp_path, {"a": f"{HALF}\n\n{CORNER}\n", "b": ""}))
    assert (dataset.task, dataset.classes, len(dataset)) == ("instances", ("cat", "dog"), 2)
    truth = dataset.truth(0)
    assert truth["row"].tolist() == [[0, 0, 40, 40, 0, 1], [40, 0, 80, 40, 0, 0]]
    half, corner = pixels(dataset)
    assert half.shape == (40, 80)
    assert half[:, :40].all()
    assert not half[:, 40:].any()
    assert int(corner.sum()) == pytest.approx(800, rel=0.05)
    assert corner[39, 79] > corner[0, 41]
    assert len(dataset.truth(1)) == 0


def test_masks_follow_the_upright_image(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": HALF})
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images/a.png").unlink()
    save(tmp_path / "images/a.jpg", picture(size=(40, 80)), exif=exif)
    [mask] = pixels(load_data(spec))
    assert mask.shape == (80, 40)
    assert mask[:, :20].all()


def test_without_a_file_an_image_is_empty_or_unknown(tmp_path: Path) -> None:
    ultralytics = load_data(folder(tmp_path / "one", {"a": HALF, "b": None}))
    assert len(ultralytics.truth(1)) == 0
    some = load_data(folder(tmp_path / "two", {"a": HALF, "b": None}, "instances"))
    assert some.truth(1) is None
    assert len(some.labelled()) == 1
    none = load_data(folder(tmp_path / "three", {"a": None}))
    assert none.truth(0) is None
    with pytest.raises(BadData, match=r"no labels to judge by.*instances:DIR"):
        none.labelled()


def test_ids_of_the_files_are_taken_on_request(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": HALF.replace("1", "90", 1)})
    with pytest.raises(BadData, match=r"class 90 given; 0 to 1 are allowed; \?ids=file"):
        load_data(spec)
    dataset = load_data(f"{spec}?ids=file")
    assert dataset.truth(0)["row"][0, 5] == 90
    assert len(dataset.classes) == 91
    with pytest.raises(BadData, match="only \\?ids=file"):
        load_data(f"{spec}?ids=coco")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 .5 .5 .2 .2", r"three corners or more \(yolo: reads boxes\)"),
        ("0 .1 .1 .2 .2 .3", "three corners or more"),
        ("0 .1 .1 .2 .2 .3 .4 .5", "three corners or more"),
        ("cat .1 .1 .2 .2 .3 .1", "class x1 y1"),
        ("0 .1 .1 .2 .2 .3 nan", "class x1 y1"),
        ("0 10 10 20 20 30 10", "shares of width and height, 0 to 1"),
        ("2 .1 .1 .2 .2 .3 .1", "class 2 given; 0 to 1 are allowed"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadData, match=r"labels/a\.txt, line 2: .*" + message) as error:
        load_data(folder(tmp_path, {"a": f"{HALF}\n{text}"}))
    assert "\n" not in str(error.value)


def test_the_hash_is_of_outlines_and_of_no_place(tmp_path: Path) -> None:
    one = load_data(folder(tmp_path / "one", {"a": HALF}))
    moved = load_data(folder(tmp_path / "two", {"a": HALF}))
    # The box is the same.
    other = load_data(folder(tmp_path / "three", {"a": "1 0 0 .5 0 .5 .9 .4 1 0 1"}))
    assert np.array_equal(one.truth(0)["row"], other.truth(0)["row"])
    assert one.sha256 == moved.sha256 != other.sha256


SQUARE = [10.0, 10, 30, 10, 30, 20, 10, 20]
LENGTHS = packed.encode(np.asfortranarray(np.eye(40, 80, dtype=np.uint8)))


def coco(root: Path, segmentation: object, **image: object) -> str:
    save(root / "a.png", picture(size=(40, 80)))
    held = {
        "images": [{"id": 7, "file_name": "a.png", "width": 80, "height": 40} | image],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 10, 20, 10], "iscrowd": 1}
            | {"segmentation": segmentation},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    }
    (root / "all.json").write_text(json.dumps(held))
    return f"instances:{root}@all.json"


def test_polygons_of_several_parts_are_one_mask(tmp_path: Path) -> None:
    other = [50, 10, 60, 10, 60, 20, 50, 20]
    dataset = load_data(coco(tmp_path, [SQUARE, other]))
    assert (dataset.task, dataset.classes, dataset.ranked) == ("instances", ("car", "dog"), True)
    assert dataset.truth(0)["row"].tolist() == [[10, 10, 30, 20, 1, 1]]
    [mask] = pixels(dataset)
    assert mask.sum() == 300
    assert mask[10:20, 10:30].all()
    assert mask[10:20, 50:60].all()
    assert load_data(coco(tmp_path, [SQUARE]) + "?ids=file").truth(0)["row"][0, 5] == 18


def test_run_lengths_are_masks_packed_or_not(tmp_path: Path) -> None:
    counts = {"size": [40, 80], "counts": LENGTHS["counts"].decode()}
    [mask] = pixels(load_data(coco(tmp_path, counts)))
    assert np.array_equal(mask, np.eye(40, 80))
    plain = {"size": [40, 80], "counts": [400, 40, 2760]}
    [mask] = pixels(load_data(coco(tmp_path, plain)))
    assert mask[:, 10].all()
    assert mask.sum() == 40


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "segmentation None given on an image of 80x40; lists of x y"),
        ([], r"segmentation \[\] given"),
        ([[1, 2, 3, 4]], "three corners or more"),
        ([[1, 2, 3, 4, 5, "six"]], "three corners or more"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three corners or more"),
        ([[1, 2, 3, 1e9, 5, 6]], "in or near the image"),
        ({"size": [80, 40], "counts": [3200]}, "size and counts of run lengths"),
        ({"size": [40, 80], "counts": [3000]}, "cover 3000 pixels and its image has 3200"),
        ({"size": [40, 80], "counts": [-5, 3205]}, "damaged"),
        ({"size": [40, 80], "counts": ["a"]}, "damaged"),
        ({"size": [40, 80], "counts": "PPPPPPPPPPPPPPPPPPPPP"}, "damaged"),
        ({"size": [40, 80], "counts": "é"}, "cover|damaged"),
    ],
)
def test_a_wrong_segmentation_is_named(tmp_path: Path, segmentation: object, message: str) -> None:
    with pytest.raises(BadData, match=r"all\.json, annotation 1: .*" + f"({message})") as error:
        load_data(coco(tmp_path, segmentation))
    assert "\n" not in str(error.value)


def test_run_lengths_are_of_the_annotated_size_only(tmp_path: Path) -> None:
    counts = {"size": [80, 160], "counts": [12800]}
    dataset = load_data(coco(tmp_path, counts, width=160, height=80))
    with pytest.raises(BadData, match=r"a\.png is 80x40 and has a run-length mask of 160x80"):
        dataset.truth(0)
    scaled = [2 * number for number in SQUARE]
    [mask] = pixels(load_data(coco(tmp_path, [scaled], width=160, height=80)))
    assert mask[10:20, 10:30].sum() == mask.sum() == 200


def test_other_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no images in"):
        load_data(f"instances:{tmp_path}")
    with pytest.raises(BadData, match=r"instances:IMAGES@annotations\.json is allowed"):
        load_data(f"instances:{tmp_path}@")
    with pytest.raises(BadData, match="cannot be read"):
        load_data(f"instances:{tmp_path}@none.json")


@pytest.mark.data
def test_coco_val128_has_outlines_of_100_images(data: Path) -> None:
    dataset = load_data(f"instances:{data / 'coco_val128'}?ids=file").labelled()
    truths = [dataset.truth(i) for i in range(len(dataset))]
    assert (len(truths), sum(map(len, truths))) == (100, 712)
    boxes = np.concatenate([truth["row"][:, :4] for truth in truths])
    x, y, w, h = packed.toBbox([mask for truth in truths for mask in truth["mask"]]).T
    off = np.abs(boxes - np.stack([x, y, x + w, y + h], 1))
    # Edges of a raster are whole pixels; where parts of an object are joined by a line, the line is
    # no pixel wide.
    assert np.median(off) < 0.01
    assert np.quantile(off, 0.95) < 1.01
