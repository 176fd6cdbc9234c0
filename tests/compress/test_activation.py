"""Activation quantizer: the drop's end points, its share, and LSQ's gradient."""

import pytest
import torch

from roadworthy.compress.activation import ActQuantizer, keep_mask, mix
from roadworthy.core.grid import Grid


def quantizer(keep: float, bits: int = 2) -> ActQuantizer:
    module = ActQuantizer(Grid(bits))
    module.set_range(torch.tensor(0.4), torch.tensor(1.0))
    module.keep_quantized = keep
    return module.train()


def test_keeping_all_is_the_runtime_and_keeping_none_the_identity() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(quantizer(1.0)(x), quantizer(1.0).eval()(x))
    assert torch.equal(quantizer(0.0)(x), x)
    assert torch.equal(mix(x, x + 1, 0.0, torch.Generator()), x)
    assert torch.equal(mix(x, x + 1, 1.0, torch.Generator()), x + 1)


def test_annealing_refines_the_steps_and_leaves_the_ends_and_the_runtime_alone() -> None:
    x = torch.linspace(-3, 3, 1000)
    plain, finer = quantizer(1.0), quantizer(1.0)
    finer.finer = 4.0
    coarse, fine = plain(x).unique(), finer(x).unique()
    assert (len(coarse), len(fine)) == (4, 13)
    torch.testing.assert_close(fine[::4], coarse)
    assert torch.equal(plain.eval()(x), finer.eval()(x))


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.9])
def test_the_mask_has_its_share_and_is_fresh(keep: float) -> None:
    generator = torch.Generator().manual_seed(0)
    like = torch.empty(50, 1001)
    first, second = (keep_mask(like, keep, generator) for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert abs(float(first.mean()) - keep) < 0.01
    assert not torch.equal(first, second)


def test_every_element_is_either_quantized_or_untouched() -> None:
    x = torch.randn(4, 5, 6, 6).to(memory_format=torch.channels_last)
    out, full = quantizer(0.5)(x), quantizer(1.0)(x)
    same, kept = torch.isclose(out, x), torch.isclose(out, full)
    assert bool((same | kept).all())
    assert 0.3 < float(kept.float().mean()) < 0.9


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_gradient_is_lsqs(keep: float, layout: torch.memory_format) -> None:
    x = torch.randn(4, 5, 6, 7).to(memory_format=layout).requires_grad_()
    module = quantizer(keep)
    module.generator = torch.Generator().manual_seed(3)
    upstream = torch.randn(4, 5, 6, 7)
    module(x).backward(upstream)
    got, got_scale = x.grad.clone(), module.scale.grad.clone()
    y = x.detach().clone().requires_grad_()
    scale = module.scale.detach().clone().requires_grad_()
    steps = y / scale
    through = steps + (steps.round() - steps).detach()
    codes = torch.where((through >= -1) & (through <= 2), through, through.detach().clamp(-1, 2))
    mask = torch.ones_like(y)
    if keep < 1:
        mask = keep_mask(x.detach(), keep, torch.Generator().manual_seed(3))
    out = torch.where(mask > 0, codes * scale, y)
    (out * upstream).sum().backward()
    torch.testing.assert_close(got, y.grad, rtol=1e-4, atol=1e-5)
    expected = scale.grad / (x.numel() * 3) ** 0.5
    torch.testing.assert_close(got_scale, expected, rtol=1e-3, atol=1e-5)


def test_gradient_of_the_zero_point_is_lsq_pluss() -> None:
    """Against automatic differentiation of the formula, straight through both roundings."""
    x = 2 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    module = quantizer(1.0)
    module.zero_point.data.add_(0.3)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module(x).backward(grad)
    scale, zero = (p.detach().clone().requires_grad_() for p in module.parameters())

    def rounded(value: torch.Tensor) -> torch.Tensor:
        return value.detach().round() + (value - value.detach())

    code = rounded(x / scale) + rounded(zero)
    code = torch.where((code >= 0) & (code <= 3), code, code.detach().clamp(0, 3))
    ((code - rounded(zero)) * scale).backward(grad)
    divisor = (x.numel() * 3) ** 0.5
    for learned, wanted in zip(module.parameters(), (scale, zero), strict=True):
        assert wanted.grad is not None
        torch.testing.assert_close(learned.grad, wanted.grad / divisor)
