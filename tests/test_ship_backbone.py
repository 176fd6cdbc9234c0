"""The recipe that puts a stage's backbone into the package, and what its model card says."""

import hashlib
import json
import re
import runpy
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from roadworthy.cli import main
from roadworthy.core import models
from roadworthy.core.checkpoints import read_weights
from roadworthy.core.metanet import POINTS, MetaNetConfig, Stage
from roadworthy.core.models import load_model
from roadworthy.learn.amateur import learn_amateur
from roadworthy.learn.batches import Source
from roadworthy.learn.distill import distill
from roadworthy.learn.expert import Job, learn_expert, reopened
from roadworthy.learn.generalist import learn_generalist
from roadworthy.learn.machine import Machine
from roadworthy.learn.manifest import preprocess_of, read_manifest
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import captioned, source

RECIPE = Path(__file__).parents[1] / "recipes" / "ship_backbone.py"
FEW, CPU = Plan(steps=2, batch=4), Machine("cpu")
SCENES = "roadworthy scenes (synthetic)"


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Generator[None]:
    stages = tuple(Stage("mbconv", 1, 8, 2, 2, 8) for _ in range(4))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(POINTS, "tiny", MetaNetConfig(stages, stem=8, head=16))
        yield


@pytest.fixture(scope="module")
def depth() -> Source:
    return source("scenes:0-8", "depth", 32)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, depth: Source) -> Path:
    """Two experts, a generalist of them, what was distilled from it, and a probe."""
    root = tmp_path_factory.mktemp("lab")
    classes = source("scenes:0-8", "classification", 32)
    judged = source("scenes:8-12", "depth", 32)
    learn_expert("metanet:tiny@random", [depth], Job(root / "depth", FEW, CPU))
    learn_expert(str(root / "depth"), [classes], Job(root / "classes", FEW, CPU))
    folders = root / "depth", [root / "classes"]
    learn_generalist(*folders, [depth], Job(root / "generalist", FEW, CPU))
    job = Job(root / "distilled", FEW, CPU, held_out=[judged])
    distill(str(root / "generalist"), str(root / "depth"), [depth], job)
    shown = ["metanet:tiny@random", str(root / "distilled")]
    asked = ["--data", "depth=scenes:0-8", "--test", "depth=scenes:8-12", "--size", "32"]
    assert main(["learn", "probe", *shown, *asked, "--out", str(root / "probe")]) == 0
    return root


