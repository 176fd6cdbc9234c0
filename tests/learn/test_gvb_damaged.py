"""Listings and files of the benchmark's data sets that are damaged: refused in one line."""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from layouts import put, video
from layouts_all import WRITERS

from roadworthy.errors import BadData
from roadworthy.learn.gvb.entries import entry
from roadworthy.learn.gvb.videos import middle_frame


def shorter(text: str) -> str:
    """Without the last cell of the last row."""
    return text.rstrip().rpartition(",")[0] + "\n"


def fewer(text: str) -> str:
    """One face less than there is."""
    return text.replace("\n3\n", "\n2\n", 1)


def more(text: str) -> str:
    return text.replace("\n3\n", "\n4\n", 1)


@pytest.mark.parametrize(
    ("name", "path", "damage", "said"),
    [
        ("retinopathy", "trainLabels.csv", shorter, "row 5 below its head has 1 of 2 columns; a t"),
        ("retinopathy", "trainLabels.csv", lambda text: text + " \n", "1 of 2 columns; a table of"),
        ("food101", "meta/train.json", lambda _: '{"pie": 3}', "a list of images for each class"),
        ("fer2013", "fer2013.csv", shorter, "row 9 below its head has 2 of 3 columns"),
        ("kinetics700", "annotations/train.csv", shorter, "row 4 below its head has 4 of 5"),
        ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt", fewer,
         "at '4 2 9 3 0 0 0 1 0 0': too many values to unpack (expected 1"),
        ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt", more,
         "at '0--Parade/a_train.jpg': could not convert string to float"),
        ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt",
         lambda text: text.rsplit("\n", 2)[0], "at '0--Parade/b_train.jpg': the list ends; an"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", lambda text: text.replace("2 B", "two B"),
         "invalid literal for int() with base 10: 'two'; number and class is expected"),
        ("svhn", "train_32x32.mat", lambda _: "", "a MATLAB file with X, y is expected"),
        ("svhn", "train_32x32.mat", lambda _: "no header" * 2, "a MATLAB file with X, y is exp"),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(
    name: str, path: str, damage: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    known = entry(name)
    file = tmp_path / known.folder / path
    put(file, damage(file.read_text("latin-1").replace("\r\n", "\n")))
    begin = re.escape(f"{file} is missing or damaged: ")
    with pytest.raises(BadData, match=f"{begin}.*{re.escape(said)}") as refused:
        known.open(tmp_path, "train")
    assert "\n" not in str(refused.value)


def test_a_broken_map_is_named(tmp_path: Path) -> None:
    WRITERS["voc2012"](tmp_path)
    path = next((tmp_path / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    content = path.read_bytes()
    at = content.index(b"IDAT")
    path.write_bytes(content[:at] + b"\x00\x01\x02\x03" + content[at + 4 :])
    parts = (entry("voc2012").open(tmp_path, half) for half in ("train", "test"))
    with pytest.raises(BadData, match=f"map {path} cannot be read"):
        [*chain.from_iterable(parts)]


def test_videos_that_end_early_are_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    video(path, 0)
    whole = path.read_bytes()
    said: list[str] = []
    for size in range(0, len(whole), 25):
        put(path, whole[:size])
        try:
            middle_frame(path)
        except BadData as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(each.startswith(f"video {path} ") and "\n" not in each for each in said)
