"""What the processes of a run share with one another; alone, nothing happens."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from roadworthy.errors import RoadworthyError

_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Summed(torch.autograd.Function):
    """The derivative of every rank's loss, summed, by what each of them put in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def summed(x: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """The sum over the ranks; its gradient is that of the sum of all ranks' losses."""
    return x if world() == 1 else _Summed.apply(x)


def gathered(rows: Shaped[Tensor, "*rows"]) -> Shaped[Tensor, "*all"]:
    """The rows of all ranks, in their order, equally many of each; gradients as of `summed`."""
    if world() == 1:
        return rows
    blank = torch.zeros_like(rows)
    here = dist.get_rank()
    return summed(torch.cat([rows if rank == here else blank for rank in range(world())]))


@contextmanager
def company(out: Path) -> Generator[None]:
    """Says in one line that another process of the run in `out` is gone.

    Raises:
        RoadworthyError: the block could not reach another process.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or _LOST.search(str(error))
        if not (dist.is_initialized() and lost):
            raise
        raise RoadworthyError(
            f"another process of this run has stopped; what {out} holds is whole: give the same "
            "command again to go on from it"
        ) from error


def wait(out: Path) -> None:
    """Until all processes of the run in `out` are here."""
    with company(out):
        if dist.is_initialized():
            dist.barrier()
