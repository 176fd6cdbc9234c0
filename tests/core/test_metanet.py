"""MetaNet: the published counts, the operators against slow references, strict loading."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from core.metanets import lively
from safetensors.torch import save_file
from torch import nn

from roadworthy.core import metanet_ops as ops
from roadworthy.core.cost import macs, parameters
from roadworthy.core.images import Preprocess
from roadworthy.core.metadata import for_safetensors
from roadworthy.core.metanet import POINTS, MetaNet, MetaNetConfig, Stage, config_of
from roadworthy.core.models import load_model
from roadworthy.errors import BadModel, BadPreprocess

DOWNS = ("inside", "local", "global", "local-global")
OPS = ("mbconv", "fused", "attention", "xca")


def config(op: str, down: str = "inside") -> MetaNetConfig:
    """A network that is one operator all through."""
    rows = zip((8, 8, 16, 16, 24), (1, 2, 2, 2, 2), strict=True)
    stages = tuple(Stage(op, 2, c, s, 2, 8, down if s > 1 else "inside") for c, s in rows)
    return MetaNetConfig(stages, stem=8, head=32, layer_scale=0.5)


@pytest.mark.parametrize(
    ("name", "millions", "digits"),
    [("uninet_b1", 11.451, 3), ("mn_b4", 31.7, 1), ("mn_b15", 1.0e3, -2)],
)
def test_the_published_points_have_the_published_parameters(
    name: str, millions: float, digits: int
) -> None:
    with torch.device("meta"):
        count = parameters(MetaNet(POINTS[name], num_classes=1000))
    assert round(count / 1e6, digits) == millions


def test_b4_multiplies_as_often_as_published() -> None:
    assert round(macs(lambda: MetaNet(POINTS["mn_b4"], 1000), 3, 224, 224) / 1e9, 2) == 3.17


def test_our_points_are_small() -> None:
    with torch.device("meta"):
        small, medium = (parameters(MetaNet(POINTS[n], 1000)) for n in ("mn_xs", "mn_s"))
    assert small < 1e6
    assert medium == pytest.approx(5e6, rel=0.02)


@pytest.mark.parametrize("down", DOWNS)
@pytest.mark.parametrize("op", OPS)
def test_maps_at_four_strides_whatever_the_size(op: str, down: str) -> None:
    net = lively(MetaNet(config(op, down), num_classes=5))
    assert net.channels == (8, 16, 16, 24)
    for height, width in ((32, 32), (96, 64)):
        x = torch.randn(2, 3, height, width)
        shapes = [tuple(m.shape[1:]) for m in net.forward_features(x)]
        sides = [(height // s, width // s) for s in (4, 8, 16, 32)]
        assert shapes == [(c, *side) for c, side in zip(net.channels, sides, strict=True)]
        assert net(x).shape == (2, 5)
    net.classifier = nn.Identity()
    assert net(x).shape == (2, net.width)


def test_taps_are_the_last_stages_of_their_stride() -> None:
    assert POINTS["mn_b4"].taps == (1, 2, 3 + 1, 5)
    assert MetaNet(POINTS["uninet_b1"]).channels == (48, 80, 128, 256)


@pytest.mark.parametrize("name", ["mn_xs", "uninet_b1"])
def test_a_new_network_is_its_shortcuts(name: str) -> None:
    """Every block starts as nothing beside its shortcut, so depth is no hindrance."""
    net = MetaNet(replace(POINTS[name], layer_scale=0.0)).eval()
    x = torch.randn(2, 3, 32, 32)
    for stage in net.stages:
        for block in stage[1:]:
            width = next(block.parameters()).shape[0]
            x = torch.randn(2, width, 4, 4)
            torch.testing.assert_close(block(x), x)


def test_every_weight_is_learned() -> None:
    net = MetaNet(POINTS["mn_xs"], 3).train()
    for step in (0, 1):
        loss = net(torch.randn(4, 3, 64, 64)).square().sum()
        loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 1e-3 * torch.randn_like(p) if step == 0 else 0
    still = [n for n, p in net.named_parameters() if not bool(p.grad.abs().sum() > 0)]
    assert not still


def test_self_attention_is_a_weighted_mean() -> None:
    layer = ops.SelfAttention(8, 6, head_dim=4)
    tokens = torch.randn(1, 5, 8)
    q, k, v = layer.qkv(tokens)[0].chunk(3, -1)
    rows = []
    for i in range(5):
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            weights = torch.stack([q[i, h] @ k[j, h] / 2 for j in range(5)]).softmax(0)
            heads.append(sum(w * v[j, h] for j, w in enumerate(weights)))
        rows.append(layer.proj(torch.cat(heads)))
    torch.testing.assert_close(layer(tokens)[0], torch.stack(rows))


def test_cross_covariance_mixes_channels() -> None:
    layer = ops.CrossCovariance(8, 6, head_dim=4)
    nn.init.uniform_(layer.temperature, 0.5, 2)
    tokens = torch.randn(1, 5, 8)
    q, k, v = layer.qkv(tokens)[0].chunk(3, -1)
    mixed = torch.zeros(5, 8)
    for head in range(2):
        for i in range(4 * head, 4 * head + 4):
            scores = []
            for j in range(4 * head, 4 * head + 4):
                cosine = q[:, i] @ k[:, j] / (q[:, i].norm() * k[:, j].norm())
                scores.append(cosine * layer.temperature[head, 0, 0])
            for j, weight in enumerate(torch.stack(scores).softmax(0)):
                mixed[:, i] += weight * v[:, 4 * head + j]
    torch.testing.assert_close(layer(tokens)[0], layer.proj(mixed))


def test_squeeze_excite_scales_whole_channels() -> None:
    layer = ops.SqueezeExcite(16)
    x = torch.randn(2, 16, 5, 5)
    gain = layer(x) / x
    torch.testing.assert_close(gain, gain[..., :1, :1].expand_as(gain), rtol=1e-4, atol=1e-5)
    assert layer.reduce.out_channels == 8


def test_tokens_come_back_as_the_map() -> None:
    x = torch.randn(2, 4, 3, 5)
    assert torch.equal(ops.map_of(ops.tokens_of(x), 3, 5), x)
    assert torch.equal(ops.tokens_of(x)[0, 6], x[0, :, 1, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stride": 3}, "1 and 2 are allowed"),
        ({"repeats": 0}, "repeats 0"),
        ({"channels": -8}, "channels -8"),
    ],
)
def test_a_stage_cannot_be_wrong(values: dict[str, object], message: str) -> None:
    fine = {"op": "mbconv", "repeats": 1, "channels": 8, "stride": 1, "expansion": 1}
    with pytest.raises(BadModel, match=message):
        Stage(**(fine | values))


def test_a_config_cannot_be_wrong() -> None:
    stages = config("attention").stages
    with pytest.raises(BadModel, match="heads of 8 channels do not divide 12"):
        MetaNetConfig(stages, stem=12)
    with pytest.raises(BadModel, match=r"4, 8, 16, 32 must be there"):
        MetaNetConfig(stages[:-1], stem=8)


def test_a_checkpoint_brings_its_classes_and_preprocessing(tmp_path: Path) -> None:
    net = lively(MetaNet(POINTS["mn_xs"], num_classes=7))
    own = Preprocess(crop=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_file(net.state_dict(), tmp_path / "w.safetensors", for_safetensors(own))
    found = load_model(f"metanet:mn_xs@{tmp_path / 'w.safetensors'}")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(found.module(x), net(x))
    assert found.preprocess == own
    assert found.input_shape == (3, 32, 32)


def test_a_headless_checkpoint_gives_features(tmp_path: Path) -> None:
    net = MetaNet(POINTS["mn_xs"])
    torch.save(net.state_dict(), tmp_path / "w.pth")
    found = load_model(f"metanet:mn_xs@{tmp_path / 'w.pth'}")
    assert found.module(torch.zeros(1, 3, 32, 32)).shape == (1, net.width)
    assert found.preprocess is None


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    net = MetaNet(POINTS["mn_xs"])
    save_file(net.state_dict(), tmp_path / "w.safetensors", {"preprocess": '{"colour": "rbg"}'})
    with pytest.raises(BadPreprocess, match="colour"):
        load_model(f"metanet:mn_xs@{tmp_path / 'w.safetensors'}")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:9999])
    for spec, message in (
        (
            f"mn_s@{tmp_path / 'w.safetensors'}",
            r"missing: stages\.0\.0.*of another shape",
        ),
        (f"mn_xs@{tmp_path / 'half.safetensors'}", "damaged"),
        ("mn_x@random", "did you mean mn_xs"),
        ("mn_s", "no weights that come along"),
        ("", "metanet:NAME"),
    ):
        with pytest.raises(BadModel, match=message):
            load_model(f"metanet:{spec}")


def test_a_network_without_a_name_is_a_file(tmp_path: Path) -> None:
    net = lively(MetaNet(replace(POINTS["mn_xs"], head=64), num_classes=3))
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "net.json").write_text(json.dumps(asdict(net.config)))
    found = load_model(f"metanet:{tmp_path / 'net.json'}@{tmp_path / 'w.safetensors'}")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(found.module(x), net(x))
    with pytest.raises(BadModel, match="of another shape: head"):
        load_model(f"metanet:mn_xs@{tmp_path / 'w.safetensors'}")
    (tmp_path / "net.json").write_text("[")
    with pytest.raises(BadModel, match=r"net\.json cannot be read as a network"):
        load_model(f"metanet:{tmp_path / 'net.json'}@random")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda told: told.pop("head"), "differs in .*head"),
        (lambda told: told.update(head="64"), "differs in .*head.*str"),
        (lambda told: told.update(width=3), "differs in .*width"),
        (lambda told: told["stages"][0].update(op="conv"), "op 'conv' given; mbconv|other values"),
        (lambda told: told["stages"][0].update(repeats="1"), "differs in .*repeats.*str"),
        (lambda told: told["stages"].pop(), "stages of strides"),
    ],
)
def test_a_network_is_said_in_full(spoil: Callable[[Any], object], message: str) -> None:
    told = json.loads(json.dumps(asdict(POINTS["mn_xs"])))
    assert config_of(told) == POINTS["mn_xs"]
    spoil(told)
    with pytest.raises(BadModel, match=message):
        config_of(told)
