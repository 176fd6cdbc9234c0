"""Rounding: where it starts, where it ends, and its gradient against autograd."""

import pytest
import torch

from roadworthy.compress.calibrate import set_weight_ranges
from roadworthy.compress.methods import Mse
from roadworthy.compress.rounding import GAMMA, ZETA, WeightQuantizer, inverse_soft_step, soft_step
from roadworthy.core.grid import Grid, quantize


def quantizer(bits: int = 3, signed: bool = False) -> WeightQuantizer:
    torch.manual_seed(0)
    module = WeightQuantizer(torch.randn(4, 3, 3, 3), Grid(bits, signed))
    set_weight_ranges([module], Mse(), None)
    return module


def test_soft_step_inverts() -> None:
    fraction = torch.linspace(0, 1, 11)
    torch.testing.assert_close(soft_step(inverse_soft_step(fraction)), fraction)


@pytest.mark.parametrize("bits", range(2, 9))
def test_soft_rounding_starts_at_the_float_weight_and_hard_at_the_nearest(bits: int) -> None:
    module = quantizer(bits)
    module.begin("soft")
    scale, zero = module.scale.detach(), module.zero_point
    low = ((module.grid.qmin - zero) * scale).view(-1, 1, 1, 1)
    high = ((module.grid.qmax - zero) * scale).view(-1, 1, 1, 1)
    clipped = torch.maximum(torch.minimum(module.weight, high), low)
    torch.testing.assert_close(module().detach(), clipped, rtol=1e-4, atol=1e-5)
    module.harden()
    nearest = quantize(module.weight, scale, zero, module.grid)
    assert torch.equal(module.codes().float(), nearest)


def test_gradient_is_autograds() -> None:
    module = quantizer()
    module.begin("soft")
    module.pull = (0.3, 5.0)
    upstream = torch.randn_like(module.weight)
    module().backward(upstream)
    v = module.v.detach().clone().requires_grad_()
    gain = torch.zeros(4, requires_grad=True)
    h = (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
    zero = module.zero_point.view(-1, 1, 1, 1)
    codes = (module.floor + h + zero).clamp(0, module.grid.qmax) - zero
    weight = codes * (module.base_scale * gain.exp()).view(-1, 1, 1, 1)
    pull = 0.3 * (1 - (2 * h - 1).abs().pow(5)).sum()
    ((weight * upstream).sum() + pull).backward()
    inside = (module.floor + zero >= 0) & (module.floor + zero < module.grid.qmax)
    # where both neighbours are one code, V moves nothing but the regulariser still pulls
    torch.testing.assert_close(module.v.grad[inside], v.grad[inside], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.log_gain.grad, gain.grad, rtol=1e-4, atol=1e-4)


def test_regulariser_ends_at_whole_codes() -> None:
    module = quantizer()
    module.begin("soft")
    optimiser = torch.optim.Adam([module.v], 0.05)
    for _ in range(400):
        module.pull = (1.0, 2.0)
        optimiser.zero_grad()
        module().backward(torch.zeros_like(module.weight))
        optimiser.step()
    h = soft_step(module.v.detach())
    assert float((h * (1 - h)).max()) < 1e-3


def test_straight_through_starts_and_ends_at_the_same_codes() -> None:
    module = quantizer()
    before = module.codes()
    module.begin("straight-through")
    module.harden()
    assert torch.equal(module.codes(), before)


def test_pair_limit_holds() -> None:
    module = WeightQuantizer(torch.randn(8, 50), Grid(8, signed=True))
    set_weight_ranges([module], Mse(), 127)
    codes = module.codes().int()
    two = codes.clamp(min=0).topk(2, 1).values.sum(1)
    assert int(two.max()) <= 128
    set_weight_ranges([module], Mse(), None)
    assert int(module.codes().int().clamp(min=0).topk(2, 1).values.sum(1).max()) > 128
