"""What a network costs: its parameters, and what it multiplies for one image."""

from collections.abc import Callable

import torch
from torch import nn

Build = Callable[[], nn.Module]


def parameters(module: nn.Module) -> int:
    """Numbers that are learned.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters())


def macs(build: Build, *shape: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image of this shape.

    Papers of networks call these FLOPs. Norms, activations and pools are left out. The network is
    built without memory, whatever its size.

    >>> macs(lambda: nn.Conv2d(3, 8, 3, padding=1), 3, 10, 10)
    21600
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build().eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2
