"""Biases move by half a step at most, once, and then simulation and integer kernels are equal."""

from pathlib import Path

import pytest
import torch
from by_hand import SmallNet, aten, by_hand, seeded, some_images
from torch import fx

from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.runtimes import OrtPredictor


def biases(graph: fx.GraphModule) -> list[torch.Tensor]:
    layers = (aten.conv2d.default, aten.linear.default)
    nodes = [node.args[2] for node in graph.graph.nodes if node.target in layers]
    return [graph.get_parameter(node.target).detach().clone() for node in nodes]


@pytest.mark.parametrize("bits", [8, 2])
def test_snapping_moves_little_and_once(bits: int) -> None:
    graph = by_hand(seeded(SmallNet), some_images(32), bits, bits, bits == 8)
    plain = [
        value.detach() for name, value in seeded(SmallNet).named_parameters() if "bias" in name
    ]
    snapped = biases(graph)
    assert any(not torch.equal(a, b) for a, b in zip(plain, snapped, strict=True))
    for before, after in zip(plain, snapped, strict=True):
        assert (before - after).abs().max() < (1e-4 if bits == 8 else 0.02)
    assert snap_biases(graph) == 5
    for once, twice in zip(snapped, biases(graph), strict=True):
        assert torch.allclose(once, twice, rtol=1e-6, atol=0)


def test_snapped_biases_make_two_bits_exact(tmp_path: Path) -> None:
    graph = by_hand(seeded(SmallNet), some_images(32), 2, 2, signed=False)
    images = some_images(100)
    export_onnx(graph, images, tmp_path / "snapped.onnx")
    found = OrtPredictor(tmp_path / "snapped.onnx", 1)(images)
    assert torch.allclose(found, graph(images), atol=1e-6)


def test_biases_off_the_grid_show() -> None:
    """What the snapping is for: without it the same comparison fails."""
    graph = by_hand(seeded(SmallNet), some_images(32), 2, 2, signed=False)
    exact = dict(seeded(SmallNet).named_parameters())
    before = graph(some_images(100))
    for node in graph.graph.nodes:
        if node.target in (aten.conv2d.default, aten.linear.default):
            name = node.args[2].target
            graph.get_parameter(name).data.copy_(exact[name].detach())
    assert (before - graph(some_images(100))).abs().max() > 1e-3
