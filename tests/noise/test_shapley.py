from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.noise.shapley import mixtures, shares
from roadworthy.noise.systems import System, differing

NAMES = ["decode", "resize", "colour", "runtime"]


def subsets(names):
    return [frozenset(c) for k in range(len(names) + 1) for c in combinations(names, k)]


def by_every_order(losses, names):
    """What a stage adds, averaged over all orders of arrival."""
    total = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        here = frozenset()
        for name in order:
            total[name] += float((losses[here | {name}] - losses[here])[0]) / len(orders)
            here |= {name}
    return total


@given(st.lists(st.floats(-50, 50), min_size=16, max_size=16))
def test_shares_are_the_average_over_all_orders_and_sum_to_the_loss(values) -> None:
    losses = {s: np.array([v]) for s, v in zip(subsets(NAMES), values, strict=True)}
    found = shares(losses, NAMES)
    wanted = by_every_order(losses, NAMES)
    assert {n: float(v[0]) for n, v in found.items()} == pytest.approx(wanted, abs=1e-9)
    whole = losses[frozenset(NAMES)] - losses[frozenset()]
    assert float(sum(found.values())[0]) == pytest.approx(float(whole[0]), abs=1e-9)


def test_a_stage_that_adds_nothing_has_no_share() -> None:
    losses = {s: np.array([3.0 * ("resize" in s)]) for s in subsets(NAMES)}
    assert {n: float(v[0]) for n, v in shares(losses, NAMES).items()} == {
        "decode": 0.0,
        "resize": 3.0,
        "colour": 0.0,
        "runtime": 0.0,
    }


def test_mixtures_take_each_stage_from_either_system() -> None:
    train = System(IMAGENET)
    deploy = System(Preprocess.from_dict({**IMAGENET.to_dict(), "colour": "bgr"}), runtime="x")
    mixed = mixtures(train, deploy, ["colour", "runtime"])
    assert len(mixed) == 4
    assert mixed[frozenset()] == train
    assert mixed[frozenset({"colour", "runtime"})] == deploy
    assert mixed[frozenset({"runtime"})].preprocess == IMAGENET


def test_a_resizer_that_only_one_system_has_comes_with_its_geometry() -> None:
    bare, whole = System(Preprocess(colour="bgr")), System(IMAGENET)
    for train, deploy in ((bare, whole), (whole, bare)):
        stages = differing(train, deploy)
        assert stages == ("geometry", "colour", "normalise")
        mixed = mixtures(train, deploy, stages)
        assert mixed[frozenset(stages)] == deploy
        assert mixed[frozenset({"geometry"})].image.resize == deploy.image.resize
        assert mixed[frozenset({"colour"})].image.resize == train.image.resize
