"""Data sets of image files in the layout of their official releases, one class for each image."""

from collections.abc import Iterable
from pathlib import Path

from roadworthy.learn.gvb.files import from_json, from_mat, lines, table
from roadworthy.learn.gvb.part import (
    Half,
    Part,
    Row,
    array,
    damaged,
    foldered,
    number_of,
    numbered,
    pictures,
    subfolders,
)
from roadworthy.learn.gvb.subsets import by_class, first, stratified
from roadworthy.learn.readers import Origin

SEED = 0
"""Of the splits of those sets that come without one."""


def food101(folder: Path, half: Half, origin: Origin) -> Part:
    """``meta/{train,test}.json`` lists the images of each class below ``images/``."""
    path = folder / "meta" / f"{half}.json"
    listing = from_json(path, "a list of images for each class")
    if not isinstance(listing, dict) or not all(isinstance(e, list) for e in listing.values()):
        raise damaged(path, f"a {type(listing).__name__}", "a list of images for each class")
    classes = sorted(map(str, listing))
    numbers = numbered(classes)
    rows = ((f"{name}.jpg", numbers[each]) for each, names in listing.items() for name in names)
    return pictures(folder / "images", rows, classes, origin)


def pets(folder: Path, half: Half, origin: Origin) -> Part:
    """``annotations/{trainval,test}.txt``: image, class from 1, species, breed."""
    name = "trainval" if half == "train" else half
    path = folder / "annotations" / f"{name}.txt"
    held = lines(path, "image, class, species, breed", 4)
    rows = [(f"{image}.jpg", _from_one(path, label)) for image, label, *_ in held]
    breeds = {label: image.rsplit("_", 1)[0] for image, label in rows}
    classes = [breeds.get(i, f"class {i + 1}") for i in range(max(breeds) + 1)]
    return pictures(folder / "images", rows, classes, origin)


def _from_one(path: Path, text: str) -> int:
    """A number that counts from 1, as one that counts from 0."""
    if not text.isdecimal() or int(text) < 1:
        raise damaged(path, f"class {text!r}", "a number from 1")
    return int(text) - 1


def flowers102(folder: Path, half: Half, origin: Origin) -> Part:
    """``jpg/``, ``imagelabels.mat`` and ``setid.mat``; training and validation images train."""
    (labels,) = from_mat(folder / "imagelabels.mat", "labels")
    chosen = ("trnid", "valid") if half == "train" else ("tstid",)
    sets = from_mat(folder / "setid.mat", *chosen)
    numbers = [int(i) for each in sets for i in array(each)]
    if max(numbers) > len(array(labels)):
        raise damaged(folder / "setid.mat", f"image {max(numbers)}", f"1 to {len(labels)}")
    rows = ((f"image_{i:05d}.jpg", int(array(labels)[i - 1]) - 1) for i in numbers)
    classes = [str(i + 1) for i in range(int(array(labels).max()))]
    return pictures(folder / "jpg", rows, classes, origin)


def sun397(folder: Path, half: Half, origin: Origin) -> Part:
    """``ClassName.txt`` and the first partition, ``Partitions/{Training,Testing}_01.txt``."""
    classes = [name for (name,) in lines(folder / "ClassName.txt", "a class", 1)]
    numbers = numbered(classes)
    path = folder / "Partitions" / f"{'Training' if half == 'train' else 'Testing'}_01.txt"
    images = [name for (name,) in lines(path, "an image", 1)]
    rows = [(name[1:], number_of(numbers, name.rpartition("/")[0], path)) for name in images]
    return pictures(folder, rows, classes, origin)


def cars(folder: Path, half: Half, origin: Origin) -> Part:
    """``devkit/`` and ``cars_{train,test}/``; the test classes in a file of their own."""
    (names,) = from_mat(folder / "devkit" / "cars_meta.mat", "class_names")
    listing = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    path = folder / listing[half]
    (held,) = from_mat(path, "annotations")
    try:
        rows = [(str(each["fname"]), int(each["class"]) - 1) for each in array(held)]
    except (IndexError, ValueError, TypeError) as error:
        raise damaged(path, error, "annotations with fname and class") from error
    classes = [str(name) for name in array(names)]
    return pictures(folder / f"cars_{half}", rows, classes, origin, own=True)


