"""Selection: foreign images and copies are left, rare classes and sparse regions are reached."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import BadInput
from roadworthy.learn.selection import directions, familiar, select, spread, squared_distances

ONE = np.zeros(1, np.int64)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def cloud(seed: int, count: int, axis: int) -> np.ndarray:
    """Points around one axis of eight."""
    return 0.3 * normal(seed, count, 8) + 4 * np.eye(8)[axis]


def same(pool: np.ndarray) -> np.ndarray:
    """All are taken for one class."""
    return np.zeros(len(pool), np.int64)


def test_distances_equal_a_loop() -> None:
    one, other = normal(0, 5, 3), normal(1, 4, 3)
    slow = [[((a - b) ** 2).sum() for b in other] for a in one]
    np.testing.assert_allclose(squared_distances(one, other), slow, atol=1e-12)


def test_familiar_equals_a_loop() -> None:
    pool, known = normal(0, 30, 4), normal(1, 20, 4) + 1
    centre = sum(pool) / len(pool)
    own, others = ([(x - centre) / sum((x - centre) ** 2) ** 0.5 for x in e] for e in (pool, known))
    among = [sorted(((a - b) ** 2).sum() for b in others)[3] for a in others]
    apart = [sorted(((a - b) ** 2).sum() for b in others)[2] for a in own]
    wanted = np.array(apart) <= np.quantile(among, 0.4)
    assert 0 < wanted.sum() < len(pool)
    assert (familiar(pool, known, nearest=3, quantile=0.4) == wanted).all()


def test_foreign_images_are_dropped_and_the_domain_stays() -> None:
    common = 50 * np.ones(8)  # what all images share hides nothing
    pool = np.concatenate([cloud(0, 100, 0), cloud(1, 100, 3)])
    near = familiar(pool + common, cloud(2, 50, 0) + common)
    assert near[:100].mean() > 0.8
    assert not near[100:].any()


@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 99))
def test_neither_scale_nor_what_all_have_in_common_matters(
    scale: float, shift: float, seed: int
) -> None:
    pool, known = normal(seed, 20, 4), normal(seed + 100, 10, 4)
    moved = familiar(pool * scale + shift, known * scale + shift)
    assert (familiar(pool, known) == moved).all()


def test_copies_are_never_chosen_twice_nor_what_is_known() -> None:
    points = normal(0, 10, 4)
    pool = np.concatenate([points] * 5)
    chosen = spread(pool, points[:3], 7, np.random.default_rng(0), same(pool), ONE)
    assert sorted(chosen % 10) == list(range(3, 10))
    with pytest.raises(BadInput, match="8 images asked for; 7 of the pool differ"):
        spread(pool, points[:3], 8, np.random.default_rng(0), same(pool), ONE)


def test_a_sparse_region_is_reached_sooner_than_at_random() -> None:
    pool, known = (
        np.concatenate([cloud(n, s, n) for n, s in enumerate((490, 490, 20))]),
        cloud(9, 5, 0),
    )
    random = np.random.default_rng(0)
    found = [spread(pool, known, 10, random, same(pool), ONE) for _ in range(20)]
    rare = np.mean([(each >= 980).sum() for each in found])
    assert rare > 5 * 10 * 20 / 1000


def test_draws_are_those_of_a_loop() -> None:
    pool, known = normal(0, 12, 3), normal(1, 3, 3)
    taken_for, have = np.arange(12) % 3, np.array([3, 1, 2])
    chosen = spread(pool, known, 6, np.random.default_rng(5), taken_for, have)
    assert [*chosen] == slow_spread(pool, known, 6, np.random.default_rng(5), taken_for, have)


def slow_spread(
    pool: np.ndarray,
    known: np.ndarray,
    count: int,
    random: np.random.Generator,
    taken_for: np.ndarray,
    annotated: np.ndarray,
) -> list[int]:
    own, others = (directions(each, sum(pool) / len(pool)) for each in (pool, known))
    have, there, chosen = [*annotated], [*others], []
    for _ in range(count):
        rare = random.choice([k for k in range(len(have)) if have[k] == min(have)])
        near = [min(((a - b) ** 2).sum() for b in there) for a in own]
        odds = np.where(taken_for == rare, near, 0)
        chosen.append(int(random.choice(len(pool), p=odds / odds.sum())))
        have[rare] += 1
        there.append(own[chosen[-1]])
    return chosen


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(1, 25), st.integers(0, 99))
def test_classes_are_filled_up_from_below(have: list[int], count: int, seed: int) -> None:
    """As water does in three pots; a class without images takes none."""
    pool, taken_for = normal(seed, 90, 4), np.arange(90) % 2
    random = np.random.default_rng(seed)
    chosen = spread(pool, normal(seed + 100, 4, 4), count, random, taken_for, np.array(have))
    level = sorted(have[:2])
    for _ in range(count):
        level = sorted([level[0] + 1, level[1]])
    got = np.bincount(taken_for[chosen], minlength=2) + have[:2]
    assert sorted(got) == level
    assert len({*chosen}) == count


def test_the_three_steps_come_together() -> None:
    pool = np.concatenate([cloud(0, 60, 0), cloud(1, 40, 3)])
    taken_for = np.arange(100) % 3
    random = [np.random.default_rng(0) for _ in range(2)]
    one, again = (
        select(pool, cloud(2, 50, 0), 12, each, taken_for, np.array([9, 3, 0])) for each in random
    )
    assert (one == again).all()
    assert (one < 60).all()
    assert np.bincount(taken_for[one]).tolist() == [0, 4, 8]
    assert len(select(pool, cloud(2, 50, 0), 12, random[0])) == 12


@pytest.mark.parametrize(("nearest", "quantile"), [(0, 0.9), (10, 0.9), (3, 0.0), (3, 1.1)])
def test_a_reference_that_says_nothing_is_refused(nearest: int, quantile: float) -> None:
    with pytest.raises(BadInput, match="more members than neighbours"):
        familiar(normal(0, 5, 3), normal(1, 10, 3), nearest, quantile)
