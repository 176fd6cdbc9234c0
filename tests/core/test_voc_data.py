"""Data specs of VOC's folders, good and bad."""

from pathlib import Path

import numpy as np
import pytest
from images_on_disk import picture, save

from roadworthy.core.data import load_data
from roadworthy.errors import BadData

WIDTH, HEIGHT = 32, 24


def an_object(name: str, *box: object, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inside = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{inside}</bndbox></object>"


def voc(root: Path, split: str = "train", **annotations: str) -> str:
    """A folder with an annotated image for each name, and the split that lists them."""
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    for name, objects in annotations.items():
        save(root / "JPEGImages" / f"{name}.jpg", picture(size=(HEIGHT, WIDTH)))
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{size}{objects}</annotation>"
        )
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(annotations))
    return f"voc:{root}"


def test_pixels_count_from_one_and_the_last_is_included(tmp_path: Path) -> None:
    spec = voc(tmp_path, a=an_object("car", 1, 1, 1, HEIGHT), b=an_object("bus", 5, 7, 8, 9))
    data = load_data(f"{spec}?split=train")
    assert (data.task, data.classes, data.ranked) == ("detection", ("bus", "car"), True)
    assert data.truth(0) == pytest.approx(np.array([[0, 0, 1, HEIGHT, 0, 1]]))
    assert data.truth(1) == pytest.approx(np.array([[4, 6, 8, 9, 0, 0]]))


def test_edges_are_clipped_and_boxes_without_area_stay(tmp_path: Path) -> None:
    objects = an_object("car", 0, 0, 99, 5) + an_object("car", 3, 0, 4, 0)
    rows = load_data(voc(tmp_path, a=objects)).truth(0)
    assert rows == pytest.approx(np.array([[0, 0, WIDTH, 5, 0, 0], [2, 0, 4, 0, 0, 0]]))


def test_a_difficult_object_is_judged_neither_right_nor_wrong(tmp_path: Path) -> None:
    objects = [an_object("car", 1, 1, 5, 5, more=f"<difficult>{i}</difficult>") for i in (0, 1)]
    rows = load_data(voc(tmp_path, a="".join(objects))).truth(0)
    assert rows is not None
    assert rows[:, 4].tolist() == [0, 1]


def test_splits_share_their_classes_and_each_is_its_own_images(tmp_path: Path) -> None:
    spec = voc(tmp_path, "train", a=an_object("car", 1, 1, 5, 5))
    voc(tmp_path, "test", b=an_object("bus", 1, 1, 5, 5), c="")
    train, test, both = (load_data(spec + end) for end in ("?split=train", "?split=test", ""))
    assert train.classes == test.classes == both.classes == ("bus", "car")
    assert [len(each) for each in (train, test, both)] == [1, 2, 3]
    empty = test.truth(1)
    assert empty is not None
    assert empty.shape == (0, 6)
    assert train.sha256 != test.sha256


def test_names_may_be_those_of_a_model(tmp_path: Path) -> None:
    spec = voc(tmp_path, a=an_object("car", 1, 1, 5, 5))
    (tmp_path / "names.txt").write_text("bus\ncar\nvan\n")
    data = load_data(f"{spec}?names=names.txt")
    assert (data.classes, data.ranked) == (("bus", "car", "van"), False)
    assert data.truth(0)[0, 5] == 1
    (tmp_path / "classes.yaml").write_text("names: [bus]\n")
    with pytest.raises(BadData, match=r"a\.xml has class 'car'; bus are known"):
        load_data(spec)


@pytest.mark.parametrize(
    ("objects", "blamed"),
    [
        (an_object("car", 40, 1, 50, 5), "a box in the image"),
        (an_object("car", "nan", 1, 50, 5), "a box in the image"),
        (an_object("", 1, 1, 5, 5), "no name"),
        (an_object("car", "one", 1, 5, 5), "missing or damaged"),
        ("<object>", "missing or damaged"),
    ],
)
def test_an_annotation_that_is_none_is_named(tmp_path: Path, objects: str, blamed: str) -> None:
    with pytest.raises(BadData, match=rf"a\.xml.*{blamed}"):
        load_data(voc(tmp_path, a=objects))


@pytest.mark.parametrize(
    ("damage", "query", "blamed"),
    [
        ("", "?split=val", "split 'val' of .* given; train is there"),
        ("", "?part=train", "part= given"),
        ("", "?names=none.txt", "none.txt cannot be read"),
        ("JPEGImages/a.jpg", "", "no image a in"),
        ("Annotations/a.xml", "", "no XML file"),
        ("Annotations/a.xml", "?split=train", "no XML file"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, damage: str, query: str, blamed: str) -> None:
    spec = voc(tmp_path, a=an_object("car", 1, 1, 5, 5))
    if damage:
        (tmp_path / damage).unlink()
    with pytest.raises(BadData, match=blamed):
        load_data(spec + query)


def test_a_list_of_one_class_is_no_split(tmp_path: Path) -> None:
    spec = voc(tmp_path, a=an_object("car", 1, 1, 5, 5))
    (tmp_path / "ImageSets/Main/car_train.txt").write_text("a 1\n")
    with pytest.raises(BadData, match="no list of images"):
        load_data(f"{spec}?split=car_train")


def test_an_image_of_a_split_must_be_annotated(tmp_path: Path) -> None:
    spec = voc(tmp_path, a=an_object("car", 1, 1, 5, 5))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    with pytest.raises(BadData, match=r"b\.xml is missing or damaged"):
        load_data(f"{spec}?split=train")


def test_the_cells_of_bccd(data: Path) -> None:
    held = [load_data(f"voc:{data / 'bccd'}?split={name}") for name in ("trainval", "test")]
    assert sum(map(len, held)) == 364
    assert {each.classes for each in held} == {("Platelets", "RBC", "WBC")}
