"""Soft sharing: what frozen experts see is added to the maps of one that goes on learning.

At each tap k of the main branch, h_main^k + sum over j <= k of T_{j->k}(h_aux^j), with no gradient
into the auxiliaries (INTERN, arXiv 2111.08687). Each T begins by adding exactly nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DEVIATION = 1e-3


def transfer(cin: int, cout: int, halvings: int) -> nn.Sequential:
    """T of one pair of taps: 1x1, or a 3x3 of stride 2 for each halving, with BatchNorm and ReLU.

    Only the last BatchNorm begins with gain 0: with all of them at 0 no gradient reaches any.

    >>> transfer(8, 16, halvings=2)(torch.ones(2, 8, 8, 8)).abs().sum().item()
    0.0
    """
    layers: list[nn.Module] = []
    for left in range(max(halvings, 1) - 1, -1, -1):
        width = cin if left else cout
        conv = nn.Conv2d(cin, width, 1, bias=False)
        if halvings:
            conv = nn.Conv2d(cin, width, 3, 2, padding=1, bias=False)
        nn.init.normal_(conv.weight, std=_DEVIATION)
        layers += [conv, nn.BatchNorm2d(width), *([nn.ReLU()] if left else [])]
    last = layers[-1]
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    return nn.Sequential(*layers)


class Transfers(nn.Module):
    """T_{j->k} of one auxiliary for every j <= k.

    Args:
        cin: channels of the auxiliary's maps, finest first; each has half the side of the last.
        cout: those of the main branch.
    """

    def __init__(self, cin: Sequence[int], cout: Sequence[int]) -> None:
        super().__init__()
        self.rows = nn.ModuleList(
            nn.ModuleList(transfer(cin[j], width, k - j) for j in range(k + 1))
            for k, width in enumerate(cout)
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> list[Float[Tensor, "b d2 h2 w2"]]:
        """What is added at each tap."""
        rows: Any = self.rows
        return [torch.stack([t(x) for t, x in zip(row, maps, strict=False)]).sum(0) for row in rows]
