"""Weight quantizer: learned rounding on a fixed or learned step.

Source: AdaRound (arXiv 2004.10568) for the rectified sigmoid and its regulariser, Genie
(2212.04780) for learning the step while ``floor(W / s)`` stays frozen.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from roadworthy.core.grid import Grid, along, quantize

GAMMA, ZETA = -0.1, 1.1
"""Stretch of the rectified sigmoid."""


def soft_step(v: Tensor) -> Tensor:
    """``h(V) = clamp(1.2 * sigmoid(V) - 0.1, 0, 1)``, how far each weight is rounded up."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)


def inverse_soft_step(fraction: Tensor) -> Tensor:
    """V at which the soft step equals `fraction`, 0 to 1."""
    share = ((fraction - GAMMA) / (ZETA - GAMMA)).clamp(1e-6, 1 - 1e-6)
    return torch.logit(share)


class _SoftRound(torch.autograd.Function):
    """Soft-rounded weight ``(base + h(V) * free) * s``.

    `base` are the lower codes less the zero point, `free` is 0 where both neighbours fall on the
    same end of the grid. The backward pass adds the regulariser's gradient to V's.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor, scale: Tensor, base: Tensor, free: Tensor, pull: tuple[float, float]
    ) -> Tensor:
        h = torch.sigmoid(v).mul_(ZETA - GAMMA).add_(GAMMA)
        codes = torch.addcmul(base, h.clamp(0, 1), free)
        ctx.save_for_backward(h, codes, scale, free)
        ctx.pull = pull
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        h, codes, scale, free = ctx.saved_tensors
        strength, beta = ctx.pull
        grad_scale = (grad * codes).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        grad_h = (grad * scale).mul_(free)
        if strength > 0:
            centred = h.clamp(0, 1).mul_(2).sub_(1)
            grad_h.sub_(
                centred.abs().pow_(beta - 1).mul_(centred.sign_()), alpha=2 * strength * beta
            )
        # dh/dV = (h - gamma)(zeta - h) / (zeta - gamma), zero where h is clamped
        slope = (h - GAMMA).mul_(ZETA - h).div_(ZETA - GAMMA)
        slope = torch.ops.aten.hardtanh_backward(slope, h, 0.0, 1.0)
        return grad_h.mul_(slope), grad_scale, None, None, None


class WeightQuantizer(nn.Module):
    """Holds a layer's weight as integers in the making; calling it returns the float weight.

    In mode ``soft`` codes are ``floor(W / s) + h(V)``, in mode ``hard``
    ``floor(W / s) + (V >= 0)``.

    Attributes:
        v: rounding variable, the weight's shape.
        log_gain: learned logarithm of the step's correction, per channel.
        pull: strength and exponent of the regulariser that drives h to 0 or 1.
    """

    def __init__(self, weight: Tensor, grid: Grid, axis: int = 0) -> None:
        super().__init__()
        self.grid, self.axis = grid, axis
        self.enabled = True
        self.mode: Literal["hard", "soft", "straight-through"] = "hard"
        self.pull = (0.0, 2.0)
        channels = weight.shape[axis]
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("base_scale", torch.ones(channels))
        self.register_buffer("zero_point", torch.zeros(channels))
        self.register_buffer("floor", torch.zeros_like(weight))
        self.base = self.free = self.floor
        self.v = nn.Parameter(torch.zeros_like(weight))
        self.log_gain = nn.Parameter(torch.zeros(channels))
        self.weight: Tensor
        self.base_scale: Tensor
        self.zero_point: Tensor
        self.floor: Tensor

    def set_range(self, scale: Tensor, zero_point: Tensor) -> None:
        """Start from the grid ``scale[c]``, ``zero_point[c]`` with V at the float weight."""
        self.base_scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self.log_gain.data.zero_()
        steps = self.weight / along(scale, self.axis, self.weight.ndim)
        self.floor.copy_(steps.floor())
        self.v.data.copy_(inverse_soft_step(steps - self.floor))

    def begin(self, kind: Literal["soft", "straight-through"] | None) -> None:
        """Make the rounding learnable, starting where it stands.

        Straight-through learning keeps the latent weight ``floor(W / s) + 1/2 + V`` in steps: it
        starts at the float weight, held within the cell of the present code.
        """
        self.mode = kind or "hard"
        zero = along(self.zero_point, self.axis, self.weight.ndim)
        low = (self.floor + zero).clamp(self.grid.qmin, self.grid.qmax)
        high = (self.floor + zero + 1).clamp(self.grid.qmin, self.grid.qmax)
        self.base, self.free = low - zero, high - low
        if kind == "straight-through":
            steps = self.weight / along(self.scale.detach(), self.axis, self.weight.ndim)
            present = self.floor + self.rounded_up()
            latent = torch.maximum(torch.minimum(steps, present + 0.45), present - 0.45)
            self.floor.copy_(present)
            self.v.data.copy_(latent - present)

    def harden(self) -> None:
        """Fix the codes as they round now."""
        if self.mode == "straight-through":
            moved = (self.floor + self.v.detach()).round()
            self.floor.copy_(moved)
            self.v.data.fill_(-1.0)
        self.mode = "hard"

    @property
    def scale(self) -> Tensor:
        """Step of every channel, ``[c]``."""
        return self.base_scale * self.log_gain.exp()

    def rounded_up(self) -> Tensor:
        """1 where the weight is rounded up, else 0."""
        return (self.v.detach() >= 0).to(self.floor.dtype)

    def codes(self) -> Tensor:
        """Integer codes in the grid's own type, the weight's shape."""
        zero = along(self.zero_point, self.axis, self.weight.ndim)
        codes = (self.floor + self.rounded_up() + zero).clamp(self.grid.qmin, self.grid.qmax)
        return codes.to(self.grid.dtype)

    def forward(self) -> Tensor:
        """The weight as the layer sees it."""
        if not self.enabled:
            return self.weight
        ndim = self.weight.ndim
        zero, scale = (along(t, self.axis, ndim) for t in (self.zero_point, self.scale))
        match self.mode:
            case "hard":
                return (self.codes().to(scale.dtype) - zero) * scale
            case "soft":
                weight = _SoftRound.apply(self.v, scale, self.base, self.free, self.pull)
                return cast(Tensor, weight)
            case "straight-through":
                latent = self.floor + self.v
                codes = latent.detach().round()
                codes = codes.clamp(self.grid.qmin - zero, self.grid.qmax - zero)
                return (latent + (codes - latent).detach()) * scale


class Bias(nn.Module):
    """A layer's bias as a parameter of its own, so that it can be learned with the rounding."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.enabled = True
        self.register_buffer("original", bias.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self.original: Tensor

    def forward(self) -> Tensor:
        """The bias, ``[c]``."""
        return self.bias if self.enabled else self.original


class Table(nn.Module):
    """An embedding table ``[k d]``, learnable, rounded to the nearest codes; one step per feature,
    so that the codes of a token need no more than one vector of steps."""

    def __init__(self, weight: Tensor, grid: Grid) -> None:
        super().__init__()
        self.grid, self.axis, self.enabled = grid, 1, True
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.register_buffer("scale", torch.ones(weight.shape[1]))
        self.register_buffer("zero_point", torch.zeros(weight.shape[1]))
        self.scale: Tensor
        self.zero_point: Tensor

    def set_range(self, scale: Tensor, zero_point: Tensor) -> None:
        """Fix the grid to ``scale[d]``, ``zero_point[d]``."""
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def codes(self) -> Tensor:
        """Integer codes in the grid's own type, the table's shape."""
        codes = quantize(self.weight, self.scale, self.zero_point, self.grid, axis=1)
        return codes.to(self.grid.dtype)

    def forward(self) -> Tensor:
        """The table as the model sees it; its gradient passes the rounding."""
        if not self.enabled:
            return self.weight
        rounded = (self.codes().to(self.scale.dtype) - self.zero_point) * self.scale
        if not self.weight.requires_grad:
            return rounded
        return self.weight + (rounded - self.weight).detach()
