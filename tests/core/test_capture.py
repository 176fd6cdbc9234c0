"""Capture: the graph computes what the module computes, whatever the batch."""

import pytest
import torch
from torch import nn

from roadworthy.core.capture import capture
from roadworthy.core.fold import aten
from roadworthy.errors import BadModel


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.b(torch.relu_(self.a(x)))) + x)


def trained_statistics(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module.eval()


def test_any_batch_gives_what_the_module_gives() -> None:
    module = trained_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), Residual(), Residual()))
    graph = capture(module, torch.zeros(1, 3, 8, 8))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(graph(x), module(x), rtol=1e-4, atol=1e-5)


def test_folding_leaves_no_norm_behind() -> None:
    module = trained_statistics(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))
    graph = capture(module, torch.zeros(1, 3, 8, 8))
    assert not [n for n in graph.graph.nodes if n.target is aten.batch_norm.default]


def test_a_norm_whose_input_is_read_elsewhere_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    module = trained_statistics(Shared())
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(capture(module, x)(x), module(x))


def test_a_mutated_tensor_is_read_after_its_mutation() -> None:
    class Mutating(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            y.relu_()
            return y * 2

    x = torch.randn(2, 3) * 3
    assert torch.equal(capture(Mutating(), x)(x), Mutating()(x))


@pytest.mark.parametrize("mask", [None, "float", "bool"])
def test_opened_attention_is_attention(mask: str | None) -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = x.chunk(3, -1)
            bias = None
            if mask == "float":
                bias = torch.arange(36.0).view(6, 6) / 9
            if mask == "bool":
                bias = torch.ones(6, 6, dtype=torch.bool).tril()
            return nn.functional.scaled_dot_product_attention(q, k, v, bias)

    x = torch.randn(2, 2, 6, 12)
    graph = capture(Attention(), x)
    assert sum(n.target is aten.matmul.default for n in graph.graph.nodes) == 2
    torch.testing.assert_close(graph(x), Attention()(x))


def test_refused_model_names_its_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(BadModel, match=r"test_capture\.py:\d+.*torch\.where"):
        capture(Branching(), torch.ones(1, 3))


def test_nan_weights_are_named() -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    with pytest.raises(BadModel, match=r"0\.weight.*NaN"):
        capture(module, torch.ones(1, 3))


def test_two_outputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x + 1

    with pytest.raises(BadModel, match="2 outputs"):
        capture(Two(), torch.ones(1, 3))


def test_a_random_model_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(BadModel, match="differs"):
        capture(Noisy(), torch.ones(1, 3))
