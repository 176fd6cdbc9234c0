"""Data specs of images with boxes, good and bad."""

import json
from pathlib import Path

import numpy as np
import pytest
from images_on_disk import picture, save
from PIL import Image

from roadworthy.core.data import load_data
from roadworthy.errors import BadData

TWO = "names:\n  0: cat\n  1: dog\n"


def folder(root: Path, labels: dict[str, str | None], classes: str | None = TWO) -> str:
    for name, text in labels.items():
        save(root / "images" / f"{name}.png", picture(size=(40, 80)))
        if text is not None:
            (root / "labels" / f"{name}.txt").parent.mkdir(parents=True, exist_ok=True)
            (root / "labels" / f"{name}.txt").write_text(text)
    if classes is not None:
        (root / "classes.yaml").write_text(classes)
    return f"yolo:{root}"


def test_boxes_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    dataset = load_data(folder(tmp_path, {"a": "1 .5 .25 .5 .25\n\n0 .1 .1 .1 .1\n", "sub/b": ""}))
    assert (dataset.task, dataset.classes, len(dataset)) == ("detection", ("cat", "dog"), 2)
    assert np.allclose(dataset.truth(0), [[20, 5, 60, 15, 0, 1], [4, 2, 12, 6, 0, 0]])
    assert dataset.truth(1).shape == (0, 6)
    assert dataset.label(0) is None
    assert dataset.name(1).endswith("images/sub/b.png")


