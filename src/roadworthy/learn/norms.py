"""Batch normalisation over the images of all ranks, so that many processes learn as one does."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class SharedNorm(nn.BatchNorm2d):
    """`BatchNorm2d` with the mean and variance of every rank's images; any back end, CPU too."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalised; alone, or in eval mode, as the base class does."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        from torch.distributed.nn.functional import all_reduce

        x = input.float()
        moments = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        mean, square = (all_reduce(moments) / dist.get_world_size()).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        count *= dist.get_world_size()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 0.0 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


def share_norms(module: nn.Module) -> None:
    """Turn every `BatchNorm2d` of `module`, in place, into one that is shared."""
    for each in module.modules():
        if type(each) is nn.BatchNorm2d:
            each.__class__ = SharedNorm
