"""ReLU and ReLU6 in front of a quantizer become bounds of its codes, without changing a value."""

from pathlib import Path

import onnx
import pytest
import torch
from by_hand import ops
from torch import nn

from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.runtimes import OrtPredictor

GRIDS = [(6 / 255, 0, 8), (0.03, 0, 8), (0.01, 0, 8), (0.4, 0, 4), (0.5, 3, 4), (2.5, 1, 2)]


class Clipped(nn.Module):
    """The clip in front of every grid, side by side."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        for i, (scale, zero, _) in enumerate(GRIDS):
            self.register_buffer(f"scale{i}", torch.tensor(scale))
            self.register_buffer(f"zero{i}", torch.tensor(float(zero)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = [
            ops.fake_quantize(
                self.clip(x), getattr(self, f"scale{i}"), getattr(self, f"zero{i}"), 0, 2**bits - 1
            )
            for i, (_, _, bits) in enumerate(GRIDS)
        ]
        return torch.cat(columns, 1).flatten(1)


@pytest.mark.parametrize("clip", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-1.0, 2.0)])
def test_absorbed_clips_are_exact(clip: nn.Module, tmp_path: Path) -> None:
    module, path = Clipped(clip), tmp_path / "clip.onnx"
    x = torch.linspace(-9, 9, 4 * 700).view(4, 1, 1, 700)
    export_onnx(module, x, path)
    clips = [n for n in onnx.load(str(path)).graph.node if n.op_type in ("Relu", "Clip")]
    assert all(n.input[0].endswith(".codes") for n in clips)
    assert torch.equal(OrtPredictor(path, 1)(x), module(x))
