"""Activation quantizer: learned step size with the drop of quantization.

Source: LSQ (arXiv 1902.08153) for the gradient of the scale, LSQ+ (2004.09576) for that of the zero
point, QDrop (2203.05740) for the drop.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from roadworthy.core.grid import Grid, fake_quantize
from roadworthy.core.padding import ENCODED


def keep_mask(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Fresh 0/1 floats, one with `probability` (in steps of 1/256), of `like`'s shape and layout.

    Eight random bytes per draw: several times cheaper than a uniform float per element.
    """
    words = torch.empty((like.numel() + 7) // 8, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    draw = words.view(torch.uint8)[: like.numel()].to(like.dtype)
    mask = draw.neg_().add_(round(probability * 256)).clamp_(0, 1)
    return mask.as_strided(like.shape, like.stride())


def mix(fp: Tensor, quantized: Tensor, keep_quantized: float, generator: torch.Generator) -> Tensor:
    """Elementwise choice: quantized with probability `keep_quantized`, floating point otherwise."""
    if keep_quantized >= 1:
        return quantized
    if keep_quantized <= 0:
        return fp
    return torch.lerp(fp, quantized, keep_mask(fp, keep_quantized, generator))


def dense(x: Tensor) -> Tensor:
    """`x` without gaps or overlaps in memory, copied only where it has some."""
    whole = x.is_contiguous() or (
        x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    )
    return x if whole else x.contiguous()


class _Quantize(torch.autograd.Function):
    """Fake quantization by a learned scale and zero point, kept where `keep` is one.

    The grid has its `ends` and `finer` times as many steps between them.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        keep: Tensor | None,
        ends: tuple[int, int],
        finer: float,
    ) -> Tensor:
        ctx.divisor = (x.numel() * ends[1]) ** 0.5  # LSQ's gradient scale
        zero = round(float(zero_point))
        low, high = (finer * (end - zero) for end in ends)
        unit = scale if finer == 1 else scale / finer
        steps = x / unit
        codes = steps.round().clamp_(low, high)
        ctx.save_for_backward(steps, codes, keep, scale)
        ctx.limits, ctx.finer = (low, high), finer
        out = codes * unit
        return out if keep is None else torch.lerp(x, out, keep, out=out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        steps, codes, keep, scale = ctx.saved_tensors
        low, high = ctx.limits
        if grad.stride() != steps.stride():
            grad = torch.empty_like(steps).copy_(grad)
        kept = grad if keep is None else grad * keep
        inside = torch.ops.aten.hardtanh_backward(kept, steps, low - 0.5, high + 0.5)
        # d out/d scale: code - step inside the grid, the end code outside of it
        slope = torch.dot(_flat(kept), _flat(codes)) - torch.dot(_flat(inside), _flat(steps))
        shift = None
        if ctx.needs_input_grad[2]:  # an end of the grid moves by a step, what is inside stays
            shift = (inside.sum() - kept.sum()) * scale / ctx.divisor
        if keep is not None:
            inside = inside.sub_(kept).add_(grad)
        return inside, slope / (ctx.finer * ctx.divisor), shift, None, None, None


def _flat(x: Tensor) -> Tensor:
    return x.as_strided((x.numel(),), (1,))


class ActQuantizer(nn.Module):
    """Per-tensor quantizer of an activation; `scale` and `zero_point` can be learned.

    In training mode a fresh mask keeps the quantized value with probability `keep_quantized`
    elementwise, on a grid of the same ends and `finer` times as many steps; in eval mode it is the
    runtime's own rounding. `row` is that of the mask of texts that says which values are padding.
    """

    def __init__(self, grid: Grid, row: int = ENCODED) -> None:
        super().__init__()
        self.grid = grid
        self.row = row
        self.enabled = True
        self.seen: list[Tensor] | None = None
        self.keep_quantized = 1.0
        self.finer = 1.0
        self.generator = torch.Generator()
        self.scale = nn.Parameter(torch.ones(()))
        self.zero_point = nn.Parameter(torch.zeros(()), requires_grad=False)

    def set_range(self, scale: Tensor, zero_point: Tensor) -> None:
        """Fix the grid to `scale` and `zero_point`, both scalars."""
        self.scale.data.copy_(scale)
        self.zero_point.data.copy_(zero_point)

    def harden(self) -> None:
        """A learned zero point becomes a code of the grid."""
        self.zero_point.data.round_().clamp_(self.grid.qmin, self.grid.qmax)

    def forward(self, x: Tensor) -> Tensor:
        """`x` on the grid; any shape, kept."""
        if self.seen is not None:
            self.seen.append(x)
        if not self.enabled or (self.training and self.keep_quantized <= 0):
            return x
        grid = self.grid
        if not self.training:
            return fake_quantize(x, self.scale, self.zero_point, grid.qmin, grid.qmax)
        x = dense(x)
        keep = None
        if self.keep_quantized < 1:
            keep = keep_mask(x, self.keep_quantized, self.generator)
        ends = (grid.qmin, grid.qmax)
        learned = (self.scale, self.zero_point)
        return cast(Tensor, _Quantize.apply(x, *learned, keep, ends, self.finer))
