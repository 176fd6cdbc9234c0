"""BatchNorm goes into the layers around it where that changes nothing, and stays where it would."""

import pytest
import torch
from torch import Tensor, nn

from roadworthy.core.capture import capture
from roadworthy.core.fold import aten


class Before(nn.Module):
    """A norm behind a sum, as blocks that normalise first have it, and its readers."""

    def __init__(self, *readers: nn.Module, channels: int = 6) -> None:
        super().__init__()
        norm = nn.BatchNorm1d if isinstance(readers[0], nn.Linear) else nn.BatchNorm2d
        self.norm, self.readers = norm(channels), nn.ModuleList(readers)
        for name in ("running_mean", "running_var", "weight", "bias"):
            nn.init.uniform_(getattr(self.norm, name), 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x + x.abs())
        return torch.cat([reader(y).flatten(1) for reader in self.readers], 1)


def norms(module: nn.Module, x: Tensor) -> int:
    """How many are left in the captured graph, whose answers are the module's."""
    graph = capture(module.double().eval(), x.double())
    torch.testing.assert_close(graph(x.double()), module(x.double()), rtol=1e-12, atol=1e-12)
    return sum(node.target is aten.batch_norm.default for node in graph.graph.nodes)


@pytest.mark.parametrize(
    "readers",
    [
        (nn.Conv2d(6, 4, 1, bias=False),),
        (nn.Conv2d(6, 4, 3, stride=2, groups=2),),
        (nn.Conv2d(6, 4, (1, 3), padding="valid"), nn.Conv2d(6, 6, 1, groups=6)),
        (nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)),),
    ],
)
def test_it_goes_into_what_reads_it(readers: tuple[nn.Module, ...]) -> None:
    assert norms(Before(*readers), torch.randn(3, 6, 5, 5)) == 0


def test_it_goes_into_linears_of_vectors() -> None:
    assert norms(Before(nn.Linear(6, 4), nn.Linear(6, 2, bias=False)), torch.randn(3, 6)) == 0


@pytest.mark.parametrize(
    "readers",
    [
        (nn.Conv2d(6, 4, 3, padding=1),),
        (nn.Conv2d(6, 4, 3, padding="same"),),
        (nn.Conv2d(6, 4, 1), nn.ReLU()),
        (nn.ReLU(),),
    ],
)
def test_it_stays_where_something_else_would_notice(readers: tuple[nn.Module, ...]) -> None:
    assert norms(Before(*readers), torch.randn(3, 6, 5, 5)) == 1


def test_it_stays_where_channels_are_not_what_the_linear_mixes() -> None:
    module = Before(nn.Conv2d(6, 6, 1))
    module.readers[0] = nn.Linear(6, 6)
    assert norms(module, torch.randn(2, 6, 6, 6)) == 1
