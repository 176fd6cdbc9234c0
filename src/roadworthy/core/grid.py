"""Integer grids: the arithmetic that simulation, export and runtime share.

Two operators make up every quantized graph. Both are opaque to `torch.export`, so a captured
graph shows them as single nodes that the ONNX emitter turns into QuantizeLinear and
DequantizeLinear:

* ``roadworthy::fake_quantize``  float -> nearest grid point, still float (activations)
* ``roadworthy::dequantize``     integer codes -> float (weights)

The formulas are ONNX's: ``q = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)`` and
``x = (q - zero_point) * scale``; a true division, since a multiplied reciprocal moves ties.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from roadworthy.errors import BadInput


@dataclass(frozen=True)
class Grid:
    """An integer grid of `bits` bits.

    A signed grid is symmetric about its zero point 0: codes ``-(2^(b-1)-1) .. 2^(b-1)-1`` at 8 bits
    and the full ``-2^(b-1) .. 2^(b-1)-1`` below, where losing one code of few would cost accuracy.

    >>> Grid(4).qmax, Grid(8, signed=True).qmin
    (15, -127)
    """

    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise BadInput(f"{self.bits} bits given; 2 to 8 are allowed")

    @property
    def qmin(self) -> int:
        """Lowest code."""
        if not self.signed:
            return 0
        return -127 if self.bits == 8 else -(2 ** (self.bits - 1))

    @property
    def qmax(self) -> int:
        """Highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def container_bits(self) -> int:
        """Bits of the smallest ONNX integer type that holds the codes: 2, 4 or 8."""
        return next(width for width in (2, 4, 8) if width >= self.bits)

    @property
    def dtype(self) -> torch.dtype:
        """Torch type that carries the codes (one byte per code, whatever the width)."""
        return torch.int8 if self.signed else torch.uint8


def along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """View per-channel `values` ``[c]`` so that they broadcast along `axis` of an `ndim` tensor."""
    if values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[axis] = -1
    return values.view(shape)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid, axis: int = 0) -> Tensor:
    """Codes of `x`, as floats on the grid; `scale` and `zero_point` are scalars or ``[c]``."""
    scale, zero_point = along(scale, axis, x.ndim), along(zero_point, axis, x.ndim)
    return (torch.round(x / scale) + zero_point).clamp(grid.qmin, grid.qmax)


@torch.library.custom_op("roadworthy::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """Round `x` to the grid ``qmin .. qmax`` with scalar `scale` (float) and `zero_point` (float).

    >>> x = torch.tensor([-1.0, 0.26, 9.0])
    >>> fake_quantize(x, torch.tensor(0.5), torch.tensor(0.0), 0, 3)
    tensor([0.0000, 0.5000, 1.5000])
    """
    codes = (x / scale).round_().add_(zero_point).clamp_(qmin, qmax)
    return codes.sub_(zero_point).mul_(scale)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("roadworthy::dequantize", mutates_args=())
def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    """Floats of integer `codes`; `scale` ``[c]`` and `zero_point` ``[c]``, of the codes' type.

    `bits` is the grid's width: the emitter stores the codes in the smallest container for it.
    """
    zero = along(zero_point.to(scale.dtype), axis, codes.ndim)
    return (codes.to(scale.dtype) - zero) * along(scale, axis, codes.ndim)


@dequantize.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int, bits: int) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


ops = torch.ops.roadworthy
"""The two operators as graphs name them; whoever looks for them imports them from here."""
