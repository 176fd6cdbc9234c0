"""What a stage draws step by step, as functions of its seed: no state, so a run resumes exactly."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from roadworthy.learn.plan import Plan


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
