"""The benchmark of backbones: rows, what they are judged by, how a run goes on, and two workers."""

import fcntl
import json
import os
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scenes import XML, write_scenes
from torch import Tensor, nn

from roadworthy import benchmarking
from roadworthy.cli import main
from roadworthy.learn.adapt.fit import Adapted
from roadworthy.learn.backbones import backbone
from roadworthy.learn.gvb.bench import Named, Unit
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.shown import answers, show
from roadworthy.learn.gvb.subsets import read_subset
from roadworthy.learn.gvb.table import by_task, summary
from roadworthy.learn.gvb.terms import Terms
from roadworthy.learn.scenes import scenes
from roadworthy.learn.shards import write_shards

BODY = "metanet:mn_xs@random"
SHORT = ["--size", "32", "--steps", "2", "--rates", "0.002", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenes lie."""
    folder = tmp_path_factory.mktemp("bench")
    write_scenes(folder)
    _spoil(folder)
    return folder


def _spoil(folder: Path) -> None:
    """The same images with annotations that do not do."""
    bare = XML.partition("<object>")[0] + "</annotation>"
    (folder / "names.txt").write_text("ground\nsquare\n")
    for i in range(12):
        for name, value in (("far", 7), ("few", 1), ("void", 255), ("nothing", 0)):
            (folder / name).mkdir(exist_ok=True)
            kind = np.uint16 if name == "nothing" else np.uint8
            Image.fromarray(np.full((40, 48), value, kind)).save(folder / name / f"{i}.png")
        for name in ("JPEGImages", "Annotations"):
            (folder / "empty" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "JPEGImages" / f"{i}.png", folder / "empty" / "JPEGImages")
        (folder / "empty" / "Annotations" / f"{i}.xml").write_text(bare)
    (folder / "few" / "5.png").unlink()
    held = dict(np.load(folder / "a.npz"))
    np.savez(folder / "a.npz", **held, six=np.arange(12) % 6)
    shutil.copytree(folder / "nothing", folder / "rare")
    for i in range(12):
        Image.fromarray(np.full((40, 48), i == 11, np.uint8)).save(folder / "rare" / f"{i}.png")


def pairs(data: Path) -> list[str]:
    specs = {
        "classification": f"npz:{data}/a.npz?x=x&y=y",
        "detection": f"voc:{data}",
        "segmentation": f"masks:{data}",
        "depth": f"depth:{data}",
    }
    both = (("--data", task, spec, "--test") for task, spec in specs.items())
    return [
        each for a, task, spec, b in both for each in (a, f"{task}={spec}", b, f"{task}={spec}")
    ]


def run(out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["benchmark", *arguments, *SHORT, "--out", str(out)]) == 0
    return json.loads((out / "run.json").read_text())


def values(told: dict[str, Any]) -> list[float]:
    return [row["value"] for row in told["rows"]]


@pytest.fixture(scope="module")
def four(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All four tasks, two seeds."""
    out = tmp_path_factory.mktemp("four") / "out"
    return out, run(out, BODY, *pairs(data), "--fraction", "0.5", "--seeds", "2")


def test_each_task_has_its_metric_protocol_and_share(four: tuple[Path, dict[str, Any]]) -> None:
    out, told = four
    lists = {read_subset(each).sha256 for each in (out / "lists").iterdir()}
    assert lists == {row["subset"] for row in told["rows"]}
    rows = {row["task"]: row for row in told["rows"]}
    assert {task: (row["metric"], row["protocol"]) for task, row in rows.items()} == {
        "classification": ("top-1", "Linear"),
        "detection": ("AP50", "Frozen"),
        "segmentation": ("mIoU", "Linear"),
        "depth": ("RMSE", "Linear"),
    }
    assert {(row["trained_on"], row["tested_on"]) for row in told["rows"]} == {(6, 12)}
    assert [row["seed"] for row in told["rows"]] == [0, 1] * 4
    assert len({row["subset"] for row in told["rows"] if row["task"] == "depth"}) == 2
    assert all(
        any(f"seed {r['seed']} learns from: 6 (" in line for line in r["told"])
        for r in told["rows"]
    )
    assert 0 < rows["segmentation"]["value"] < 1
    assert 0 < rows["depth"]["value"] < 0.5  # half a metre between square and ground
    assert {row["relative"] for row in told["types"]} == {1.0}


def test_neighbours_find_the_images_that_they_know(data: Path, tmp_path: Path) -> None:
    told = run(
        tmp_path, BODY, *pairs(data)[:4], "--fraction", "1", "--protocol", "knn", "--seeds", "1"
    )
    assert values(told) == [1.0]


def test_another_protocol_asks_the_backbone_nothing_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [BODY, *pairs(data)[:4], "--fraction", "0.5", "--seeds", "1"]
    run(tmp_path, *given)

    def never(*_: object) -> None:
        raise AssertionError("the backbone was asked")

    for asking in ("roadworthy.learn.probe.rows_of", "roadworthy.learn.gvb.shown._seen"):
        monkeypatch.setattr(asking, never)
    told = run(tmp_path, *given, "--protocol", "knn")
    assert [row["protocol"] for row in told["rows"]] == ["Neighbours"]


def test_an_interrupted_run_goes_on(
    four: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    measured = benchmarking.measured

    def stopped(*unit: Any) -> Any:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return measured(*unit)

    given = [BODY, *pairs(data), "--fraction", "0.5", "--seeds", "2"]
    monkeypatch.setattr(benchmarking, "measured", stopped)
    assert main(["benchmark", *given, *SHORT, "--out", str(tmp_path)]) == 1
    assert not (tmp_path / "run.json").exists()
    told = run(tmp_path, *given)
    assert len(asked) == 4 + 5
    assert values(told) == values(four[1])
    assert run(tmp_path, *given)["rows"] == told["rows"]
    assert len(asked) == 9


def test_shards_that_were_packed_anew_are_measured_anew(tmp_path: Path) -> None:
    given = "classification=shards:" + str(tmp_path / "scenes")
    for first in (0, 100):
        shutil.rmtree(tmp_path / "scenes", ignore_errors=True)
        write_shards(scenes(range(first, first + 30), 32), tmp_path / "scenes", 30)
        words = ["--data", given, "--test", given, "--fraction", "1", "--protocol", "linear"]
        run(tmp_path / "out", BODY, *words, "--seeds", "1")
    assert len([*(tmp_path / "out" / "rows").iterdir()]) == 2


def test_a_test_image_without_a_class_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [replace(each, labels=()) for each in scenes(range(2), 32)]
    write_shards([*scenes(range(2, 10), 32), *bare], tmp_path / "scenes", 10)
    given = ["--data", "classification=scenes:0-20", "--test"]
    given += [f"classification=shards:{tmp_path / 'scenes'}", "--out", str(tmp_path / "out")]
    assert main(["benchmark", BODY, *given, *SHORT, "--fraction", "1"]) == 2
    assert "scene-0" in (said := capsys.readouterr().err)
    assert "says nothing for classification" in said


def test_two_processes_do_not_share_a_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    words = [BODY, *pairs(data)[:4], "--fraction", "0.5", *SHORT, "--out", str(tmp_path)]
    assert main(["benchmark", *words]) == 2
    assert "in use by another benchmark" in capsys.readouterr().err
    os.close(held)
    run(tmp_path, *words[:-2], "--seeds", "1", "--protocol", "frozen")
    there = sorted(each.name for each in tmp_path.iterdir())
    assert there == ["features", "lists", "rows", "run.json"]
    (path,) = (tmp_path / "lists").iterdir()
    told = json.loads((tmp_path / "run.json").read_text())
    assert read_subset(path).sha256 == told["rows"][0]["subset"]


def test_classes_that_a_share_does_not_show_are_told(data: Path, tmp_path: Path) -> None:
    spec = f"segmentation=masks:{data}?masks=rare&names=names.txt"
    told = run(tmp_path, BODY, "--data", spec, "--test", spec, "--fraction", "0.5", "--seeds", "4")
    lists = [read_subset(each).images for each in sorted((tmp_path / "lists").iterdir())]
    shown = [any(name.startswith("11.png") for name in each) for each in lists]
    line = "learns from shows 1 (square)"
    said = [any(each.endswith(line) for each in row["told"]) for row in told["rows"]]
    assert said == [not each for each in shown]
    assert {*said} == {True, False}


def test_damaged_rows_are_measured_again(
    four: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(four[0] / "rows", tmp_path / "rows")
    cut, other, *_ = sorted((tmp_path / "rows").iterdir())
    cut.write_text(cut.read_text()[:50])
    other.write_text('{"value": 1}')
    asked: list[int] = []
    measured = benchmarking.measured
    monkeypatch.setattr(benchmarking, "measured", lambda *a: asked.append(1) or measured(*a))
    told = run(tmp_path, BODY, *pairs(data), "--fraction", "0.5", "--seeds", "2")
    assert len(asked) == 2
    assert values(told) == values(four[1])


def test_one_training_set_may_be_judged_by_two(data: Path, tmp_path: Path) -> None:
    npz = f"classification=npz:{data}/a.npz?x=x&y="
    given = ["--data", f"{npz}y", "--test", f"{npz}y", "--data", f"{npz}y", "--test", f"{npz}z"]
    told = run(tmp_path, BODY, *given, "--fraction", "1", "--protocol", "knn", "--seeds", "1")
    assert [row["mean"] for row in told["table"]] == [1.0, 0.0]
    assert [row["dataset"].count("npz:") for row in told["table"]] == [1, 2]


@pytest.mark.parametrize(
    ("task", "spec", "half", "said"),
    [
        ("segmentation", "masks:{}?masks=far", "--test", "ids beyond its 2 classes"),
        ("segmentation", "masks:{}?masks=few", "--test", "says nothing for segmentation"),
        ("segmentation", "masks:{}?masks=void&names=names.txt", "--data", "no pixel of a class to"),
        ("segmentation", "masks:{}?masks=void", "--test", "no pixel of a class to judge by"),
        ("depth", "depth:{}?depth=nothing", "--data", "no depth to learn from"),
        ("depth", "depth:{}?depth=nothing", "--test", "no depth to judge by"),
        ("detection", "voc:{}/empty", "--test", "no object to find to judge by"),
        ("detection", "voc:{}/empty", "--data", "no object to learn from"),
    ],
)
def test_annotations_that_do_not_do_are_told_before_an_adaptation(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    spec: str,
    half: str,
    said: str,
) -> None:
    at = pairs(data).index(f"{task}={spec.partition('?')[0].format(data).removesuffix('/empty')}")
    given = pairs(data)[at - 1 : at + 3]
    given[given.index(half) + 1] = f"{task}={spec.format(data)}"
    words = [*given, "--fraction", "0.5", *SHORT, "--out", str(tmp_path / "out")]
    assert main(["benchmark", BODY, *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "out").exists()


class Half(nn.Module):
    """Says that there is one box, the left half of a 32 x 32 input, and that it is of class 1."""

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        n = len(maps[0])
        return torch.tensor([[[-9.0, 9.0, -9.0]]] * n), torch.tensor([[[0.0, 0.0, 16.0, 32.0]]] * n)


def test_answers_lie_in_the_pixels_of_the_file(data: Path) -> None:
    part = own("detection", f"voc:{data}", f"voc:{data}").open(Path(), "test")
    shown = show(part, 32)
    assert shown.sizes[0] == (40, 48)
    adapted = Adapted(backbone(BODY), Half(), 0.0, {})
    said = list(answers(adapted, "detection", 3, shown, torch.device("cpu")))
    assert len(said) == 12
    np.testing.assert_allclose(said[0][:, :4], [[0, 0, 24, 40]])
    assert said[0][0, 5] == 1


def row(backbone: str, seed: int, value: float, name: str = "set", higher: bool = True) -> Any:
    shared = {"title": name, "task": "depth", "metric": "m", "trained_on": 1, "tested_on": 1}
    return {
        "dataset": name,
        "backbone": backbone,
        "seed": seed,
        "value": value,
        "higher": higher,
    } | shared


def test_errors_are_shares_of_the_first_backbones() -> None:
    rows = [row("a", 0, 0.6), row("a", 1, 0.8), row("b", 0, 0.8), row("b", 1, 0.9)]
    rows += [row("a", 0, 2.0, "far", False), row("b", 0, 3.0, "far", False)]
    table = summary(rows)
    assert [round(each["relative"], 6) for each in table] == [1, 0.5, 1, 1.5]
    assert [round(each["mean"], 6) for each in table] == [0.7, 0.85, 2, 3]
    gains = [each["gain"] for each in table]
    np.testing.assert_allclose(gains, [0, 0.15, 0, -1])
    low, high = table[1]["gain_low"], table[1]["gain_high"]
    np.testing.assert_allclose([low, high], [0.15 - 12.706 * 0.05, 0.15 + 12.706 * 0.05], 1e-4)
    assert table[3]["low"] is None
    both = [row("a", 0, 0.6), row("a", 0, 0.2) | {"task": "boxes"}]  # of the same images
    assert [each["mean"] for each in summary(both)] == [0.6, 0.2]
    errors = {each["backbone"]: each["relative"] for each in by_task(table)}
    np.testing.assert_allclose([errors["a"], errors["b"]], [1, 1])
    spans = {each["backbone"]: (each["low"], each["high"]) for each in by_task(table[:2])}
    np.testing.assert_allclose(spans["b"], [0.5, 0.5])
    wide = summary([row("a", 0, 0.5), row("a", 1, 0.5), row("b", 0, 0.5), row("b", 1, 0.6)])
    low, high = ([*by_task(wide)][1][name] for name in ("low", "high"))
    np.testing.assert_allclose([low, high], [0.9 - 12.706 * 0.1, 0.9 + 12.706 * 0.1], 1e-4)
    exact = summary([row("a", 0, 1.0, "exact"), row("b", 0, 0.5, "exact")])
    assert {each["datasets"] for each in by_task([*table, *exact])} == {2}


@pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is missing: pip install 'roadworthy[cluster]'"
)
@pytest.mark.usefixtures("two_workers")
def test_two_workers_find_what_one_process_finds(
    four: tuple[Path, dict[str, Any]],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [BODY, *pairs(data), "--fraction", "0.5", "--seeds", "2"]
    told = run(tmp_path, *given, "--workers", "ray")
    assert told["rows"] == [
        each | {"compute": mine["compute"]}
        for each, mine in zip(four[1]["rows"], told["rows"], strict=True)
    ]
    gone = str(tmp_path / "gone")
    assert main(["benchmark", gone, *pairs(data)[:4], *SHORT, "--out", str(tmp_path / "no")]) != 0
    assert "gone" in capsys.readouterr().err


def test_a_worker_opens_files_anew_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    forgot: list[int] = []
    monkeypatch.setattr(benchmarking, "forget", lambda: forgot.append(1))
    monkeypatch.setattr(benchmarking, "measured", lambda *_: {})
    work = (Unit(Named("dtd", ""), BODY, 0), Terms(), Path())
    for call in ("a", "a", "b"):
        benchmarking._one(call, work)
    assert len(forgot) == 2


def test_what_does_not_fit_is_told_before_any_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_data = pairs(data)[:4]
    out, half = ["--out", str(tmp_path / "out")], ["--fraction", "0.5"]
    six = [each.replace("y=y", "y=six") for each in own_data]
    for given, said in (
        (["--out", "x"], "no backbone given"),
        ([BODY, *own_data], "no --out given"),
        ([BODY, *own_data[:2], *out], "--data of classification and --test of nothing given"),
        ([BODY, "--root", str(tmp_path), *out], "none of the 26 data sets is in"),
        ([BODY, "--datasets", "dogs", *out], "data set 'dogs' given"),
        ([BODY, "--datasets", "dtd", "--root", str(tmp_path), *out], "no such folder found"),
        ([BODY, "--datasets", "dtdd", *out], "did you mean dtd?"),
        ([BODY, "--datasets", "dtd", "dtd", *out], "dtd given twice; give each data set once"),
        ([BODY, *own_data, *own_data, *out], "given twice; give each pair"),
        ([BODY, *own_data, "--fraction", "0.01", *out], "without an image"),
        ([BODY, *own_data, "--fraction", "0.2", *out], "leaves 2 of 12 training images"),
        ([BODY, *six, *half, *out, "--protocol", "frozen"], "a second one of some is needed to"),
        ([BODY, *own_data, "--steps", "0", *out], "steps 0 given"),
        ([BODY, *own_data, "--rates", "0.002", "-1", *out], "rate -1.0 given"),
        ([BODY, "timm:vit_tiny_patch16_224@random", *own_data, *half, *out], "give --size 224"),
        ([BODY, BODY, *own_data, *out], "given twice"),
        ([BODY, *own_data, "--seeds", "0", *out], "--seeds"),
        ([BODY, *own_data, "--size", "33", *out], "multiple of 32"),
        (["metanet:none@random", *own_data, *out], "none"),
    ):
        assert main(["benchmark", *given]) != 0
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
