"""Backbones: one face for MetaNet and timm's models."""

from pathlib import Path

import pytest
import torch

from roadworthy.core.images import IMAGENET
from roadworthy.errors import BadModel
from roadworthy.learn.backbones import TimmBackbone, architectures_of, backbone


@pytest.mark.parametrize(
    ("spec", "channels"),
    [
        ("metanet:mn_xs@random", (24, 48, 64, 128)),
        ("timm:resnet18@random", (64, 128, 256, 512)),
        ("timm:efficientnet_lite0@random", (24, 40, 112, 320)),
        ("timm:swin_tiny_patch4_window7_224@random", (96, 192, 384, 768)),
        ("timm:vit_tiny_patch16_224@random", (192,) * 4),
    ],
)
def test_all_show_the_same_face(spec: str, channels: tuple[int, ...]) -> None:
    net = backbone(spec).eval()
    x = torch.randn(2, 3, 224, 224) if "224" in spec else torch.randn(2, 3, 64, 64)
    assert all(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        assert net(x).shape == (2, net.width)
        maps = net.forward_features(x)
    side = x.shape[-1]
    assert net.channels == channels
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, side // s, side // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_timm_maps_are_its_own() -> None:
    import timm

    net = backbone("timm:resnet18@random").eval()
    assert isinstance(net, TimmBackbone)
    plain = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    plain.load_state_dict(net.model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    for own, theirs in zip(net.forward_features(x), plain(x), strict=True):
        torch.testing.assert_close(own, theirs)


def test_a_model_without_maps_is_told() -> None:
    with pytest.raises(BadModel, match="hands out no maps"):
        backbone("torchvision:resnet18@random")


def test_a_model_of_timm_sees_colours_as_in_its_own_training() -> None:
    body = backbone("timm:vit_tiny_patch16_224@random").eval()  # mean and deviation are a half
    assert isinstance(body, TimmBackbone)
    pixels = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET.mean, IMAGENET.std))
    given = (pixels - mean) / std
    torch.testing.assert_close(body(given), body.model(2 * pixels - 1), atol=1e-4, rtol=1e-4)


def test_a_model_of_timm_that_a_file_builds_is_a_backbone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import timm\nPREPROCESS = {'mean': [0.5] * 3, 'std': [0.5] * 3}\n"
        "def build():\n    return timm.create_model('resnet10t')\n"
    )
    spec = f"py:{tmp_path}/net.py:build"
    body = backbone(spec)
    assert isinstance(body, TimmBackbone)
    assert body.get_buffer("offset")[0].item() == pytest.approx(2 * 0.485 - 1, abs=1e-6)
    assert architectures_of(spec) == (spec,)
