"""Every data set of the benchmark, read from its official layout; torchvision reads the same."""

import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layouts import colour, put, rows
from layouts_all import WRITERS

from roadworthy.core.sources import decode
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.gvb.entries import ENTRIES, entry
from roadworthy.learn.gvb.entry import Entry
from roadworthy.learn.gvb.files import from_pickle
from roadworthy.learn.gvb.part import Part
from roadworthy.learn.holding import hold

CLASSES = {"caltech101": 2, "retinopathy": 5, "fer2013": 7, "pcam": 2, "svhn": 10}
"""Of what `layouts` writes; 3 of all other sets of classes."""


def small(name: str) -> Entry:
    """The entry as if the official release had as few classes as what is written here."""
    found = entry(name)
    if found.task != "classification":
        return found
    return replace(found, classes=CLASSES.get(name, 3))


def written(name: str, root: Path) -> tuple[Entry, Part, Part]:
    counts = WRITERS[name](root)
    known = replace(small(name), sizes=counts)
    return known, known.open(root, "train"), known.open(root, "test")


def test_there_are_26_and_each_has_a_layout_here() -> None:
    names = [each.name for each in ENTRIES]
    assert len(names) == len(set(names)) == 26
    assert sorted(names) == sorted(WRITERS)
    tasks = Counter(each.task for each in ENTRIES)
    assert tasks == {"classification": 20, "detection": 3, "segmentation": 1, "depth": 2}
    with pytest.raises(BadInput, match="cifar10, cifar100"):
        entry("cifar")


@pytest.mark.parametrize("name", WRITERS)
def test_the_official_layout_is_read(name: str, tmp_path: Path) -> None:
    known, *parts = written(name, tmp_path)
    for part, half, size in zip(parts, ("train", "test"), known.sizes, strict=True):
        assert len(part) == len(set(part.names)) == size
        samples = list(part)
        assert {(each.source, each.split, each.licence) for each in samples} == {
            (name, half, known.licence)
        }
        for number, sample in enumerate(samples):
            decode(sample.image, sample.name)
            assert sample.annotated
            if part.labels:
                assert sample.labels == (part.classes[part.labels[number]],)
    train, test = parts
    assert not {each.sha256 for each in train} & {each.sha256 for each in test} or name in (
        "cifar10", "voc0712", "widerface", "citypersons", "kinetics700", "pcam", "svhn",
    )  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_another_layout_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    known = small(name)
    with pytest.raises(BadData, match=r"expected in .*no such folder found|is missing or damaged"):
        known.open(tmp_path, "train")
    (tmp_path / known.folder).mkdir(parents=True)
    put(tmp_path / known.folder / "readme.txt", "")
    with pytest.raises(BadData) as refused:
        known.open(tmp_path, "test")
    assert "\n" not in str(refused.value)
    assert "readme.txt" in str(refused.value)
    assert "expected" in str(refused.value)


SAME = {
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}),
    "food101": ("Food101", {"split": "train"}, {"split": "test"}),
    "pets": ("OxfordIIITPet", {"split": "trainval"}, {"split": "test"}),
    "flowers102": ("Flowers102", None, {"split": "test"}),
    "cars": ("StanfordCars", {"split": "train"}, {"split": "test"}),
    "dtd": ("DTD", None, {"split": "test"}),
    "aircraft": ("FGVCAircraft", {"split": "trainval"}, {"split": "test"}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
    "fer2013": ("FER2013", {"split": "train"}, {"split": "test"}),
    "gtsrb": ("GTSRB", {"split": "train"}, {"split": "test"}),
    "pcam": ("PCAM", {"split": "train"}, {"split": "test"}),
    "voc2012": ("VOCSegmentation", {"image_set": "train"}, {"image_set": "val"}),
}


