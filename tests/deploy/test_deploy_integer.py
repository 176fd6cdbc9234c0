"""Integers in torch are the runtime's integers: not close, equal."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

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


@cache
def captured() -> fx.GraphModule:
    return capture(network(), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 8), (4, 4)])
def test_every_logit_is_the_runtimes(tmp_path: Path, bits: tuple[int, int]) -> None:
    images = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    graph = captured()
    plan = Plan(Mse(*bits), backend("onnxruntime-cpu", bits[1]), Widths(*bits, ("first", "last")))
    module = compress(graph, images[:64], plan).module
    snap_biases(module)
    export_onnx(module, images[:2], tmp_path / "model.onnx")
    deployed = OrtPredictor(tmp_path / "model.onnx")(images)
    integers = (IntegerPredictor(module)(images) - deployed).abs().max()
    floats = (TorchPredictor(module)(images) - deployed).abs().max()
    assert integers <= 1e-5 * deployed.abs().max()
    assert integers <= floats


def test_weights_of_float_sums_are_widened_as_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, images = Inverted(12).eval(), torch.randn(16, 12, 8, 8)
    net.body[4].weight.data += 0.05  # a byte has room for its codes five times over
    plan = Plan(Mse(4, 8), backend("academic", 8), Widths(4, 8, ()))
    module = compress(capture(net, images[:1]), images, plan).module
    snap_biases(module)
    export_onnx(module, images[:2], tmp_path / "model.onnx")
    assert torch.equal(
        IntegerPredictor(module)(images), OrtPredictor(tmp_path / "model.onnx")(images)
    )


class Sum(nn.Module):
    """A picture on a random grid and its transpose on another, added, on a third grid."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        scales = 0.01 + 0.09 * torch.rand(3, generator=generator)
        scales[2] += scales[:2].sum() / 2
        zeros = torch.randint(0, 256, (3,), generator=generator).float()
        for name, scale, zero in zip("abc", scales, zeros, strict=True):
            self.register_buffer(f"scale_{name}", scale)
            self.register_buffer(f"zero_{name}", zero)

    def forward(self, x: Tensor) -> Tensor:
        on_grid = torch.ops.roadworthy.fake_quantize.default
        a = on_grid(x, self.scale_a, self.zero_a, 0, 255)
        turned = torch.ops.aten.permute.default(x, [0, 1, 3, 2])
        b = on_grid(turned, self.scale_b, self.zero_b, 0, 255)
        total = on_grid(torch.ops.aten.add.Tensor(a, b), self.scale_c, self.zero_c, 0, 255)
        return torch.ops.aten.flatten.using_ints(total, 1)


class Sums(nn.Module):
    """Twelve of them side by side: one export, many grids."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.ModuleList(Sum(seed) for seed in range(12))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.cat.default([each(x) for each in self.sums], 1)


def test_sums_round_in_the_runtimes_order(tmp_path: Path) -> None:
    values = torch.linspace(-12, 12, 512)
    images = values.view(1, 1, 512, 1).expand(2, 1, 512, 512).contiguous()  # all pairs of codes
    module = fx.symbolic_trace(Sums())
    export_onnx(module, images, tmp_path / "model.onnx")
    deployed = OrtPredictor(tmp_path / "model.onnx")(images)
    assert torch.equal(IntegerPredictor(module)(images), deployed)
