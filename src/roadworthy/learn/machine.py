"""Where a stage is computed: one process, or all that torchrun started.

Read by the command line too: what is heavy is imported where it is needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from roadworthy.errors import BadInput
from roadworthy.requests import Device

if TYPE_CHECKING:
    from torch import nn

Precision = Literal["32-true", "bf16-mixed"]
Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Machine:
    """Where and how exactly it is computed; under torchrun, on every process that it started.

    Args:
        strategy: `ddp` keeps the weights on every process, `fsdp` (FSDP2) a share of them.
    """

    device: Device = "auto"
    precision: Precision = "32-true"
    strategy: Strategy = "ddp"

    @property
    def world(self) -> int:
        """How many processes there are."""
        return int(os.environ.get("WORLD_SIZE", 1))

    @property
    def sharded(self) -> bool:
        """Whether the weights lie in pieces on the processes."""
        return self.world > 1 and self.strategy == "fsdp"

    def fabric(self) -> Any:
        """Lightning Fabric, launched."""
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise BadInput(
                "lightning-fabric is not installed; pip install 'roadworthy[train]'"
            ) from error

        from roadworthy.core.predict import resolve_device

        resolve_device(self.device)  # one line where there is no GPU
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        fabric = Fabric(
            accelerator=self.device,
            strategy="auto" if self.world == 1 else _strategy(self.strategy, self.world),
            devices=here,
            num_nodes=self.world // here,
            precision=self.precision,
        )
        fabric.launch()
        return fabric


def _strategy(name: Strategy, world: int) -> Any:
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    if name == "ddp":  # heads of other sources take no part in a step
        return DDPStrategy(find_unused_parameters=True)
    return ModelParallelStrategy(
        _sharded,
        data_parallel_size=world,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _sharded(module: nn.Module, mesh: Any) -> nn.Module:
    """Each process keeps its share of every weight; a forward pass brings all of them together."""
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=mesh["data_parallel"])
    return module
