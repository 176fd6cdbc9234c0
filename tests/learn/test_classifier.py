"""What a stage learned about classes goes the whole way: one file, integers, road test."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from roadworthy.cli import main
from roadworthy.core.metanet import POINTS, MetaNetConfig, Stage
from roadworthy.core.models import load_model
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.batches import Task
from roadworthy.learn.classifier import write_classifier
from roadworthy.learn.expert import Job, learn_expert, reopened
from roadworthy.learn.manifest import read_config
from roadworthy.learn.plan import Plan
from roadworthy.learn.scenes import scenes
from roadworthy.learn.sources import source

TINY = "metanet:tiny@random"
ROWS = (("mbconv", 8), ("mbconv", 8), ("xca", 8), ("attention", 16))


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Generator[None]:
    """A named point of four blocks: what follows a stage does not depend on its size."""
    stages = tuple(Stage(op, 1, width, 2, 2, 8, "inside") for op, width in ROWS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(POINTS, "tiny", MetaNetConfig(stages, stem=8, head=16))
        yield


def stage(out: Path, *tasks: Task) -> Path:
    sources = [source("scenes:0-8", task, 32) for task in tasks]
    learn_expert(TINY, sources, Job(out, Plan(steps=2, batch=4)))
    return out


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("stage") / "multitask", "depth", "classification")


@pytest.fixture(scope="module")
def spec(learned: Path) -> str:
    return write_classifier(learned, learned.parent / "new" / "classifier.safetensors")[0]


def test_it_says_what_the_stage_says(learned: Path, spec: str) -> None:
    whole, loaded = reopened(learned), load_model(spec)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.module(images), whole.heads[1](whole.backbone(images)))
    assert loaded.input_shape == (3, 32, 32)


def test_it_is_quantized_and_road_tested(learned: Path, spec: str, tmp_path: Path) -> None:
    classes = read_config(learned).heads[1].classes
    for scene in (each for each in scenes(range(24), 40) if each.labels[0] in classes):
        file = tmp_path / "photos" / scene.labels[0] / f"{scene.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scene.image)
    data = ["--data", f"imagefolder:{tmp_path}/photos", "--out"]
    four = ["--bits", "w4a4", "--method", "mse", "--json"]
    assert main(["quantize", spec, *data, str(tmp_path / "w4a4"), *four]) == 0
    run = json.loads((tmp_path / "w4a4" / "run.json").read_text())
    assert run["parity"]["agreement"] >= 0.995
    road = [*data, str(tmp_path / "road"), "--stages", "resize", "--limit", "8"]
    assert main(["noise", spec, *road]) == 0
    rows = json.loads((tmp_path / "road" / "noise.json").read_text())
    assert len({row["class"] for row in rows if row["stage"] == "resize"}) > 1


def test_the_command_line_says_how_to_open_it(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.safetensors"
    assert main(["learn", "classifier", str(learned), "--out", str(out)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["written", f"metanet:tiny@{out}"]
    assert "traffic sign" in second


def test_other_stages_are_refused(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.safetensors"):
        write_classifier(learned, tmp_path / "x.pth")
    with pytest.raises(BadModel, match="no finished stage"):
        write_classifier(tmp_path, tmp_path / "x.safetensors")
    with pytest.raises(BadModel, match="heads for depth; one for classification"):
        write_classifier(stage(tmp_path / "depth", "depth"), tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("name", ["model", "heads", "config", "new"])
def test_a_stage_is_not_written_into(learned: Path, name: str) -> None:
    before = {path.name for path in learned.iterdir()}
    with pytest.raises(BadInput, match="lies in the folder of a stage"):
        write_classifier(learned, learned / f"{name}.safetensors")
    assert {path.name for path in learned.iterdir()} == before
    assert read_config(learned).stage == "multitask"
