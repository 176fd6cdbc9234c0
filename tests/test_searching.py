"""`learn search`: what is found is a stage like others, within the budget, and found again."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from roadworthy.cli import main
from roadworthy.core.metanet import MetaNetConfig, Stage, named
from roadworthy.core.models import load_model
from roadworthy.learn.classifier import write_classifier
from roadworthy.learn.expert import Job, learn_expert, reopened
from roadworthy.learn.manifest import read_config
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import source
from roadworthy.learn.space import cost_of
from roadworthy.wording import say

SMALL = MetaNetConfig(tuple(Stage("mbconv", 1, 8, 2, 2, 8) for _ in range(4)), 8, 16, 0.1)


def arguments(folder: Path, *more: str) -> list[str]:
    model = folder / "small.json"
    model.write_text(json.dumps(asdict(SMALL)))
    learned, held = (f"classification=scenes:{part}" for part in ("0-12", "12-20"))
    told = f"--source {learned} --held {held} --size 32 --steps 2 --batch-size 4 --evaluations 6"
    start = ["learn", "search", f"metanet:{model}", *told.split(), "--device", "cpu"]
    return [*start, "--out", str(folder / "out"), *more]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    assert main(arguments(folder)) == 0
    return folder / "out"


def test_the_best_are_within_what_the_model_itself_costs(found: Path) -> None:
    told = json.loads((found / "run.json").read_text())
    classes = len(read_config(found).heads[0].classes)
    assert told["budget"] == told["itself"]["macs"] == cost_of(SMALL, 32, classes).macs
    assert told["itself"]["stages"] == ["mbconv 1x8 inside"] * 4
    rows = [json.loads(line) for line in (found / "trials.jsonl").read_text().splitlines()[1:]]
    scores = sorted((row["score"] for row in rows), reverse=True)
    assert len(scores) == 6
    assert [row["score"] for row in told["best"]] == scores[:5]
    assert all(row["macs"] <= told["budget"] for row in told["best"])
    judged = (6 + 1) * (12 + 8)
    assert told["compute"]["images"] == 2 * 4 + judged
    lines = say("learn search", {**told, "out": "out"}).splitlines()
    assert len(lines) == 1 + 1 + 5 + 1 + 1


def test_it_is_a_stage_that_says_what_was_judged(found: Path) -> None:
    told, config = json.loads((found / "run.json").read_text()), read_config(found)
    assert named(str(found / "network.json")) == config.architecture
    held = source("scenes:12-20", "classification", 32, config.heads[0].classes)
    stage, labels = reopened(found), held.content.labels
    spec, _ = write_classifier(found, found.parent / "whole.safetensors")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = stage.heads[0](stage.backbone(images))
        assert torch.equal(load_model(spec).module(images), said)
    assert labels is not None
    assert told["held_out"][0]["value"] == told["best"][0]["score"]


def test_other_stages_begin_with_it(found: Path, tmp_path: Path) -> None:
    sources = [source("scenes:0-4", "depth", 32)]
    learn_expert(str(found), sources, Job(tmp_path / "expert", Plan(steps=1, batch=2)))
    config = read_config(tmp_path / "expert")
    assert config.architecture == read_config(found).architecture
    assert reopened(tmp_path / "expert").backbone.channels == (8, 8, 8, 8)


def test_the_same_call_goes_on_to_the_same(found: Path) -> None:
    before = json.loads((found / "run.json").read_text())
    journal = (found / "trials.jsonl").read_bytes()
    assert main(arguments(found.parent)) == 0
    assert (found / "trials.jsonl").read_bytes() == journal
    assert json.loads((found / "run.json").read_text())["best"] == before["best"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "9"], "a budget of 9 multiply-accumulates given; the cheapest of"),
        (["--evaluations", "0"], "--evaluations 0 given; at least 1"),
        (["--source", "depth=scenes:0-4"], "--source of classification, depth given"),
        (["--held", "detection=scenes:0-4"], "--held of classification, detection given"),
    ],
)
def test_a_wrong_wish_is_one_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, *more)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm:resnet18@random", "a search goes around a MetaNet without weights"),
        ("metanet:mn_xs@weights.safetensors", "a search goes around a MetaNet without weights"),
        ("metanet:mn_xl", "did you mean mn_xs?"),
        ("metanet:none.json", "none.json cannot be read as a network"),
    ],
)
def test_another_model_is_one_line(
    model: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path)
    given[2] = model
    assert main(given) == 2
    assert message in capsys.readouterr().err


def test_held_out_images_and_one_process_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(tmp_path)
    at = given.index("--held")
    assert main([*given[:at], *given[at + 2 :]]) == 2
    assert "--held of nothing given" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(given) == 2
    assert "2 processes given; a supernet is trained by one" in capsys.readouterr().err
