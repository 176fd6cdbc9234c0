"""Integers in torch are the runtime's integers: not close, equal."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from roadworthy.compress.methods import Mse
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import backend
from roadworthy.core.capture import capture
from roadworthy.core.predict import TorchPredictor
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.runtimes import OrtPredictor


class Inverted(nn.Module):
    """MobileNetV2's block: widen, depthwise, narrow, skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
            nn.ReLU6(),
            nn.Conv2d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def network(depth: int = 6) -> nn.Module:
    torch.manual_seed(0)
    blocks = [Inverted(12) for _ in range(depth)]
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )
    return net.eval()


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 8), (4, 4)])
def test_every_logit_is_the_runtimes(tmp_path: Path, bits: tuple[int, int]) -> None:
    images = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    graph = capture(network(), images[:1])
    plan = Plan(Mse(*bits), backend("onnxruntime-cpu", bits[1]), Widths(*bits, ("first", "last")))
    module = compress(graph, images[:64], plan).module
    snap_biases(module)
    export_onnx(module, images[:2], tmp_path / "model.onnx")
    deployed = OrtPredictor(tmp_path / "model.onnx")(images)
    integers = (IntegerPredictor(module)(images) - deployed).abs().max()
    floats = (TorchPredictor(module)(images) - deployed).abs().max()
    assert integers <= 1e-5 * deployed.abs().max()
    assert integers <= floats
