"""Low-rank changes of matrices, and of the kernels of 1x1 convolutions (LoRA, arXiv 2106.09685)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Change(nn.Module):
    """`W + B A`, B zero at first; the product of `rank` columns and rows.

    >>> import torch
    >>> change = Change(torch.zeros(8, 4, 1, 1), 2)
    >>> change(torch.ones(8, 4, 1, 1)).sum().item()
    32.0
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape[:2]
        self.down = nn.Parameter(weight.new_empty(min(rank, out, into), into))
        self.up = nn.Parameter(weight.new_zeros(out, len(self.down)))
        nn.init.normal_(self.down, std=into**-0.5)

    def forward(self, weight: Float[Tensor, "o i *k"]) -> Float[Tensor, "o i *k"]:
        """The changed weight."""
        return weight + (self.up @ self.down).view_as(weight)


def add(body: nn.Module, rank: int) -> int:
    """Freeze `body` but for a change of each of its matrices; how many there are."""
    body.requires_grad_(False)
    changed = [module for module in body.modules() if _is_matrix(module)]
    for module in changed:
        weight: Tensor = module.get_parameter("weight")
        parametrize.register_parametrization(module, "weight", Change(weight, rank))
    return len(changed)


def _is_matrix(module: nn.Module) -> bool:
    match module:
        case nn.Linear():
            return True
        case nn.Conv2d():
            return module.kernel_size == (1, 1) and module.groups == 1
        case _:
            return False


def merge(body: nn.Module) -> None:
    """Put the changes into the weights; the module is as it was built again."""
    for module in [each for each in body.modules() if parametrize.is_parametrized(each, "weight")]:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    body.requires_grad_(True)