def dtd(folder: Path, half: Half, origin: Origin) -> Part:
    """The first of ten partitions, ``labels/{train,val,test}1.txt``; ``val`` trains too."""
    classes = subfolders(folder / "images")
    numbers = numbered(classes)
    rows: list[Row] = []
    for name in ("train", "val") if half == "train" else ("test",):
        path = folder / "labels" / f"{name}1.txt"
        listed = [image for (image,) in lines(path, "an image", 1)]
        rows += [(each, number_of(numbers, each.partition("/")[0], path)) for each in listed]
    return pictures(folder / "images", rows, classes, origin)


def aircraft(folder: Path, half: Half, origin: Origin) -> Part:
    """Variants: ``data/images_variant_{trainval,test}.txt``, image and class."""
    classes = [name for (name,) in lines(folder / "data" / "variants.txt", "a variant", 1)]
    numbers = numbered(classes)
    name = "trainval" if half == "train" else half
    path = folder / "data" / f"images_variant_{name}.txt"
    held = lines(path, "image and variant", 2)
    rows = [(f"{image}.jpg", number_of(numbers, variant, path)) for image, variant in held]
    return pictures(folder / "data" / "images", rows, classes, origin)


def caltech101(folder: Path, half: Half, origin: Origin) -> Part:
    """``101_ObjectCategories/`` without its background class.

    There is no official split: 30 images of each class train, as is usual, drawn by seed.
    """
    images = folder / "101_ObjectCategories"
    classes = [name for name in subfolders(images) if name != "BACKGROUND_Google"]
    rows = [
        (f"{name}/{path.name}", number)
        for number, name in enumerate(classes)
        for path in sorted((images / name).glob("*.jpg"))
    ]
    names = [name for name, _ in rows]
    groups = by_class([label for _, label in rows]).values()
    train = {i for each in groups for i in first(names, each, 30, SEED)}
    return pictures(images, _half(rows, train, half), classes, origin)


def eurosat(folder: Path, half: Half, origin: Origin) -> Part:
    """``2750/``, a folder for each class; no official split: four fifths train, by seed."""
    return _four_fifths(folder / "2750", half, origin)


def resisc45(folder: Path, half: Half, origin: Origin) -> Part:
    """A folder for each class; no official split: four fifths train, by seed."""
    return _four_fifths(folder, half, origin)


def _four_fifths(folder: Path, half: Half, origin: Origin) -> Part:
    classes = subfolders(folder)
    rows = list(foldered(folder, classes, (".jpg",)))
    train = stratified([name for name, _ in rows], [label for _, label in rows], 0.8, SEED)
    return pictures(folder, _half(rows, set(train), half), classes, origin)


def _half(rows: Iterable[Row], train: set[int], half: Half) -> list[Row]:
    return [row for i, row in enumerate(rows) if (i in train) == (half == "train")]


_GRADES = ("no", "mild", "moderate", "severe", "proliferative")


def retinopathy(folder: Path, half: Half, origin: Origin) -> Part:
    """``trainLabels.csv`` and ``train/``; ``retinopathy_solution.csv`` and ``test/``."""
    name = "trainLabels.csv" if half == "train" else "retinopathy_solution.csv"
    held = table(folder / name, ("image", "level"))
    try:
        rows = [(f"{each['image']}.jpeg", int(each["level"])) for each in held]
    except ValueError as error:
        raise damaged(folder / name, error, "a level of 0 to 4") from error
    return pictures(folder / half, rows, _GRADES, origin, own=True)


def gtsrb(folder: Path, half: Half, origin: Origin) -> Part:
    """``GTSRB/Training/`` by class; ``GTSRB/Final_Test/Images`` by ``GT-final_test.csv``."""
    training = folder / "GTSRB" / "Training"
    classes = subfolders(training)
    if half == "train":
        return pictures(training, foldered(training, classes, (".ppm",)), classes, origin)
    path = folder / "GT-final_test.csv"
    held = table(path, ("Filename", "ClassId"), ";")
    numbers = numbered(classes)
    rows = [(each["Filename"], number_of(numbers, each["ClassId"].zfill(5), path)) for each in held]
    return pictures(folder / "GTSRB" / "Final_Test" / "Images", rows, classes, origin, own=True)


def imagenet(folder: Path, half: Half, origin: Origin) -> Part:
    """``train/`` and ``val/``, a folder for each WordNet id; the validation images test."""
    classes = subfolders(folder / "train")
    images = folder / ("train" if half == "train" else "val")
    return pictures(images, foldered(images, classes, (".JPEG",)), classes, origin)
