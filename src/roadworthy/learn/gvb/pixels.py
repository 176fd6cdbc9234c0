"""Data sets whose images lie as pixels in a few files: CIFAR, SVHN, FER2013, PatchCamelyon."""

from pathlib import Path

import numpy as np

from roadworthy.errors import BadData
from roadworthy.learn.gvb.files import from_hdf5, from_mat, from_pickle, table
from roadworthy.learn.gvb.part import Half, Part, array, damaged, stored
from roadworthy.learn.readers import Origin


def cifar10(folder: Path, half: Half, origin: Origin) -> Part:
    """The Python version: ``data_batch_1`` to ``5``, ``test_batch``, ``batches.meta``."""
    train = [f"data_batch_{i}" for i in range(1, 6)]
    return _cifar(folder, train if half == "train" else ["test_batch"], "", origin)


def cifar100(folder: Path, half: Half, origin: Origin) -> Part:
    """The Python version: ``train``, ``test``, ``meta``; the 100 fine classes."""
    return _cifar(folder, [half], "fine_", origin)


def _cifar(folder: Path, names: list[str], fine: str, origin: Origin) -> Part:
    (classes,) = from_pickle(folder / ("meta" if fine else "batches.meta"), f"{fine}label_names")
    held = [from_pickle(folder / name, "data", f"{fine}labels") for name in names]
    rows = np.concatenate([np.asarray(data, np.uint8).reshape(-1, 3, 32, 32) for data, _ in held])
    labels = [label for _, each in held for label in each]
    if len(labels) != len(rows):
        raise BadData(f"{folder} has {len(rows)} images and {len(labels)} classes for them")
    return stored(lambda i: rows[i].transpose(1, 2, 0), labels, classes, origin, folder)


def svhn(folder: Path, half: Half, origin: Origin) -> Part:
    """Format 2: ``train_32x32.mat``, ``test_32x32.mat``; class 10 is the digit 0."""
    path = folder / f"{half}_32x32.mat"
    pixels, labels = from_mat(path, "X", "y")
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise damaged(path, f"X is {list(pixels.shape)}", "X of [32, 32, 3, n]")
    digits = [str(i) for i in range(10)]
    return stored(lambda i: pixels[..., i], array(labels) % 10, digits, origin, path)


_FEELINGS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def fer2013(folder: Path, half: Half, origin: Origin) -> Part:
    """``fer2013.csv`` or ``icml_face_data.csv``: emotion, pixels, Usage.

    Both of the competition's test sets, the public and the private one, are the test images.
    """
    names = ("fer2013.csv", "icml_face_data.csv")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    used = ("Training",) if half == "train" else ("PublicTest", "PrivateTest")
    rows = [each for each in table(path, ("emotion", "pixels", "Usage")) if each["Usage"] in used]
    try:
        labels = [int(each["emotion"]) for each in rows]
        # one after the other: as words at once they would take 4 GB
        faces = [np.array(each["pixels"].split(), np.uint8).reshape(48, 48) for each in rows]
    except (ValueError, OverflowError) as error:
        raise damaged(path, error, "an emotion of 0 to 6 and 48 x 48 pixels") from error
    return stored(lambda i: faces[i], labels, _FEELINGS, origin, path)


def pcam(folder: Path, half: Half, origin: Origin) -> Part:
    """``camelyonpatch_level_2_split_{train,test}_{x,y}.h5``, unpacked; images stay on disk."""
    stem = folder / f"camelyonpatch_level_2_split_{half}"
    path = stem.with_name(f"{stem.name}_x.h5")
    pixels = from_hdf5(path, "x")
    labels = np.asarray(from_hdf5(stem.with_name(f"{stem.name}_y.h5"), "y")).reshape(-1)
    if len(labels) != len(pixels):
        raise BadData(f"{path} has {len(pixels)} images and {len(labels)} classes for them")
    return stored(lambda i: pixels[i], labels, ("normal", "tumour"), origin, path)
