"""Batch normalisation over the images of all ranks, so that many processes learn as one does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from roadworthy.errors import BadInput
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


class SharedNormAct2d(nn.BatchNorm2d):
    """The same for timm's norm with what follows it, as in EfficientNet and MobileNet.

    timm's ``BatchNormAct2d`` becomes one; its ``drop`` and ``act`` stay.
    """

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised, dropped and activated."""
        alone = not self.training or world() == 1
        found = super().forward(input) if alone else _normalised(self, input)
        return self.act(self.drop(found))


_Shared = SharedNorm | SharedNorm1d | SharedNormAct2d


def _normalised(norm: _Shared, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    x = input.float()
    moments = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
    mean, square = (summed(moments) / world()).chunk(2)
    variance = (square - mean.square()).clamp(min=0)
    _remember(norm, mean.detach(), variance.detach(), x.numel() // x.shape[1])
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


@torch.no_grad()
def _remember(norm: _Shared, mean: Tensor, variance: Tensor, count: int) -> None:
    count *= world()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    momentum = 0.0 if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


def share_norms(module: nn.Module) -> None:
    """Turn every batch norm of `module`, in place, into one that is shared.

    Raises:
        BadInput: there are several processes, and a norm of a kind that cannot be.
    """
    for each in module.modules():
        if not isinstance(each, _BatchNorm) or isinstance(each, _Shared | nn.SyncBatchNorm):
            continue
        kind = _shared(type(each))
        if kind is not None:
            each.__class__ = kind
        elif world() > 1:
            raise BadInput(
                f"a model with {type(each).__name__} given to {world()} processes, which cannot "
                "share its statistics; start one process, or give a model with BatchNorm2d"
            )


def _shared(kind: type[_BatchNorm]) -> type[_Shared] | None:
    """What a kind of norm becomes; None of one that is not known."""
    if kind is nn.BatchNorm2d:
        return SharedNorm
    if kind is nn.BatchNorm1d:
        return SharedNorm1d
    from timm.layers.norm_act import BatchNormAct2d  # loaded already where it occurs

    return SharedNormAct2d if kind is BatchNormAct2d else None
