"""What an adaptation is given: a share drawn as the benchmark draws, and what two sets share."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from roadworthy.cli import main
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.adapt.labelled import Sets, occurring, open_sets
from roadworthy.learn.batches import Task
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.subsets import draw
from roadworthy.learn.judge import Verdict
from roadworthy.learn.sample import Sample
from roadworthy.learn.shards import write_shards
from roadworthy.learn.sources import names_of, samples, source
from roadworthy.learn.tasks import judge_maps, whole_batches

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


def test_one_class_alone_is_warned_of(tmp_path: Path) -> None:
    spec = folders(tmp_path / "a", {"cat": [*range(8)]})
    (line,) = open_sets(spec, "", "classification", 32).warnings
    assert "all labelled images are of one class, cat: any answer is right" in line


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
    assert found.labelled.classes == ("cat", "dog")
    assert found.test is not None
    assert found.test.classes == ("cat", "dog", "emu")
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


def of_class(number: int, name: str, names: tuple[str, ...] = ()) -> Sample:
    """A photo that is said to show a class, as a whole, in a box, and in its upper half."""
    content = io.BytesIO()
    photo(number).save(content, "PNG")
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = names.index(name) if names else int(name)
    box = np.array([[0.0, 0, 32, 16]])
    return Sample(
        content.getvalue(), f"{number}.png", "set",
        labels=(name,), boxes=box, box_labels=(name,), mask=mask, mask_labels=names,
    )  # fmt: skip


def sets_of(root: Path, labelled: list[Sample], tested: list[Sample], task: Task) -> Sets:
    for name, each in (("labelled", labelled), ("test", tested)):
        write_shards(each, str(root / name))
    return open_sets(f"shards:{root}/labelled", f"shards:{root}/test", task, 32)


class Told(nn.Module):
    """Says what it is given: all of it, or the one map there is."""

    def forward(self, maps: Any) -> Any:
        return maps[0] if isinstance(maps, list) and len(maps) == 1 else maps


def best(sets: Sets, say: Callable[[int], torch.Tensor]) -> Verdict:
    """Of answers that know no class but the labelled ones: `say` of each test image."""
    assert sets.test is not None
    (batch,) = whole_batches(sets.test, torch.device("cpu"))
    said = [say(i) for i in range(len(batch))]
    maps = [torch.stack(said)]
    if batch.boxes is not None:
        maps = [maps[0][:, None], batch.boxes]
    return judge_maps(Told(), sets.test, [(batch, maps)])


def one(number: int, among: int) -> torch.Tensor:
    return 40.0 * torch.eye(among)[number] - 20


def test_images_of_a_class_that_is_not_learned_count_as_wrong(tmp_path: Path) -> None:
    names = ("cat", "dog", "emu", "ant")
    train = [of_class(i, names[i % 2], names) for i in range(4)]
    tests = [of_class(9 + i, name, names) for i, name in enumerate(("dog", "emu", "ant", "cat"))]
    whole = sets_of(tmp_path / "whole", train, tests, "classification")
    assert best(whole, lambda i: one((1, 0, 1, 0)[i], 2)).value == 0.5
    assert set(whole.unlearned) == {"emu", "ant"}
    boxes = sets_of(tmp_path / "boxes", train, tests, "detection")
    assert boxes.labelled.classes == ("cat", "dog")
    found = best(boxes, lambda i: one((1, 0, 1, 0)[i], 2) - 10 * (i in (1, 2)))
    assert found.value == pytest.approx(0.5)
    assert set(boxes.unlearned) == {"emu", "ant"}


@pytest.mark.parametrize(
    ("names", "others", "unlearned"),
    [
        (("sky", "cat", "dog"), ("sky", "emu", "dog"), "emu"),
        (("sky", "cat", "dog"), ("sky", "dog", "emu"), "emu"),
        (("0", "1", "2"), (), "3"),
        ((), (), "3"),
    ],
)
def test_masks_of_a_class_that_is_not_learned_count_as_wrong(
    tmp_path: Path, names: tuple[str, ...], others: tuple[str, ...], unlearned: str
) -> None:
    own = names or ("0", "1", "2")
    train = [of_class(i, own[i % 3], names) for i in range(6)]
    tests = [of_class(10, own[2], others), of_class(11, unlearned, others)]
    sets = sets_of(tmp_path, train, tests, "segmentation")
    assert sets.labelled.classes == own
    assert sets.unlearned == (unlearned,)

    def said(number: int) -> torch.Tensor:
        answered = torch.zeros(32, 32, dtype=torch.int64)
        answered[:16] = 2 if number == 0 else 1
        return nn.functional.one_hot(answered, 3).permute(2, 0, 1).float()

    # the first and the third are right, the second is answered and not there, the last one missed
    assert best(sets, said).value == pytest.approx(0.5)


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_what_judges_changes_no_model(tmp_path: Path, task: Task) -> None:
    names = ("sky", "cat", "dog")
    write_shards([of_class(i, names[i % 3], names) for i in range(9)], str(tmp_path / "a"))
    others = ("sky", "emu", "ant", "dog")
    write_shards([of_class(20 + i, others[i], others) for i in range(4)], str(tmp_path / "b"))
    words = ["--data", f"shards:{tmp_path}/a", "--task", task, "--fraction", "1", "--size", "32"]
    words += ["--protocol", "frozen", "--steps", "2", "--rates", "0.01", "--device", "cpu"]
    alone, judged = (tmp_path / each for each in ("alone", "judged"))
    assert main(["adapt", BODY, *words, "--out", str(alone)]) == 0
    test = ["--test", f"shards:{tmp_path}/b"]
    with pytest.warns(UserWarning, match=r"no labelled image shows 2 \((emu, ant|ant, emu)\)"):
        assert main(["adapt", BODY, *words, *test, "--out", str(judged)]) == 0
    for name in ("heads.safetensors", "model.safetensors"):
        assert (alone / name).read_bytes() == (judged / name).read_bytes()
