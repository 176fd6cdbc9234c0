"""Changes inside networks: what they do, and that nothing else is touched."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from roadworthy.core.capture import capture
from roadworthy.noise.changes import Changed, changes


def test_ceil_mode_is_what_torchs_own_pool_does_with_it() -> None:
    model = resnet18().eval()
    images = torch.randn(2, 3, 64, 64)
    assert changes(model, images[:1]) == ("ceil-mode",)
    changed = Changed(model, "ceil-mode")(images)
    before = model(images)
    model.maxpool.ceil_mode = True
    assert torch.equal(changed, model(images))
    assert (changed - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("pool", "wanted"),
    [
        (nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True)),
        (nn.MaxPool2d(3, (2, 1), 1), nn.MaxPool2d(3, (2, 1), 1, ceil_mode=True)),
        (nn.AvgPool2d(2), nn.AvgPool2d(2, ceil_mode=True)),
        (
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        ),
    ],
)
def test_every_pool_rounds_up(pool: nn.Module, wanted: nn.Module) -> None:
    images = torch.randn(2, 3, 10, 9)
    before = pool(images)
    assert torch.equal(Changed(pool, "ceil-mode")(images), wanted(images))
    assert torch.equal(pool(images), before)
    assert wanted(images).shape != before.shape


def test_indices_of_a_pool_are_kept() -> None:
    images = torch.randn(1, 2, 5, 5)
    changed = Changed(nn.MaxPool2d(2, return_indices=True), "ceil-mode")(images)
    wanted = nn.MaxPool2d(2, return_indices=True, ceil_mode=True)(images)
    assert all(torch.equal(a, b) for a, b in zip(changed, wanted, strict=True))


def test_upsampling_changes_its_filter_and_keeps_its_size() -> None:
    images = torch.randn(1, 3, 6, 6)
    net = nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(size=(9, 9), mode="bilinear"))
    assert changes(net, images) == ("upsample-bilinear", "upsample-nearest", "align-corners")
    smooth = nn.Upsample(scale_factor=2, mode="bilinear")(images)
    wanted = nn.Upsample(size=(9, 9), mode="bilinear")(smooth)
    assert torch.equal(Changed(net, "upsample-bilinear")(images), wanted)
    coarse = nn.Upsample(scale_factor=2)(images)
    wanted = nn.Upsample(size=(9, 9))(coarse)
    assert torch.equal(Changed(net, "upsample-nearest")(images), wanted)
    wanted = nn.Upsample(size=(9, 9), mode="bilinear", align_corners=True)(coarse)
    assert torch.equal(Changed(net, "align-corners")(images), wanted)


def test_a_network_without_such_places_admits_no_change() -> None:
    pools = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, stride=1))
    assert changes(pools, torch.zeros(1, 3, 8, 8)) == ()


def test_what_is_changed_can_be_captured() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    images = torch.randn(2, 3, 9, 9)
    assert changes(net, images) == ("ceil-mode", "upsample-bilinear")
    for name, shape in (("ceil-mode", (2, 4, 10, 10)), ("upsample-bilinear", (2, 4, 8, 8))):
        graph = capture(Changed(net, name), images)
        assert graph(images).shape == shape
        torch.testing.assert_close(graph(images), Changed(net, name)(images))
    assert (graph(images) - net(images)).abs().max() > 1e-2


def test_a_pyramid_of_a_detector_is_enlarged_bilinearly() -> None:
    """torch.export refuses such a model; its calls are changed all the same."""
    torch.manual_seed(0)
    pyramid = resnet_fpn_backbone(backbone_name="resnet18", weights=None).eval()
    model = FasterRCNN(pyramid, num_classes=3, min_size=64, max_size=64).eval()
    images = torch.rand(1, 3, 64, 64)
    assert changes(pyramid, images) == ("ceil-mode", "upsample-bilinear")
    assert "upsample-bilinear" in changes(model, images)
    changed, plain = Changed(pyramid, "upsample-bilinear")(images), pyramid(images)
    assert {k: v.shape for k, v in changed.items()} == {k: v.shape for k, v in plain.items()}
    assert not torch.equal(changed["0"], plain["0"])
    assert len(Changed(model, "upsample-bilinear")(images)) == 1
