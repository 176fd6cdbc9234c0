"""How long and how fast a stage learns; read by the command line too, so nothing heavy here."""

import math
from dataclasses import dataclass

from roadworthy.errors import BadInput


@dataclass(frozen=True)
class Plan:
    """How a stage learns.

    Args:
        steps: updates of the weights.
        batch: images of one step, on all ranks together; all of one source.
        rate: highest learning rate; it rises linearly and falls as a cosine does.
        decay: weight decay of AdamW, of matrices and kernels only.
        warmup: share of the steps in which the rate rises.
        clip: greatest norm of the gradient.
        temperature: of the choice among sources: 1 by their size, larger ones more evenly.
        every: steps between checkpoints.
        seed: of every random choice.
    """

    steps: int
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    warmup: float = 0.1
    clip: float = 1.0
    temperature: float = 2.0
    every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)} given; 1 or more is allowed")
        for name in ("rate", "clip", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"{name} {getattr(self, name)} given; a number above 0 is allowed")
        if not 0 <= self.warmup <= 1 or not 0 <= self.decay < math.inf:
            raise BadInput(
                f"warmup {self.warmup} and decay {self.decay} given; a warmup of 0 to 1 and a "
                "decay of 0 or more are allowed"
            )


def rate_at(step: int, plan: Plan) -> float:
    """Learning rate of a step.

    >>> plan = Plan(steps=10, rate=1.0, warmup=0.2)
    >>> [round(rate_at(step, plan), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.04]
    """
    rising = round(plan.warmup * plan.steps)
    if step < rising:
        return plan.rate * (step + 1) / rising
    done = (step - rising) / max(plan.steps - rising, 1)
    return plan.rate * 0.5 * (1 + math.cos(math.pi * done))
