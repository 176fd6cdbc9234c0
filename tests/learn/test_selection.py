"""Selection: foreign images and copies are left, sparse regions are reached, seeds decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import BadInput
from roadworthy.learn.selection import (
    directions,
    familiar,
    select,
    spread,
    squared_distances,
    uncertainty,
)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def cloud(seed: int, count: int, axis: int) -> np.ndarray:
    """Points whose directions lie around one axis of eight."""
    return 0.3 * normal(seed, count, 8) + 4 * np.eye(8)[axis]


def test_distances_equal_a_loop() -> None:
    one, other = normal(0, 5, 3), normal(1, 4, 3)
    slow = [[((a - b) ** 2).sum() for b in other] for a in one]
    np.testing.assert_allclose(squared_distances(one, other), slow, atol=1e-12)


def test_familiar_equals_a_loop() -> None:
    pool, known = normal(0, 30, 4), normal(1, 20, 4)
    own, others = directions(pool), directions(known)
    among = [sorted(((a - b) ** 2).sum() for b in others)[3] for a in others]
    apart = [sorted(((a - b) ** 2).sum() for b in others)[2] for a in own]
    wanted = np.array(apart) <= np.quantile(among, 0.4)
    assert 0 < wanted.sum() < len(pool)
    assert (familiar(pool, known, nearest=3, quantile=0.4) == wanted).all()


def test_foreign_images_are_dropped_and_the_domain_stays() -> None:
    near = familiar(np.concatenate([cloud(0, 100, 0), cloud(1, 100, 3)]), cloud(2, 50, 0))
    assert near[:100].mean() > 0.8
    assert not near[100:].any()


@given(st.floats(0.1, 10), st.integers(0, 99))
def test_lengths_of_features_do_not_matter(scale: float, seed: int) -> None:
    pool, known = normal(seed, 20, 4), normal(seed + 100, 10, 4)
    assert (familiar(pool, known) == familiar(pool * scale, known)).all()


def test_copies_are_never_chosen_twice_nor_what_is_known() -> None:
    points = normal(0, 10, 4)
    pool = np.concatenate([points] * 5)
    chosen = spread(pool, 7, np.ones(50), np.random.default_rng(0), points[:3])
    assert sorted(chosen % 10) == list(range(3, 10))
    with pytest.raises(BadInput, match="8 images asked for; 7 of the pool differ"):
        spread(pool, 8, np.ones(50), np.random.default_rng(0), points[:3])


def test_a_sparse_region_is_reached_sooner_than_at_random() -> None:
    pool = np.concatenate([cloud(0, 980, 0), cloud(1, 20, 3)])
    found = [spread(pool, 10, np.ones(1000), np.random.default_rng(i)) for i in range(20)]
    rare = np.mean([(each >= 980).sum() for each in found])
    assert rare > 5 * 10 * 20 / 1000


def test_what_is_worth_nothing_is_left_and_seeds_decide() -> None:
    value = np.arange(40) % 2.0
    one, again = (spread(normal(0, 40, 4), 9, value, np.random.default_rng(3)) for _ in range(2))
    assert (one == again).all()
    assert (one % 2 == 1).all()


def test_the_three_steps_come_together() -> None:
    pool = np.concatenate([cloud(0, 60, 0), cloud(1, 40, 3)])
    sure = np.tile([[1.0, 0.0]], (100, 1))
    sure[:60:2] = [0.6, 0.4]
    chosen = select(pool, cloud(2, 50, 0), 12, np.random.default_rng(0), sure)
    assert (chosen < 60).all()
    assert (chosen % 2 == 0).all()
    assert uncertainty(sure)[chosen].min() == pytest.approx(0.8)


@pytest.mark.parametrize(("nearest", "quantile"), [(0, 0.9), (10, 0.9), (3, 0.0), (3, 1.1)])
def test_a_reference_that_says_nothing_is_refused(nearest: int, quantile: float) -> None:
    with pytest.raises(BadInput, match="more members than neighbours"):
        familiar(normal(0, 5, 3), normal(1, 10, 3), nearest, quantile)
