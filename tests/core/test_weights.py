"""Weights that come along: found in the package, opened strictly, and what is told without them."""

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from core.metanets import lively
from safetensors.torch import save_file
from torch import nn

from roadworthy.core import models
from roadworthy.core.checkpoints import read_weights
from roadworthy.core.images import Preprocess
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.metanet import POINTS, MetaNet
from roadworthy.core.models import SHIPPED, load_model
from roadworthy.errors import BadModel

ROOT = Path(__file__).parents[2]
OWN = Preprocess(crop=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
FILE = SHIPPED / "mn_xs.safetensors"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaNet:
    """A backbone whose weights are the only ones that come along."""
    net = lively(MetaNet(POINTS["mn_xs"]))
    save_file(net.state_dict(), tmp_path / "mn_xs.safetensors", for_safetensors(OWN))
    monkeypatch.setattr(models, "SHIPPED", tmp_path)
    return net


def test_a_name_alone_opens_them(net: MetaNet) -> None:
    found = load_model("metanet:mn_xs")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(found.module(x), net(x))
    assert (found.preprocess, found.input_shape) == (OWN, (3, 32, 32))


def test_a_file_or_random_weights_go_before_them(net: MetaNet, tmp_path: Path) -> None:
    x = torch.randn(1, 3, 32, 32)
    torch.save(MetaNet(POINTS["mn_xs"]).eval().state_dict(), tmp_path / "own.pth")
    for weights in ("random", tmp_path / "own.pth"):
        said = load_model(f"metanet:mn_xs@{weights}").module(x)
        assert said.shape != net(x).shape or not torch.allclose(said, net(x))


def test_a_backbone_answers_embeddings_and_a_classifier_scores(net: MetaNet) -> None:
    assert load_model("metanet:mn_xs").says == "embeddings"
    assert load_model("metanet:mn_xs@random").says == "scores"
    with pytest.raises(BadModel, match="`adapt` makes of a backbone"):
        load_model("metanet:mn_xs").scoring()


def test_other_networks_have_none(net: MetaNet, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"mn_s has no weights that come along \(mn_xs has\); .*@"):
        load_model("metanet:mn_s")
    (tmp_path / "mn_xs.safetensors").unlink()
    with pytest.raises(BadModel, match=r"mn_xs has no weights that come along \(none has\)"):
        load_model("metanet:mn_xs")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("stem.0.weight"), r"mn_xs\.safetensors does not fit .* missing: stem"),
        (lambda w: w.update(odd=torch.zeros(1)), "unknown: odd"),
        (lambda w: w["stem.0.weight"].fill_(torch.nan), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(net: MetaNet, tmp_path: Path, spoil, message: str) -> None:
    weights = {name: each.clone() for name, each in net.state_dict().items()}
    spoil(weights)
    save_file(weights, tmp_path / "mn_xs.safetensors", for_safetensors(OWN))
    with pytest.raises(BadModel, match=message):
        load_model("metanet:mn_xs")


def test_they_are_data_of_the_package() -> None:
    assert Path(str(files("roadworthy.core") / "weights")) == SHIPPED
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    # Every file below it is in the wheel, unless git ignores it or something here leaves it out.
    assert build == {"targets": {"wheel": {"packages": ["src/roadworthy"]}}}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not {"weights", "weights/", "*.safetensors"} & {*ignored}


def test_those_in_this_package_open_and_are_what_their_card_says() -> None:
    assert FILE.stat().st_size <= 8_000_000
    found = load_model("metanet:mn_xs")
    assert isinstance(found.module, MetaNet)
    assert isinstance(found.module.classifier, nn.Identity)
    assert found.input_shape == (3, 64, 64)
    floats = [v for v in read_weights(FILE).values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float32}
    x = torch.linspace(-2, 2, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    first, again = (load_model("metanet:mn_xs").module(x) for _ in range(2))
    assert torch.equal(first, again)
    assert bool(first.isfinite().all())
    assert float(first.std(0).mean()) > 1e-3
    card = (ROOT / "docs" / "models" / "mn_xs.md").read_text()
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() in card
