"""CIFAR ResNet-20 and -56 with option A shortcuts, as `py:` model specs.

`py:benchmarks/resnet_cifar.py:resnet20` builds the network in eval mode with the public weights
of `$ROADWORTHY_DATA/resnet_cifar`. Architecture: He et al. 2016, section 4.2 (arXiv 1512.03385).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREPROCESS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

CHECKPOINTS = {3: "resnet20-12fca82f.th", 9: "resnet56-4bfd9763.th"}


class PadShortcut(nn.Module):
    """Option A: every second pixel, channels filled up with zeros on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.half = added // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.half, self.half))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = PadShortcut(outputs - inputs) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, 1 if inputs == outputs else 2)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(depth - 1)))


class CifarResNet(nn.Module):
    """Images [b 3 32 32] to logits [b 10]; `depth` blocks in each of three stages."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, depth)
        self.layer2 = _stage(16, 32, depth)
        self.layer3 = _stage(32, 64, depth)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _pretrained(depth: int) -> nn.Module:
    data = os.environ.get("ROADWORTHY_DATA")
    if data is None:
        raise FileNotFoundError("set ROADWORTHY_DATA to the folder that holds resnet_cifar/*.th")
    path = Path(data) / "resnet_cifar" / CHECKPOINTS[depth]
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(depth)
    absent, extra = model.load_state_dict(
        {name.removeprefix("module."): value for name, value in state.items()}, strict=False
    )
    # The checkpoints predate BatchNorm's batch counter, which inference does not read.
    if extra or any(not name.endswith("num_batches_tracked") for name in absent):
        raise ValueError(f"{path}: keys do not match: absent {absent}, extra {extra}")
    return model.eval()


def resnet20() -> nn.Module:
    return _pretrained(3)


def resnet56() -> nn.Module:
    return _pretrained(9)
