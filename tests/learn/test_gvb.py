"""Tenths of the images, repeated images, own data; the command that lists and downloads."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import png, put
from layouts_all import WRITERS
from PIL import Image, ImageOps

from roadworthy.cli import main
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.duplicates import repeats
from roadworthy.learn.gvb.entries import ENTRIES, entry
from roadworthy.learn.gvb.fetch import download
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.part import Part
from roadworthy.learn.gvb.published import PUBLISHED
from roadworthy.learn.gvb.subsets import draw, read_subset, stratified, take, write_subset
from roadworthy.learn.readers import Origin
from roadworthy.learn.sample import Sample

NAMES = [f"{i}.jpg" for i in range(120)]


@given(st.lists(st.integers(0, 4), min_size=40, max_size=120), st.floats(0.2, 1), st.integers(0, 9))
def test_each_class_gives_its_share(labels: list[int], fraction: float, seed: int) -> None:
    counts = {label: labels.count(label) for label in set(labels)}
    names = NAMES[: len(labels)]
    if min(round(fraction * n) for n in counts.values()) == 0:
        with pytest.raises(BadInput, match="leaves class numbers without an image"):
            stratified(names, labels, fraction, seed)
        return
    drawn = stratified(names, labels, fraction, seed)
    assert drawn == sorted(set(drawn))
    for label, count in counts.items():
        assert sum(labels[i] == label for i in drawn) == round(fraction * count)


@given(st.permutations(range(30)), st.integers(0, 5))
def test_a_list_depends_on_seed_and_names_and_not_on_their_order(
    order: list[int], seed: int
) -> None:
    labels = [i % 3 for i in range(30)]
    drawn = {NAMES[i] for i in stratified(NAMES[:30], labels, 0.4, seed)}
    mixed = [NAMES[i] for i in order], [labels[i] for i in order]
    assert {mixed[0][i] for i in stratified(*mixed, 0.4, seed)} == drawn
    assert {NAMES[i] for i in stratified(NAMES[:30], labels, 0.2, seed)} < drawn
    assert {NAMES[i] for i in stratified(NAMES[:30], labels, 0.4, seed + 1)} != drawn


def test_every_image_is_drawn_equally_often() -> None:
    counts = np.zeros(20)
    for seed in range(200):
        counts[stratified(NAMES[:20], (), 0.25, seed)] += 1
    assert abs(counts / 200 - 0.25).max() < 0.11  # 3.6 standard deviations


def test_a_fraction_that_leaves_a_class_empty_says_which_would_not() -> None:
    labels = [0] * 50 + [1] * 4
    with pytest.raises(BadInput, match=r"1 \(1\); a class has 4, so 0.1251 or more") as refused:
        stratified(NAMES[:54], labels, 0.1, 0)
    assert "\n" not in str(refused.value)
    assert len(stratified(NAMES[:54], labels, 0.1251, 0)) == 7
    for fraction in (0, -0.1, 1.1):
        with pytest.raises(BadInput, match="above 0 and at most 1"):
            stratified(NAMES[:54], labels, fraction, 0)


def classed(names: list[str], labels: list[int], half: str = "train") -> Part:
    def read(number: int) -> Sample:
        raise AssertionError("not an image is read")

    origin = Origin("set", split=half)
    return Part(origin, "classification", ("a", "b"), tuple(names), read, tuple(labels))


def test_a_list_is_written_and_checked_by_its_hashes(tmp_path: Path) -> None:
    names, labels = NAMES[:40], [i % 2 for i in range(40)]
    part = classed(names, labels)
    subset = draw(part, 0.1, 3)
    write_subset(subset, tmp_path / "list.json")
    assert read_subset(tmp_path / "list.json") == subset
    taken = take(part, subset)
    assert sorted(taken.names) == list(subset.images) == sorted(subset.images)
    assert sorted(taken.labels) == [0, 0, 1, 1]
    turned = classed(names[::-1], labels[::-1])
    assert set(take(turned, subset).names) == set(subset.images)
    with pytest.raises(BadData, match="a list of set train given for set test"):
        take(classed(names, labels, "test"), subset)
    with pytest.raises(BadData, match="of the list are not there"):
        take(classed(names[:20], labels[:20]), subset)
    with pytest.raises(BadData, match="41 images, 40 then; draw it again"):
        take(classed([*names, "new"], [*labels, 0]), subset)
    with pytest.raises(BadData, match="other images or classes"):
        take(classed(names, labels[::-1]), subset)
    with pytest.raises(BadData, match="missing or damaged"):
        read_subset(put(tmp_path / "no.json", "[]"))


def photo(seed: int, size: int = 64) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size))


def sample(name: str, image: Image.Image) -> Sample:
    return Sample(png(image), name, "set", labels=("a",))


def test_test_images_that_also_train_are_named() -> None:
    train = [sample(f"train-{i}", photo(i)) for i in range(3)]
    held = io.BytesIO()
    photo(1).save(held, "JPEG", quality=60)
    tests = [
        sample("same", photo(0)),
        sample("other", photo(9)),
        Sample(held.getvalue(), "recompressed", "set"),
        sample("flipped", ImageOps.mirror(photo(2, 48))),
    ]
    found = repeats(train, tests)
    assert [(each.test, each.train) for each in found] == [
        ("same", "train-0"), ("recompressed", "train-1"), ("flipped", "train-2"),
    ]  # fmt: skip
    assert found[0].bits == 0
    assert repeats([], tests) == []


def test_ones_own_classes_are_an_entry(tmp_path: Path) -> None:
    for half, names in (("train", ("cat", "dog", "emu")), ("test", ("cat", "dog", "emu"))):
        for i, name in enumerate(names):
            for k in range(2):
                put(tmp_path / half / name / f"{k}.png", png(photo(10 * i + k)))
    specs = [f"imagefolder:{tmp_path}/{half}" for half in ("train", "test")]
    known = own("classification", *specs)
    train, test = (known.open(tmp_path, half) for half in ("train", "test"))
    assert (train.classes, known.sizes, known.metric.name) == (
        ("cat", "dog", "emu"),
        (6, 6),
        "top-1",
    )
    assert test.labels == (0, 0, 1, 1, 2, 2)
    assert test[2].labels == ("dog",)
    assert len(stratified(train.names, train.labels, 0.5, 0)) == 3
    put(tmp_path / "test/fox/0.png", png(photo(99)))
    with pytest.raises(BadData, match="names class 'fox'"):
        own("classification", *specs)
    with pytest.raises(BadData, match="says nothing for depth"):
        own("depth", *specs)
    with pytest.raises(BadInput, match="which has captions"):
        own("depth", "captions:a@b", specs[0])


def test_ones_own_difficult_objects_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    entry = "<object><name>dot</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>1</ymin>"
    end = "<xmax>{}</xmax><ymax>20</ymax></bndbox></object>"
    held = "".join((entry + end).format(n, 1 + 30 * n, 20 + 30 * n) for n in (0, 1))
    size = "<size><width>64</width><height>64</height></size>"
    put(tmp_path / "Annotations/0.xml", f"<annotation>{size}{held}</annotation>".encode())
    put(tmp_path / "JPEGImages/0.png", png(photo(1)))
    known = own("detection", f"voc:{tmp_path}", f"voc:{tmp_path}")
    test = known.open(Path(), "test")
    assert test.target is not None
    boxes = test.target(0).boxes
    assert len(boxes) == 2
    both = [[*boxes[i], score, 0] for i, score in ((0, 0.8), (1, 0.9))]
    assert known.metric([np.array(both)], test).value == 1.0
    assert test[0].box_labels == ("dot",)


@pytest.mark.parametrize(
    ("task", "metric"), [("detection", "AP50"), ("segmentation", "mIoU"), ("depth", "RMSE")]
)
def test_ones_own_maps_and_boxes_are_judged_perfect_by_themselves(task: Any, metric: str) -> None:
    known = own(task, "scenes:0-4", "scenes:1-3", 32)
    test = known.open(Path(), "test")
    assert known.metric.name == metric
    answers: list[Any] = []
    for i, each in enumerate(test):
        if task == "detection":
            assert test.target is not None
            target = test.target(i)
            scores = np.stack([np.ones(len(target.boxes)), target.classes], 1)
            answers.append(np.concatenate([target.boxes, scores], 1))
        else:
            answers.append(each.mask if task == "segmentation" else each.depth)
    best = 0 if task == "depth" else 1
    assert known.metric(answers, test).value == pytest.approx(best)


def test_published_rows_average_as_the_paper_says() -> None:
    names = [each.name for each in ENTRIES]
    means = {"Up-A R50": 70.90, "Up-A MN-B15": 80.37, "Up-G R50": 74.28, "Up-G MN-B4": 78.59}
    for backbone, mean in means.items():
        row = PUBLISHED[backbone]
        assert list(row) == names
        assert 100 * np.mean([row[name] for name in names[:20]]) == pytest.approx(mean, abs=0.011)


def test_the_command_lists_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["dtd"](tmp_path)
    put(tmp_path / "fer2013/readme.txt", "")
    assert main(["benchmark", "--list", "--root", str(tmp_path), "--json"]) == 0
    rows = {each["name"]: each for each in json.loads(capsys.readouterr().out)["datasets"]}
    assert len(rows) == 26
    assert [name for name, each in rows.items() if each["there"]] == ["dtd"]
    assert rows["citypersons"]["higher_is_better"] is False
    assert rows["kitti"]["published"]["Up-G MN-B15"] == 2.71
    assert rows["svhn"]["lacking"] == ["train_32x32.mat", "test_32x32.mat"]
    assert main(["benchmark", "--list", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 29
    assert lines[-1] == f"1 of 26 are in {tmp_path}"
    assert "| dtd/dtd | yes |" in lines[9]


def test_what_cannot_be_downloaded_says_how_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--download", "imagenet", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "agree to the terms" in said
    assert f"{tmp_path}/imagenet" in said
    assert main(["benchmark", "--download", "mnist"]) == 2
    assert "cifar10, cifar100" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An address that serves ``tmp_path/served``."""
    (tmp_path / "served").mkdir()
    handler = partial(_Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any, **__: Any) -> None:
        pass


