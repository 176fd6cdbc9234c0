"""Range search: scale and zero point of a grid from a tensor, all channels at once.

Tensors come as rows: ``values[c, m]`` with an optional weight per value, so that one search serves
weights (a row per channel) and activations (one row, the histogram of everything seen).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from roadworthy.core.grid import Grid

RangeMethod = Literal["minmax", "percentile", "mse", "kl"]
EXPONENT = 2.4
"""Of the error whose sum the search minimises (the public QDrop code's choice)."""
BINS = 2048


@dataclass(frozen=True)
class Histogram:
    """Bin centres and counts of everything that passed a tensor, with its exact end points."""

    centres: Float[Tensor, " m"]
    counts: Float[Tensor, " m"]
    low: float
    high: float


def histogram(tensors: Iterable[Float[Tensor, "..."]]) -> Histogram:
    """Histogram over all of `tensors` (held together in memory)."""
    flat = [tensor.detach().flatten().float() for tensor in tensors]
    low = min(float(tensor.min()) for tensor in flat)
    high = max(float(tensor.max()) for tensor in flat)
    if low == high:
        high = low + 1e-6
    counts = torch.stack([torch.histc(t, BINS, low, high).double() for t in flat]).sum(0)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    centres[(edges[:-1] <= 0) & (edges[1:] > 0)] = 0.0  # ReLU zeros stay exactly zero
    kept = counts > 0
    return Histogram(centres[kept].float(), counts[kept].float(), low, high)


def from_limits(
    low: Float[Tensor, " c"], high: Float[Tensor, " c"], grid: Grid
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Scale and zero point that span ``low .. high`` (widened to hold zero).

    >>> from_limits(torch.tensor([0.0]), torch.tensor([1.5]), Grid(2))
    (tensor([0.5000]), tensor([0.]))
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if grid.signed:
        scale = torch.maximum(-low, high) / grid.qmax
        return scale.clamp(min=1e-8), torch.zeros_like(scale)
    scale = ((high - low) / grid.qmax).clamp(min=1e-8)
    return scale, torch.round(low.abs() / scale).clamp(grid.qmin, grid.qmax)


def weight_range(
    rows: Float[Tensor, "c m"], grid: Grid, method: RangeMethod = "mse"
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Scale and zero point of every row (output channel) of a weight."""
    if method == "mse":
        return mse_range(rows, grid)
    return from_limits(rows.amin(1), rows.amax(1), grid)


def activation_range(
    seen: Histogram,
    grid: Grid,
    method: RangeMethod = "mse",
    percentile: float = 99.99,
    exponent: float = EXPONENT,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scalar scale and zero point of an activation from what was seen of it."""
    if method == "mse":
        scale, zero = mse_range(seen.centres[None], grid, seen.counts[None], exponent)
        return scale[0], zero[0]
    if method == "kl":
        low, high = _kl_limits(seen, grid)
    elif method == "percentile":
        low, high = _percentile_limits(seen, percentile)
    else:
        low, high = seen.low, seen.high
    scale, zero = from_limits(torch.tensor([low]), torch.tensor([high]), grid)
    return scale[0], zero[0]


def mse_range(
    rows: Float[Tensor, "c m"],
    grid: Grid,
    counts: Float[Tensor, "c m"] | None = None,
    exponent: float = EXPONENT,
    refined: bool = True,
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Minimise ``sum |x - q(x)|^exponent`` per row, coarse to fine, over range and zero point.

    The public code tries 100 ranges times every zero point; the error is smooth enough in both
    that 20 ranges by at most 16 zero points and one refinement find the same minimum. Without the
    refinement there are 7 ranges by at most 5 zero points, a tenth of the cost.
    """
    low, high = rows.amin(1), rows.amax(1)
    one_sided = bool((low >= 0).all()) and not grid.signed
    span = torch.maximum(-low, high) * 2 if grid.signed else high.clamp(min=0) - low.clamp(max=0)
    levels = grid.qmax - grid.qmin
    best = _Best(rows, counts, grid, span.clamp(min=1e-8) / levels, exponent)
    natural = from_limits(low, high, grid)[1]
    fixed = grid.signed or one_sided
    reach = 0 if fixed else min(levels + 1, 16) // 2
    stride = 1 if levels < 16 else max(1, levels // 64)
    offsets = range(-reach * stride, (reach + 1) * stride, stride)
    if refined:
        best.search(range(5, 101, 5), offsets, 0.0, natural)
        fine = range(1) if fixed else range(-stride, stride + 1)
        best.search(range(-4, 5), fine, best.fraction, best.zero)
    else:
        best.search(range(40, 101, 10), offsets[:: max(1, reach // 2)], 0.0, natural)
    return best.fraction * best.unit, best.zero


class _Best:
    """The best candidate so far of every row."""

    def __init__(
        self, rows: Tensor, counts: Tensor | None, grid: Grid, unit: Tensor, exponent: float
    ) -> None:
        self.rows, self.counts, self.grid, self.unit = rows, counts, grid, unit
        self.exponent = exponent
        self.error = torch.full_like(unit, torch.inf)
        self.fraction = torch.ones_like(unit)
        self.zero = torch.zeros_like(unit)

    def search(
        self, hundredths: range, offsets: range, fraction: Tensor | float, zero: Tensor
    ) -> None:
        """Offer every pair of them, added to `fraction` and `zero`."""
        low, high = self.grid.qmin, self.grid.qmax
        zeros = [(zero + offset).clamp(low, high) for offset in offsets]
        limits = [((low - each)[:, None], (high - each)[:, None]) for each in zeros]
        for hundredth in hundredths:
            tried = torch.as_tensor(fraction + hundredth / 100).to(self.unit)
            tried = tried.expand_as(self.unit).clamp(min=0.01)
            scale = (tried * self.unit)[:, None]
            codes = (self.rows / scale).round_()
            for each, (lowest, highest) in zip(zeros, limits, strict=True):
                # A third of the time of `clamp`, whose bounds by row are not vectorized.
                kept = torch.maximum(codes, lowest).minimum(highest)
                error = kept.mul_(scale).sub_(self.rows).abs_().pow_(self.exponent)
                self.offer(error, tried, each)

    def offer(self, error: Tensor, fraction: Tensor, zero: Tensor) -> None:
        """Keep this candidate in the rows where its `error` (overwritten) adds up to less."""
        total = (error if self.counts is None else error.mul_(self.counts)).sum(1)
        better = total < self.error
        self.error = torch.where(better, total, self.error)
        self.fraction = torch.where(better, fraction, self.fraction)
        self.zero = torch.where(better, zero, self.zero)


def _percentile_limits(seen: Histogram, percentile: float) -> tuple[float, float]:
    share = seen.counts.double().cumsum(0) / seen.counts.double().sum()
    tail = (100 - percentile) / 100
    low = seen.centres[share > tail][0] if seen.low < 0 else seen.centres[0]
    high = seen.centres[(share >= 1 - tail).nonzero()[0, 0]]
    return float(low), float(high)


def _kl_limits(seen: Histogram, grid: Grid) -> tuple[float, float]:
    """Threshold whose clipped, coarsened distribution is closest in KL divergence."""
    reach = max(-seen.low, seen.high)
    size = seen.centres.abs()
    index = (size / reach * (BINS - 1)).long()
    mass = torch.zeros(BINS, dtype=torch.float64).index_add_(0, index, seen.counts.double())
    levels = grid.qmax - grid.qmin + 1 if seen.low >= 0 else (grid.qmax - grid.qmin + 1) // 2
    best, kept = torch.inf, BINS
    for stop in range(max(levels, 16), BINS + 1, 16):
        clipped = mass[:stop].clone()
        clipped[-1] += mass[stop:].sum()
        divergence = _coarse_divergence(clipped, mass[:stop], levels)
        if divergence < best:
            best, kept = divergence, stop
    high = kept / BINS * reach
    return (0.0 if seen.low >= 0 else -high), min(high, max(seen.high, 0.0)) or high


def _coarse_divergence(clipped: Tensor, inner: Tensor, levels: int) -> float:
    group = torch.arange(len(inner)) * levels // len(inner)
    filled = (inner > 0).double()
    total = torch.zeros(levels, dtype=torch.float64)
    sums, sizes = total.index_add(0, group, inner), total.index_add(0, group, filled)
    coarse = (sums / sizes.clamp(min=1))[group] * filled
    p, q = clipped / clipped.sum(), coarse / coarse.sum().clamp(min=1e-12)
    return float((p * ((p + 1e-10) / (q + 1e-10)).log()).sum())
