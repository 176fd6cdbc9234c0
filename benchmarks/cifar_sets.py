"""The CIFAR-10 sets of every figure: calibration, validation, test A, test B.

Test B is the last 200 images of each class in the JPEG test store. The store is sorted by class, so
its first 2000 images would hold two classes only; the last of each class share no image with test A
(the first 1017 of the original order), which lets statistics pool A and B.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image
from resnet_cifar import PREPROCESS

Labelled = tuple[np.ndarray, np.ndarray]


def _folder() -> Path:
    return Path(os.environ["ROADWORTHY_DATA"]) / "cifar10"


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [n h w c] to the networks' float32 [n c h w]."""
    mean, std = (np.array(PREPROCESS[k], np.float32) for k in ("mean", "std"))
    return np.ascontiguousarray(((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))


def _lossless(suffix: str) -> Labelled:
    with np.load(_folder() / "lossless.npz") as z:
        return normalised(z["x" + suffix]), z["y" + suffix]


def calibration() -> Labelled:
    """1024 training images [n 3 32 32], normalised, and labels [n] (no method here reads them)."""
    return _lossless("cal")


def test_a() -> Labelled:
    """1017 undamaged test images [n 3 32 32], normalised, and labels [n]."""
    return _lossless("te")


def validation() -> Labelled:
    """6000 JPEG training images [n 3 32 32], normalised, and labels [n]: what settings are chosen
    by. Some of them may be calibration images, none is a test image."""
    with np.load(_folder() / "train.npz") as z:
        return _decoded(z, np.random.default_rng(5).choice(len(z["label"]), 6000, replace=False))


def training() -> Labelled:
    """All 25 000 JPEG training images [n 3 32 32], normalised, and labels [n]."""
    with np.load(_folder() / "train.npz") as z:
        return _decoded(z, np.arange(len(z["label"])))


def test_b() -> Labelled:
    """2000 JPEG test images [n 3 32 32], normalised, and labels [n]."""
    with np.load(_folder() / "test.npz") as z:
        last = [np.flatnonzero(z["label"] == k)[-200:] for k in range(10)]
        return _decoded(z, np.concatenate(last))


def _decoded(store: np.lib.npyio.NpzFile, chosen: np.ndarray) -> Labelled:
    blob, ends, labels = store["jpeg"], store["offset"], store["label"].astype(np.int64)
    raw = (blob[ends[i] : ends[i + 1]].tobytes() for i in chosen)
    images = np.stack([np.asarray(Image.open(io.BytesIO(r)).convert("RGB")) for r in raw])
    return normalised(images), labels[chosen]
