"""Attribution: the exact Shapley share of every stage in what a deployment loses."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.noise.systems import Stage, System

Subset = frozenset[Stage]


def mixtures(train: System, deploy: System, stages: Sequence[Stage]) -> dict[Subset, System]:
    """`train` with every subset of `stages` taken from `deploy`: 2^k systems."""
    mixed: dict[Subset, System] = {}
    for size in range(len(stages) + 1):
        for chosen in combinations(stages, size):
            system = train
            for stage in chosen:
                system = system.with_part(stage, deploy)
            mixed[frozenset(chosen)] = system
    return mixed


def shares(
    losses: Mapping[Subset, Float[NDArray[np.float64], " r"]], stages: Sequence[Stage]
) -> dict[Stage, Float[NDArray[np.float64], " r"]]:
    """Shapley values of `losses` over subsets of `stages`; they sum to the loss of all of them.

    Args:
        losses: what each subset of deployed stages loses, on every resample.
        stages: the players.

    >>> table = {frozenset(): 0.0, frozenset({"decode"}): 1.0, frozenset({"resize"}): 2.0}
    >>> table[frozenset({"decode", "resize"})] = 5.0
    >>> shares({k: np.array([v]) for k, v in table.items()}, ["decode", "resize"])
    {'decode': array([2.]), 'resize': array([3.])}
    """
    k = len(stages)
    found: dict[Stage, Any] = {}
    for stage in stages:
        others: list[Stage] = [other for other in stages if other != stage]
        total = np.zeros_like(losses[frozenset()])
        for size in range(k):
            weight = 1 / (k * math.comb(k - 1, size))
            for chosen in combinations(others, size):
                before = frozenset(chosen)
                after: Subset = before.union((stage,))
                total = total + weight * (losses[after] - losses[before])
        found[stage] = total
    return found