@pytest.fixture
def any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision looks at the hashes of the real files."""
    import torchvision.datasets as known

    for module in ("cifar", "flowers102", "svhn", "fer2013"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_, **__: True)
    for each in (known.CIFAR10, known.CIFAR100):
        monkeypatch.setitem(each.meta, "md5", None)


@pytest.mark.usefixtures("any_content")
@pytest.mark.parametrize("name", SAME)
def test_torchvision_reads_the_same(name: str, tmp_path: Path) -> None:
    import torchvision.datasets

    kind, *splits = SAME[name]
    _, *parts = written(name, tmp_path)
    for part, split in zip(parts, splits, strict=True):
        if split is None:  # two of its splits are one here
            continue
        root = tmp_path / name if name == "svhn" else tmp_path
        theirs = getattr(torchvision.datasets, kind)(root, **split)
        assert len(theirs) == len(part)
        for sample, (image, target) in zip(part, theirs, strict=True):
            pixels = np.asarray(image.convert("RGB"))
            assert (np.asarray(decode(sample.image, sample.name)) == pixels).all()
            if name == "voc2012":
                assert (sample.mask == np.asarray(target)).all()
            else:
                assert sample.labels == (part.classes[target],)


def red(sample: Any) -> int:
    """The colour that `layouts` gave an image, which tells which it is."""
    return int(np.asarray(decode(sample.image, sample.name))[0, 0, 1])


def test_faces_are_read_in_little_more_memory_than_their_text_takes(tmp_path: Path) -> None:
    head, pixels = ["emotion", "pixels", "Usage"], " ".join(str(100 + i % 156) for i in range(2304))
    held = [[i % 7, pixels, "Training"] for i in range(300)]
    path = tmp_path / "fer2013/fer2013.csv"
    rows(path, head, *held)
    tracemalloc.start()
    part = small("fer2013").open(tmp_path, "train")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2 * path.stat().st_size
    seen = np.asarray(decode(part[299].image, "face"))[..., 0]
    assert seen.ravel().tolist() == [100 + i % 156 for i in range(2304)]
    rows(path, head, [0, pixels.replace("255", "256"), "Training"])
    with pytest.raises(BadData, match="an emotion of 0 to 6 and 48 x 48 pixels is expected"):
        small("fer2013").open(tmp_path, "train")


def test_training_and_validation_images_of_few_are_one_part(tmp_path: Path) -> None:
    _, train, test = written("flowers102", tmp_path)
    assert [red(each) for each in train] == [4, 2, 0]
    assert train.labels == (1, 2, 0)
    assert sorted(red(each) for each in test) == [1, 3, 5, 6]
    _, train, _ = written("dtd", tmp_path)
    assert Counter(each.partition("/")[0] for each in train.names) == dict.fromkeys(
        ("banded", "dotted", "zigzagged"), 2
    )


def test_other_classes_are_refused(tmp_path: Path) -> None:
    WRITERS["pets"](tmp_path)
    with pytest.raises(BadData, match=r"37 classes expected, 3 \(Abyssinian, american_bulldog, B"):
        entry("pets").open(tmp_path, "train")
    WRITERS["imagenet"](tmp_path)
    known = small("imagenet")
    (tmp_path / "imagenet/val/n99999999").mkdir()
    with pytest.raises(BadData, match=r"val names class 'n99999999'; 3 \(n01440764, "):
        known.open(tmp_path, "test")
    known.open(tmp_path, "train")
    shutil.rmtree(tmp_path / "imagenet/train/n01440764")
    (tmp_path / "imagenet/train/n01440764").mkdir()
    with pytest.raises(BadData, match=r"no training image of classes 1 \(n01440764\)"):
        known.open(tmp_path, "train")


def test_a_test_class_without_an_image_is_told(tmp_path: Path) -> None:
    _, _, test = written("gtsrb", tmp_path)
    assert test.told == ("no image of classes 1 (00000)",)
    assert test.empty == ("00000",)


def test_another_number_of_images_is_told(tmp_path: Path) -> None:
    WRITERS["cars"](tmp_path)
    assert small("cars").open(tmp_path, "train").told == ("3 images, 8144 officially",)


def test_images_that_are_listed_and_not_there_are_refused(tmp_path: Path) -> None:
    _, train, _ = written("food101", tmp_path)
    (tmp_path / "food-101/images" / train.names[0]).unlink()
    with pytest.raises(BadData, match=r"1 \(waffles/1.jpg\) listed and not there; 4 images"):
        small("food101").open(tmp_path, "train")


def test_images_without_a_class_are_told(tmp_path: Path) -> None:
    known, _, _ = written("retinopathy", tmp_path)
    for name in ("99_left.jpeg", "readme.csv"):
        put(tmp_path / "diabetic-retinopathy-detection/train" / name, b"")
    assert known.open(tmp_path, "train").told == ("1 (99_left.jpeg) without a class",)


def test_images_without_annotations_are_refused_or_told(tmp_path: Path) -> None:
    known, train, _ = written("voc0712", tmp_path)
    (tmp_path / "VOCdevkit/VOC2007/Annotations/000005.xml").unlink()
    with pytest.raises(BadData, match=r"Annotations: 1 \(000005.xml\) listed and not there"):
        known.open(tmp_path, "train")
    with pytest.raises(BadData, match=r"annotation .*000005\.xml is missing"):
        train[0]
    _, train, _ = written("kitti", tmp_path)
    assert train.told[0].startswith("1 (2011_09_26/2011_09_26_drive_0005_sync/image_02/data/00")
    assert train.told[0].endswith("without a depth map")
    known, _, _ = written("citypersons", tmp_path)
    next((tmp_path / "cityscapes/gtBboxCityPersons/val").glob("*/*.json")).unlink()
    with pytest.raises(BadData, match=r"gtBboxCityPersons/val: 1 .* listed and not there"):
        known.open(tmp_path, "test")


def test_videos_show_their_middle_and_may_be_gone(tmp_path: Path) -> None:
    _, train, test = written("kinetics700", tmp_path)
    assert train.classes[2] == "using a wrench (tool)"
    assert train.told == ("1 (abseiling/gone_000003_000013.mp4) listed and not there",)
    middle = np.asarray(decode(test[0].image, "middle"))
    assert abs(int(middle.mean()) - 90) < 6  # of 0, 30 ... 150 the fourth
    put(tmp_path / "kinetics700/val/abseiling/id0_000010_000020.mp4", b"nothing")
    with pytest.raises(BadData, match=r"video .*id0_000010_000020\.mp4 cannot be read"):
        test[0]


def test_voc_neither_learns_nor_judges_difficult_objects(tmp_path: Path) -> None:
    _, train, test = written("voc0712", tmp_path)
    assert train.names == ("VOC2007/JPEGImages/000005.jpg", "VOC2012/JPEGImages/2008_1.jpg")
    assert train[0].box_labels == ("dog",)
    assert test.target is not None
    target = test.target(0)
    assert target.boxes.tolist() == [[0, 0, 4, 6], [2, 1, 8, 6]]
    assert [test.classes[i] for i in target.classes] == ["dog", "person"]
    assert target.ignored["all"].tolist() == [False, True]


def test_wider_face_asks_for_what_its_own_lists_say(tmp_path: Path) -> None:
    _, train, test = written("widerface", tmp_path)
    assert train[0].boxes is not None
    assert train[0].boxes.tolist() == [[1, 1, 4, 4]]  # one has no area, one is invalid
    assert train[1].box_labels == ()
    assert train.target is None
    assert test.target is not None
    target = test.target(0)
    assert target.boxes.tolist() == [[1, 1, 4, 4], [0, 0, 0, 4], [4, 2, 13, 5]]
    assert target.ignored["easy"].tolist() == [False, True, True]
    assert target.ignored["hard"].tolist() == [False, True, False]
    assert test.target(1).boxes.shape == (0, 4)


def test_citypersons_judges_by_height_and_visible_share(tmp_path: Path) -> None:
    _, train, test = written("citypersons", tmp_path)
    assert train[0].box_labels == ("pedestrian",) * 3
    assert test.target is not None
    ignored = test.target(0).ignored
    assert ignored["reasonable"].tolist() == [False, True, True, True, True]
    assert ignored["heavy"].tolist() == [True, False, True, True, True]


def test_depths_are_metres_and_holes_are_nan(tmp_path: Path) -> None:
    _, train, _ = written("kitti", tmp_path)
    depth = train[0].depth
    assert depth is not None
    assert np.isnan(depth[:3]).all()
    assert (depth[3:] == 10).all()
    known, train, test = written("nyuv2", tmp_path)
    assert [float(each.depth[0, 0]) for each in train if each.depth is not None] == [3.5, 1.5]
    assert all(each.depth is not None and (each.depth > 0).all() for each in train)
    assert red(test[0]) == 1
    assert decode(test[0].image, "image").size == colour(0).size
    measured = test[0].depth
    assert measured is not None
    assert np.isnan(measured[:2]).all()
    assert (measured[2:] == 2.75).all()
    WRITERS["nyuv2"](tmp_path / "other")
    with h5py.File(tmp_path / "other/nyuv2/nyu_depth_v2_labeled.mat", "a") as file:
        del file["rawDepths"]
    known.open(tmp_path / "other", "train")
    with pytest.raises(BadData, match=r"labeled.mat is missing or damaged: .*rawDepths"):
        known.open(tmp_path / "other", "test")


@pytest.mark.parametrize("stored", [".png", ".jpg"])
def test_lists_of_kitti_may_name_jpeg_files(stored: str, tmp_path: Path) -> None:
    known, train, _ = written("kitti", tmp_path)
    path = tmp_path / "kitti/eigen_train_files.txt"
    path.write_text(path.read_text().replace(".png", ".jpg"))
    for each in (tmp_path / "kitti/raw").rglob("*.png"):
        each.rename(each.with_suffix(stored))
    found = known.open(tmp_path, "train")
    assert found.names == tuple(name.replace(".png", stored) for name in train.names)
    assert found.told[0].startswith("1 (2011_09_26/2011_09_26_drive_0005_sync/image_02/data/00")
    depth = found[0].depth
    assert depth is not None
    assert np.isfinite(depth).any()
    assert red(found[0]) == 5


def test_a_pickle_that_would_run_something_does_not(tmp_path: Path) -> None:
    path = put(tmp_path / "batches.meta", b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(BadData, match=r"holds (posix|os)\.system"):
        from_pickle(path, "label_names")


def test_pickles_of_older_arrays_are_read(tmp_path: Path) -> None:
    WRITERS["cifar100"](tmp_path)
    path = tmp_path / "cifar-100-python/test"
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (data,) = from_pickle(put(tmp_path / "old", old), "data")
    assert (data == from_pickle(path, "data")[0]).all()


def test_a_part_is_what_stages_hold(tmp_path: Path) -> None:
    _, train, test = written("pets", tmp_path)
    held = hold(test.some([2, 0]), test.task, 32, train.classes)
    assert held.content.labels is not None
    assert held.content.labels.tolist() == [2, 0]
    assert held.classes == train.classes


def test_some_of_a_part_are_read_by_their_own_numbers(tmp_path: Path) -> None:
    _, train, _ = written("cifar10", tmp_path)
    some = train.some([7, 2]).some([1, 0])
    assert some.names == (train.names[2], train.names[7])
    assert [red(each) for each in some] == [red(train[2]), red(train[7])]
    assert some.labels == (train.labels[2], train.labels[7])