def test_a_download_is_unpacked_where_the_loader_looks(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import DTD

    WRITERS["dtd"](tmp_path)
    packed = tmp_path / "served/dtd.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "dtd/dtd", "dtd")
    monkeypatch.setattr(DTD, "_URL", f"{server}/dtd.tar.gz")
    monkeypatch.setattr(DTD, "_MD5", "0" * 32)
    with pytest.raises(BadData, match="Textures could not be downloaded: File not found or corrup"):
        download(entry("dtd"), tmp_path / "root")
    monkeypatch.setattr(DTD, "_URL", f"{server}/nowhere.tar.gz")
    with pytest.raises(BadData, match="could not be downloaded: HTTP Error 404"):
        download(entry("dtd"), tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    monkeypatch.setattr(DTD, "_URL", f"{server}/dtd.tar.gz")
    monkeypatch.setattr(DTD, "_MD5", hashlib.md5(packed.read_bytes()).hexdigest())
    root = tmp_path / "root"
    assert main(["benchmark", "--download", "dtd", "--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith(
        f"written    {root}/dtd/dtd\nlicence    research; see"
    )
    part = replace(entry("dtd"), classes=3).open(root, "test")
    assert len(part) == 3
    monkeypatch.setattr(DTD, "_URL", f"{server}/gone.tar.gz")
    with pytest.raises(BadData, match="could not be downloaded: HTTP Error 404"):
        download(entry("dtd"), tmp_path / "other")
