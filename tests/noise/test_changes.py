import torch
from torch import nn
from torchvision.models import resnet18

from roadworthy.core.capture import capture
from roadworthy.noise.changes import changed, changes


def test_ceil_mode_is_what_torchs_own_pool_does_with_it() -> None:
    model = resnet18().eval()
    images = torch.randn(2, 3, 64, 64)
    graph = changed(capture(model, images), "ceil-mode")
    before = model(images)
    model.maxpool.ceil_mode = True
    torch.testing.assert_close(graph(images), model(images))
    assert (graph(images) - before).abs().max() > 1e-4


def test_a_change_leaves_the_graph_it_was_made_from_alone() -> None:
    images = torch.randn(1, 3, 9, 9)
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)), images)
    before = graph(images)
    assert changed(graph, "ceil-mode")(images).shape[2:] == (5, 5)
    assert torch.equal(graph(images), before)


def test_upsampling_changes_its_filter_and_keeps_its_size() -> None:
    images = torch.randn(1, 3, 6, 6)
    net = nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample(size=(9, 9), mode="bilinear"))
    graph = capture(net, images)
    assert changes(graph) == ("upsample-bilinear", "upsample-nearest", "align-corners")
    smooth = nn.Upsample(scale_factor=2, mode="bilinear")(images)
    wanted = nn.Upsample(size=(9, 9), mode="bilinear")(smooth)
    torch.testing.assert_close(changed(graph, "upsample-bilinear")(images), wanted)
    aligned = nn.Upsample(size=(9, 9), mode="bilinear", align_corners=True)
    wanted = aligned(nn.Upsample(scale_factor=2)(images))
    torch.testing.assert_close(changed(graph, "align-corners")(images), wanted)


def test_a_network_without_such_places_admits_no_change() -> None:
    pools = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, stride=1))
    assert changes(capture(pools, torch.zeros(1, 3, 8, 8))) == ()