def test_boxes_follow_the_upright_image(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": "0 .5 .5 1 1"})
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images/a.png").unlink()
    save(tmp_path / "images/a.jpg", picture(size=(40, 80)), exif=exif)
    dataset = load_data(spec)
    assert dataset.truth(0)[0, :4].tolist() == [0, 0, *dataset.load(0).size] == [0, 0, 40, 80]


def test_edges_outside_the_image_are_clipped(tmp_path: Path) -> None:
    dataset = load_data(folder(tmp_path, {"a": "0 0.05 0.95 0.2 0.2"}))
    assert np.allclose(dataset.truth(0)[0, :4], [0, 0.85 * 40, 0.15 * 80, 40])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 .5 .5 .2", "line 2: '0 .5 .5 .2' given; class cx cy w h is needed"),
        ("0 .5 .5 .2 .2 .9", "class cx cy w h"),
        ("cat .5 .5 .2 .2", "class cx cy w h"),
        ("0.0 .5 .5 .2 .2", "class cx cy w h"),
        ("-1 .5 .5 .2 .2", "class cx cy w h"),
        ("0 .5 .5 .2 wide", "class cx cy w h"),
        ("0 .5 .5 .2 nan", "class cx cy w h"),
        ("0 .5 .5 .2 inf", "class cx cy w h"),
        ("2 .5 .5 .2 .2", "line 2: class 2 given; 0 to 1 are allowed"),
        ("9" * 5000 + " .5 .5 .2 .2", "class 9999.* given; 0 to 1 are allowed"),
        ("0 120 80 30 30", "shares of width and height, 0 to 1"),
        ("0 .5 .5 -.2 .2", "shares of width and height, 0 to 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    spec = folder(tmp_path, {"a": "0 .5 .5 .2 .2\n" + text})
    with pytest.raises(BadData, match=r"labels/a\.txt, line 2: .*" + message.split(": ")[-1]) as e:
        load_data(spec)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    dataset = load_data(folder(tmp_path, {"a": "3 .5 .5 .2 .2", "b": None}, classes=None))
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset.known(1)
    assert dataset.truth(1).shape == (0, 6)


def test_photos_without_labels_are_unlabelled(tmp_path: Path) -> None:
    dataset = load_data(folder(tmp_path, {"a": None, "b": None}, classes=None))
    assert dataset.task == "detection"
    assert not dataset.known(0)
    assert dataset.truth(0) is None
    with pytest.raises(BadData, match=r"no labels to judge by.*yolo:DIR"):
        dataset.labelled()


def test_labels_of_other_names_are_refused(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": None})
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text("0 .5 .5 .2 .2")
    with pytest.raises(BadData, match=r"no label file for any of 1 images, e\.g\. .*labels/a\.txt"):
        load_data(spec)


@pytest.mark.parametrize(
    "text", ["", "names: 3", "names: []", "names: {1: a}", "{", "names: {a: b}"]
)
def test_a_damaged_list_of_classes_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadData, match=r"classes\.yaml"):
        load_data(folder(tmp_path, {"a": "0 .5 .5 .2 .2"}, text))


def test_binary_labels_and_folders_without_images_are_named(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": "0 .5 .5 .2 .2"})
    (tmp_path / "labels/a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match=r"a\.txt cannot be read as text"):
        load_data(spec)
    with pytest.raises(BadData, match="no images in"):
        load_data(f"yolo:{tmp_path / 'labels'}")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    spec = folder(tmp_path, {"a": "0 .5 .5 .2 .2"})
    (tmp_path / "images/a.png").write_bytes(b"no image")
    with pytest.raises(BadData, match=r"a\.png is corrupt"):
        load_data(spec).truth(0)


def test_the_hash_is_of_boxes_too_and_of_no_place(tmp_path: Path) -> None:
    one = load_data(folder(tmp_path / "one", {"a": "0 .5 .5 .2 .2"}))
    moved = load_data(folder(tmp_path / "two", {"a": "0 .5 .5 .2 .2"}))
    other = load_data(folder(tmp_path / "three", {"a": "0 .5 .5 .2 .3"}))
    assert one.sha256 == moved.sha256 != other.sha256


def held(**changes: object) -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 80, "height": 40},
            {"id": 3, "file_name": "b.png", "width": 160, "height": 80},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 10.5, 20, 10]},
            {"id": 2, "image_id": 3, "category_id": 3, "bbox": [0, 0, 80, 40], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    } | changes


def coco(root: Path, content: object) -> str:
    for name in "ab":
        save(root / f"{name}.png", picture(size=(40, 80)))
    (root / "all.json").write_text(json.dumps(content))
    return f"coco:{root}@all.json"


def test_coco_classes_are_ranks_or_the_files_own(tmp_path: Path) -> None:
    spec = coco(tmp_path, held())
    dataset = load_data(spec)
    assert (dataset.task, dataset.classes, dataset.ranked) == ("detection", ("car", "dog"), True)
    assert np.allclose(dataset.truth(0), [[10, 10.5, 30, 20.5, 0, 1]])
    # The second file is half as large as its annotation says.
    assert np.allclose(dataset.truth(1), [[0, 0, 40, 20, 1, 0]])
    own = load_data(f"{spec}?ids=file")
    assert own.truth(0)[0, 5] == 18
    assert (own.classes[3], own.classes[18], own.ranked) == ("car", "dog", False)


def note(**changes: object) -> dict:
    return held(annotations=[held()["annotations"][0] | changes])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no annotation file"),
        (held(images=[]), "no annotation file"),
        (held(categories=[3]), "no annotation file"),
        (held(images=[*held()["images"], *held()["images"]]), "several images the same id"),
        (note(image_id=9), "annotation 1: image 9, category 18"),
        (note(category_id=9), "annotation 1: image 7, category 9"),
        (note(category_id=None), "annotation 1 has category_id None"),
        (note(bbox=[1, 2, 3]), r"annotation 1: bbox \[1, 2, 3\]"),
        (note(bbox=[1, 2, -3, 4]), "annotation 1: bbox"),
        (note(bbox=None), "annotation 1: bbox None"),
        (note(bbox=[90, 0, 5, 5]), "outside the image of 80x40"),
        (held(images=[{"id": 7, "file_name": "a.png"}]), "both sizes"),
        (held(images=[{"id": 7, "file_name": "gone.png"}], annotations=[]), "none of the 1 images"),
        (held(categories=[{"id": -1}]), "category -1 has id -1"),
    ],
)
def test_a_wrong_annotation_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(BadData, match=message) as error:
        load_data(coco(tmp_path, content))
    assert "all.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_queries_and_no_json_are_refused(tmp_path: Path) -> None:
    spec = coco(tmp_path, held())
    with pytest.raises(BadData, match="ids=file"):
        load_data(f"{spec}?ids=mine")
    for text in ("{", "[" * 100_000):
        (tmp_path / "all.json").write_text(text)
        with pytest.raises(BadData, match="cannot be read"):
            load_data(spec)