def ship(folder: Path, root: Path, patched: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The file of weights and the card that the recipe writes below `root`."""
    patched.setattr("sys.argv", [str(RECIPE), str(folder), "--root", str(root)])
    runpy.run_path(str(RECIPE), run_name="__main__")
    weights = root / "src" / "roadworthy" / "core" / "weights" / "tiny.safetensors"
    return weights, (root / "docs" / "models" / "tiny.md").read_text()


def test_the_file_is_the_stages_backbone(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = ship(lab / "distilled", tmp_path, monkeypatch)
    monkeypatch.setattr(models, "SHIPPED", file.parent)
    found, x = load_model("metanet:tiny"), torch.randn(2, 3, 32, 32)
    assert torch.equal(found.module(x), reopened(lab / "distilled").backbone(x))
    assert found.preprocess == preprocess_of(32)
    with safe_open(file, "pt") as held:
        origin = json.loads(held.metadata()["origin"])
    wrote = (lab / "distilled" / "manifest.json").read_bytes()
    assert origin["manifest"] == hashlib.sha256(wrote).hexdigest()
    assert sorted(origin["stages"].values()) == ["distilled", "expert", "expert", "generalist"]


def test_it_is_the_same_to_the_byte_wherever_the_stages_lie(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ship(lab / "distilled", tmp_path / "a", monkeypatch)
    moved = lab.rename(tmp_path / "moved")
    try:
        there = ship(moved / "distilled", tmp_path / "b", monkeypatch)
    finally:
        moved.rename(lab)
    assert here[0].read_bytes() == there[0].read_bytes()
    assert here[1] == there[1]
    for place in (str(lab), str(tmp_path), str(Path.cwd())):
        assert place not in here[1]
        assert place.encode() not in here[0].read_bytes()


def test_what_safetensors_leaves_to_chance_is_sorted() -> None:
    recipe = runpy.run_path(str(RECIPE))
    weights = {"b": torch.ones(3, dtype=torch.bfloat16), "a": torch.tensor(3)}
    told = dict.fromkeys("hgfedcba", "said")
    files = {recipe["packed"](weights, dict(sorted(told.items(), reverse=r))) for r in (0, 1) * 8}
    assert len(files) == 1
    (content,) = files
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    header = json.loads(content[8:end])
    assert (header["b"]["dtype"], header["a"]["dtype"]) == ("F32", "I64")
    assert header["__metadata__"] == told


def test_the_card_says_what_the_manifests_say(
    lab: Path, depth: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, card = ship(lab / "distilled", tmp_path, monkeypatch)
    manifest = read_manifest(lab / "distilled")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    stages = "depth, generalist, distilled"
    assert f"| {SCENES} | depth | 8 | `{depth.sha256[:12]}` | {stages} |" in card
    assert f"| {SCENES} | classification | 8 | " in card
    assert f"{manifest['total']['images']} images seen" in card
    assert manifest["total"]["images"] == 4 * 2 * 4
    for name in ("depth", "classes", "generalist", "distilled"):
        sha256 = read_manifest(lab / name)["files"]["model.safetensors"]
        assert re.search(rf"\| {name} \| \w+ \| 2 \| 4 \| 0.002 \| 0 \| `{sha256[:12]}`", card)
    (row,) = manifest["held_out"]
    assert f"| {SCENES} | depth | {SCENES} | 4 | rmse | {row['value']:.3f} |" in card
    drawn, own = json.loads((lab / "probe" / "run.json").read_text())["probes"]
    assert f"| 4 | 8 | 32 | rmse | {own['value']:.3f} | {drawn['value']:.3f} |" in card
    parts = sum(each.numel() for each in reopened(lab / "distilled").backbone.parameters())
    assert f"| parameters | {parts:,} |" in card
    assert "32 x 32 pixels" in card
    assert "{" not in card.replace('{"decode"', "")


def test_an_amateur_is_judged_by_captions_without_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, given = captioned("scenes:8-12", 32), [captioned("scenes:0-8", 32)]
    job = Job(tmp_path / "amateur", FEW, CPU)
    learn_amateur("metanet:tiny@random", given, job, judged=[held])
    _, card = ship(tmp_path / "amateur", tmp_path, monkeypatch)
    assert f"| {SCENES} | 4 | image to text recall@1 |" in card


def refusal(folder: Path, tmp_path: Path, patched: pytest.MonkeyPatch) -> str:
    with pytest.raises(SystemExit) as left:
        ship(folder, tmp_path / "root", patched)
    assert not (tmp_path / "root").exists()
    said = str(left.value.code)
    assert "\n" not in said
    return said


def test_a_source_of_unknown_terms_is_refused(
    depth: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = replace(depth, name="somebody's")
    learn_expert("metanet:tiny@random", [strange], Job(tmp_path / "expert", FEW, CPU))
    said = refusal(tmp_path / "expert", tmp_path, monkeypatch)
    assert "learned from somebody's, of unknown terms" in said


def test_a_missing_or_other_ancestor_is_refused(
    lab: Path, depth: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(lab / "distilled", tmp_path / "lab" / "distilled")
    manifest = tmp_path / "lab" / "distilled" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(lab), "gone"))
    said = refusal(tmp_path / "lab" / "distilled", tmp_path, monkeypatch)
    assert "gone/generalist" in said
    learn_expert("metanet:tiny@random", [depth], Job(tmp_path / "lab" / "generalist", FEW, CPU))
    again = refusal(tmp_path / "lab" / "distilled", tmp_path, monkeypatch)
    assert again == said


def test_only_one_branch_of_a_named_network_is_shipped(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "1 auxiliaries; give a stage of one of mn_xs" in refusal(
        lab / "generalist", tmp_path, monkeypatch
    )
    assert "is no finished stage" in refusal(tmp_path, tmp_path, monkeypatch)


def test_weights_that_are_no_numbers_are_refused(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(lab / "depth", tmp_path / "depth")
    model, manifest = (tmp_path / "depth" / n for n in ("model.safetensors", "manifest.json"))
    weights = read_weights(model)
    weights["stem.0.weight"].fill_(torch.inf)
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    save_file(weights, model)
    after = hashlib.sha256(model.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(before, after))
    assert "has NaN or infinite values" in refusal(tmp_path / "depth", tmp_path, monkeypatch)
