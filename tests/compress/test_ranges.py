"""Ranges: laws, and the search against every candidate of the public code's grid."""

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.compress.ranges import (
    EXPONENT,
    activation_range,
    from_limits,
    histogram,
    mse_range,
    weight_range,
)
from roadworthy.core.grid import Grid, quantize

BITS = st.integers(2, 8)
ROWS = npst.arrays(np.float32, (3, 40), elements=st.floats(-4, 4, width=32))


def error(rows: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    back = (quantize(rows, scale, zero, grid) - zero[:, None]) * scale[:, None]
    return (back - rows).abs().pow(EXPONENT).sum(1)


@given(ROWS, BITS, st.booleans())
def test_minmax_moves_nothing_further_than_half_a_step(
    values: np.ndarray, bits: int, signed: bool
) -> None:
    rows, grid = torch.from_numpy(values), Grid(bits, signed)
    scale, zero = from_limits(rows.amin(1), rows.amax(1), grid)
    back = (quantize(rows, scale, zero, grid) - zero[:, None]) * scale[:, None]
    assert bool(((back - rows).abs() <= scale[:, None] * 1.001 + 1e-6).all())


@given(ROWS, BITS, st.booleans())
def test_zero_is_exact(values: np.ndarray, bits: int, signed: bool) -> None:
    grid = Grid(bits, signed)
    scale, zero = weight_range(torch.from_numpy(values), grid)
    code = quantize(torch.zeros(3, 1), scale, zero, grid)
    assert torch.equal(code[:, 0], zero)


@given(ROWS, BITS)
def test_mse_is_never_worse_than_minmax(values: np.ndarray, bits: int) -> None:
    rows, grid = torch.from_numpy(values), Grid(bits)
    best = error(rows, *mse_range(rows, grid), grid)
    plain = error(rows, *from_limits(rows.amin(1), rows.amax(1), grid), grid)
    assert bool((best <= plain * 1.0001 + 1e-6).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_search_matches_all_ranges_by_all_zero_points(bits: int) -> None:
    """Slow reference: 100 ranges by every zero point, as the public code does."""
    torch.manual_seed(0)
    rows, grid = torch.randn(4, 300) * torch.rand(4, 1) + 0.1, Grid(bits)
    span = rows.amax(1) - rows.amin(1)
    lowest = torch.full((4,), torch.inf)
    for step in range(1, 101):
        scale = span * step / 100 / grid.qmax
        for zero in range(grid.qmax + 1):
            lowest = torch.minimum(lowest, error(rows, scale, torch.full((4,), float(zero)), grid))
    found = error(rows, *mse_range(rows, grid), grid)
    assert bool((found <= lowest * 1.02).all())


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "kl"])
def test_every_activation_range_covers_the_bulk(method: str) -> None:
    torch.manual_seed(0)
    seen = histogram([torch.randn(10_000).relu(), torch.randn(10_000).relu()])
    scale, zero = activation_range(seen, Grid(8), method)  # pyright: ignore[reportArgumentType]
    assert float(zero) == 0
    assert 2.0 < float(scale) * 255 < 6.0


def test_an_outlier_moves_minmax_and_not_percentile() -> None:
    torch.manual_seed(0)
    seen = histogram([torch.cat([torch.rand(100_000), torch.tensor([100.0])])])
    scale = {m: float(activation_range(seen, Grid(8), m)[0]) for m in ("minmax", "percentile")}
    assert scale["minmax"] > 50 * scale["percentile"]


def test_constant_tensors_get_a_finite_scale() -> None:
    for value in (0.0, 1.0, -1.0):
        scale, _ = weight_range(torch.full((1, 9), value), Grid(4))
        assert torch.isfinite(scale).all()
        assert bool((scale > 0).all())
        seen = histogram([torch.full((9,), value)])
        assert torch.isfinite(activation_range(seen, Grid(4))[0])
