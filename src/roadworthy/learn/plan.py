"""What a stage does step by step, as functions of its seed: no state, so a run resumes exactly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

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


def order(
    plan: Plan, sizes: Sequence[int], weights: Sequence[float]
) -> Int[NDArray[np.int64], " s"]:
    """Which source each step is of: drawn by weight times size to the power of 1 / temperature.

    The same on every rank, as it depends on nothing but its arguments.

    >>> counts = np.bincount(order(Plan(steps=4000), [900, 100], [1, 1]))
    >>> bool(abs(counts[0] / counts[1] - 3) < 0.3)
    True
    """
    odds = np.asarray(weights, float) * np.asarray(sizes, float) ** (1 / plan.temperature)
    return _random(plan.seed, 0).choice(len(sizes), plan.steps, p=odds / odds.sum())


def visits(steps: Int[NDArray[np.int64], " s"]) -> Int[NDArray[np.int64], " s"]:
    """How many earlier steps were of the same source.

    >>> visits(np.array([0, 1, 0, 0, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    found = np.zeros(len(steps), np.int64)
    for source in np.unique(steps):
        at = np.flatnonzero(steps == source)
        found[at] = np.arange(len(at))
    return found


def chosen(plan: Plan, source: int, visit: int, size: int) -> Int[NDArray[np.int64], " b"]:
    """Images of a source's batch number `visit`: all of them shuffled, time after time.

    >>> plan = Plan(steps=1, batch=2)
    >>> sorted(np.concatenate([chosen(plan, 0, visit, 4) for visit in (0, 1)]).tolist())
    [0, 1, 2, 3]
    """
    places = np.arange(visit * plan.batch, (visit + 1) * plan.batch)
    rounds = {
        r: _random(plan.seed, 1, source, r).permutation(size)
        for r in {int(place) // size for place in places}
    }
    return np.array([rounds[int(place) // size][int(place) % size] for place in places])


def seed_of(plan: Plan, step: int, rank: int = 0) -> int:
    """Seed of what is random within a step.

    >>> seed_of(Plan(steps=2), 0) == seed_of(Plan(steps=2), 1)
    False
    """
    return int(_random(plan.seed, 2, step, rank).integers(2**63))


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
