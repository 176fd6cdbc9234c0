"""Batch normalisation over the images of all ranks, so that many processes learn as one does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.learn.ranks import summed, world


class SharedNorm(nn.BatchNorm2d):
    """`BatchNorm2d` with the mean and variance of every rank's images; any back end, CPU too."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised; alone, or in eval mode, as the base class does."""
        if not self.training or world() == 1:
            return super().forward(input)
        return _normalised(self, input)


class SharedNorm1d(nn.BatchNorm1d):
    """The same for rows of features."""

    def forward(self, input: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Normalised; alone, or in eval mode, as the base class does."""
        if not self.training or world() == 1:
            return super().forward(input)
        return _normalised(self, input[..., None, None])[..., 0, 0]


def _normalised(
    norm: SharedNorm | SharedNorm1d, input: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    x = input.float()
    moments = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
    mean, square = (summed(moments) / world()).chunk(2)
    variance = (square - mean.square()).clamp(min=0)
    _remember(norm, mean.detach(), variance.detach(), x.numel() // x.shape[1])
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


@torch.no_grad()
def _remember(norm: SharedNorm | SharedNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    count *= world()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    momentum = 0.0 if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


def share_norms(module: nn.Module) -> None:
    """Turn every batch norm of `module`, in place, into one that is shared."""
    for each in module.modules():
        if type(each) is nn.BatchNorm2d:
            each.__class__ = SharedNorm
        elif type(each) is nn.BatchNorm1d:
            each.__class__ = SharedNorm1d
