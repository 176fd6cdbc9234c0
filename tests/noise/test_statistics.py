import numpy as np
import pytest

from roadworthy.core.tasks import Classification
from roadworthy.noise.statistics import draws, estimate, points


def test_the_first_row_counts_every_image_once() -> None:
    counts = draws(7, seed=3, resamples=5)
    assert counts.shape == (6, 7)
    assert counts[0].tolist() == [1] * 7
    assert counts.sum(1).tolist() == [7] * 6


def test_the_interval_of_a_difference_is_the_one_of_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(2000) < 0.8).astype(float)
    b = np.where(rng.random(2000) < 0.05, 1 - a, a)
    counts = draws(2000, seed=0)
    found = estimate(points(Classification(), a, counts) - points(Classification(), b, counts))
    error = 100 * (a - b).std() / np.sqrt(2000)
    assert found.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < found.value < found.high


def test_no_difference_is_not_measurable() -> None:
    assert not estimate(np.zeros(11)).measurable
    assert estimate(np.linspace(1, 2, 11)).measurable
