"""What an adaptation is given: a share drawn as the benchmark draws, and what two sets share."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.cli import main
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.adapt.labelled import occurring, open_sets
from roadworthy.learn.batches import Task
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.subsets import draw
from roadworthy.learn.sample import Sample
from roadworthy.learn.shards import write_shards
from roadworthy.learn.sources import names_of, samples, source

BODY = "metanet:mn_xs@random"


def photo(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((32, 32))


def folders(root: Path, classes: dict[str, list[int]]) -> str:
    """A spec of a folder with these photos of each class."""
    for name, seeds in classes.items():
        (root / name).mkdir(parents=True)
        for seed in seeds:
            photo(seed).save(root / name / f"{seed}.png")
    return f"imagefolder:{root}"


def files(spec: str, size: int = 32) -> list[str]:
    return [each.name for each in samples(spec, size)]


def test_a_share_is_the_one_that_the_benchmark_draws(tmp_path: Path) -> None:
    spec = folders(tmp_path / "a", {"cat": [*range(8)], "dog": [*range(10, 22)]})
    part = own("classification", spec, spec).open(tmp_path, "train")
    wanted = set(draw(part, 0.25, 3).images)
    held = open_sets(spec, "", "classification", 32, 0.25, 3).labelled
    assert held.content.labels is not None
    assert held.content.labels.bincount().tolist() == [2, 3]
    whole = source(spec, "classification", 32)
    places = [names_of(spec).index(each) for each in sorted(wanted)]
    assert {held.content.images[i].sum().item() for i in range(5)} == {
        whole.content.images[i].sum().item() for i in places
    }
    moved = folders(tmp_path / "b/c", {"cat": [*range(8)], "dog": [*range(10, 22)]})
    assert open_sets(moved, "", "classification", 32, 0.25, 3).labelled.sha256 == held.sha256
    assert open_sets(spec, "", "classification", 32, 0.25, 4).labelled.sha256 != held.sha256


def test_names_are_those_of_the_benchmark(tmp_path: Path) -> None:
    write_shards(samples("scenes:0-3", 32), str(tmp_path / "packed"))
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 32, 32, 3), np.uint8), y=np.arange(4) % 2)
    for spec in ("scenes:4-7", f"shards:{tmp_path}/packed", f"npz:{tmp_path}/a.npz?x=x&y=y"):
        assert names_of(spec) == own("classification", spec, spec).open(tmp_path, "train").names


def test_a_share_that_leaves_a_class_empty_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = folders(tmp_path / "few", {"cat": [*range(8)], "dog": [10, 11]})
    with pytest.raises(
        BadInput, match=r"fraction 0.2 given, which leaves class numbers .* 1 \(1\)"
    ):
        open_sets(spec, "", "classification", 32, 0.2)
    for fraction in (0, -0.5, 1.01):
        with pytest.raises(BadInput, match="above 0 and at most 1"):
            open_sets(spec, "", "classification", 32, fraction)
    words = ["--data", spec, "--task", "classification", "--out", str(tmp_path / "out")]
    assert main(["adapt", BODY, *words, "--fraction", "0.2"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "0.2501 or more is needed" in said[0]
    assert not (tmp_path / "out").exists()


def test_images_without_a_class_are_named(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "plain.png")
    with pytest.raises(BadData, match=r"plain.png of .* says nothing for classification"):
        open_sets(f"imagefolder:{tmp_path}", "", "classification", 32, 1.0)
    with pytest.raises(BadData, match=r"plain.png of .* says nothing for detection"):
        open_sets(f"imagefolder:{tmp_path}", "", "detection", 32, 1.0)


def test_test_images_that_are_learned_from_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = folders(tmp_path / "train", {"cat": [*range(5)], "dog": [*range(10, 15)]})
    test = folders(tmp_path / "test", {"cat": [2, 20], "dog": [14, 30]})
    words = ["--data", train, "--test", test, "--task", "classification", "--fraction", "1"]
    rest = ["--size", "32", "--out", str(tmp_path / "out"), "--device", "cpu"]
    told = "2 (" + ", ".join(files(test)[i] for i in (0, 2)) + ") of 4 test images also stand"
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert main(["adapt", BODY, *words, "--protocol", "knn", *rest]) == 0
    assert sum(told in line for line in capsys.readouterr().out.splitlines()) == 1
    held = json.loads((tmp_path / "out/run.json").read_text())
    assert held["repeats"] == {
        "n": 2,
        "first": [
            {"test": files(test)[i], "train": files(train)[k], "bits": 0}
            for i, k in ((0, 2), (2, 9))
        ],
    }
    assert held["n"] == 4  # none of them was dropped


def test_only_what_is_learned_from_counts_as_repeated(tmp_path: Path) -> None:
    spec = folders(tmp_path / "a", {"cat": [*range(8)], "dog": [*range(10, 18)]})
    found = open_sets(spec, spec, "classification", 32, 0.25)
    assert len(found.repeats) == len(found.labelled) == 4
    assert open_sets(spec, "", "classification", 32, 0.25).row() == {}


def test_classes_of_one_set_alone_are_told(tmp_path: Path) -> None:
    train = folders(tmp_path / "train", {"cat": [*range(4)], "dog": [*range(10, 14)]})
    test = folders(tmp_path / "test", {"cat": [20], "emu": [30, 31]})
    found = open_sets(train, test, "classification", 32)
    assert found.labelled.classes == ("cat", "dog", "emu")
    assert (found.unlearned, found.untested) == (("emu",), ("dog",))
    assert found.warnings == [
        "no labelled image shows 1 (emu) of the test images' classes; label some, or take the "
        "class out of --test"
    ]
    both = open_sets(train, train, "classification", 32)
    assert (both.unlearned, both.untested) == ((), ())


def masks_of(sample: Sample) -> list[int]:
    assert sample.mask is not None
    return np.unique(sample.mask).tolist()


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_classes_occur_in_boxes_and_masks(task: Task) -> None:
    held = list(samples("scenes:0-3", 64))
    boxes = {name for each in held for name in each.box_labels}
    masks = {each.mask_labels[i] for each in held for i in masks_of(each) if i != 255}
    found = occurring(source("scenes:0-3", task, 64))
    assert set(found) == (boxes if task == "detection" else masks)
    assert occurring(source("scenes:0-3", "depth", 64)) == ()


@pytest.mark.parametrize(
    ("task", "kind", "lacking"),
    [("detection", "yolo", "no object to judge by"), ("depth", "depth", "no depth to judge by")],
)
def test_test_images_of_which_nothing_is_said_are_refused(
    tmp_path: Path, task: Task, kind: str, lacking: str
) -> None:
    folder = {"yolo": "labels", "depth": "depth"}[kind]
    for part in ("shown", "empty"):
        for name in ("images", folder):
            (tmp_path / part / name).mkdir(parents=True)
        (tmp_path / part / "classes.yaml").write_text("names: [thing]\n")
        for i in range(3):
            photo(i).save(tmp_path / part / "images" / f"{i}.png")
            metres = 1000 if part == "shown" else 0
            if kind == "depth":
                depth = np.full((32, 32), metres, np.uint16)
                Image.fromarray(depth).save(tmp_path / part / folder / f"{i}.png")
            else:
                row = "0 .5 .5 .4 .4\n" if part == "shown" else ""
                (tmp_path / part / folder / f"{i}.txt").write_text(row)
    shown, empty = (f"{kind}:{tmp_path / part}" for part in ("shown", "empty"))
    with pytest.raises(BadData, match=lacking):
        open_sets(shown, empty, task, 32)
    assert open_sets(shown, shown, task, 32).test is not None
