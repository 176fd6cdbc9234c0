"""Weights that come along begin whatever a backbone begins: stages, probes, adapted models."""

import json
from pathlib import Path

import pytest
import torch
from core.metanets import lively
from safetensors.torch import save_file

from roadworthy.cli import main
from roadworthy.core import models
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.metanet import POINTS, MetaNet, MetaNetConfig, Stage
from roadworthy.core.models import load_model
from roadworthy.learn.backbones import architectures_of, backbone
from roadworthy.learn.manifest import preprocess_of
from roadworthy.searching import network_of

TINY = "metanet:tiny"
SCENES = ("--source", "depth=scenes:0-8")
STILL = ("--size", "32", "--steps", "1", "--batch-size", "4", "--rate", "1e-12")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaNet:
    """A named point of four blocks, of which weights come along."""
    stages = tuple(Stage("mbconv", 1, 8, 2, 2, 8) for _ in range(4))
    monkeypatch.setitem(POINTS, "tiny", MetaNetConfig(stages, stem=8, head=16))
    net = lively(MetaNet(POINTS["tiny"]))
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "tiny.safetensors"
    save_file(net.state_dict(), file, for_safetensors(preprocess_of(32)))
    monkeypatch.setattr(models, "SHIPPED", file.parent)
    return net


def learned(*words: object) -> None:
    assert main(["learn", *map(str, words), "--device", "cpu"]) == 0


def same_kernels(folder: Path, net: MetaNet) -> bool:
    """Whether a stage's convolutions are those of `net`, but for a step of no length."""
    own, wanted = backbone(str(folder)).state_dict(), net.state_dict()
    assert own.keys() == wanted.keys()
    kernels = [name for name, each in wanted.items() if each.ndim == 4]
    return all(torch.allclose(own[name], wanted[name], atol=1e-6) for name in kernels)


def test_a_backbone_has_them_and_learns(net: MetaNet) -> None:
    found, x = backbone(TINY), torch.randn(2, 3, 32, 32)
    assert all(each.requires_grad for each in found.parameters())
    assert torch.equal(found.eval()(x), net(x))
    assert architectures_of(TINY) == (f"{TINY}@random",)


def test_stages_begin_with_them(net: MetaNet, tmp_path: Path) -> None:
    learned("expert", TINY, *SCENES, *STILL, "--out", tmp_path / "expert")
    pair = ("scenes:0-8", "--held", "scenes:8-12")
    learned("amateur", TINY, "--source", *pair, *STILL, "--out", tmp_path / "amateur")
    given = ("distill", TINY, "--student", TINY, *SCENES, *STILL)
    learned(*given, "--out", tmp_path / "distilled")
    for stage in ("expert", "amateur", "distilled"):
        assert same_kernels(tmp_path / stage, net), stage


def test_probes_and_adapted_models_read_their_features(net: MetaNet, tmp_path: Path) -> None:
    pair = ("--data", "classification=scenes:0-20", "--test", "classification=scenes:0-20")
    learned("probe", TINY, *pair, "--size", "32", "--out", tmp_path / "probe")
    record = json.loads((tmp_path / "probe" / "run.json").read_text())
    assert [each["model"] for each in record["probes"]] == [TINY]
    given = ["adapt", TINY, "--task", "classification", "--data", "scenes:0-20", "--size", "32"]
    out = tmp_path / "adapted"
    assert main([*given, "--fraction", "1", "--device", "cpu", "--out", str(out)]) == 0
    adapted = load_model(f"py:{out}/model.py:build").module
    assert isinstance(adapted.body, MetaNet)
    assert torch.equal(adapted.body.state_dict()["stem.0.weight"], net.stem[0].weight)


def test_a_generalist_is_made_of_folders(
    net: MetaNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--with", str(tmp_path), *SCENES, *STILL, "--out", str(tmp_path / "generalist"))
    assert main(["learn", "generalist", TINY, *out]) == 2
    assert "is no finished stage; give folders" in capsys.readouterr().err


def test_a_search_goes_around_the_network_without_them(net: MetaNet) -> None:
    (models.SHIPPED / "tiny.safetensors").write_bytes(b"no weights")
    assert network_of(TINY) == POINTS["tiny"]
