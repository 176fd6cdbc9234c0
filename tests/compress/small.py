"""A small residual network with weights of some structure, and images for it."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, fx, nn

from roadworthy.compress.methods import Method, QDrop, with_batch_size, with_iterations
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(torch.relu(self.a(x))) + x)


def network() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        Block(8),
        Block(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 6),
    ).eval()
    with torch.no_grad():  # every class is somebody's
        module[-1].bias -= module(images()).mean(0)
    return module


def images(count: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear") * 2


def graph() -> fx.GraphModule:
    return deepcopy(_captured())


@cache
def _captured() -> fx.GraphModule:
    return capture(network(), images(1))


def plan(method: Method | None = None, steps: int = 40, bits: int = 3) -> Plan:
    method = replace(method or QDrop(), weight_bits=bits, act_bits=bits)
    return Plan(with_batch_size(with_iterations(method, steps), 16), ACADEMIC, Widths(bits, bits))
