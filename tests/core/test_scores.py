"""GLUE's metrics against those of scipy and textbook sums."""

import numpy as np
import pytest
import torch
from scipy import stats

from roadworthy.core.scores import (
    classified,
    correlations,
    counts,
    explained,
    score,
    spearman,
)


def drawn(n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    told = torch.randint(classes, (n,), generator=generator)
    wrong = torch.randint(classes, (n,), generator=generator)
    return torch.where(torch.rand(n, generator=generator) < 0.3, wrong, told), told


def test_correlations_are_those_of_scipy_with_ties_and_on_resamples() -> None:
    x, y = (part.float() / 2 for part in drawn(40, 6))
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    counted = counts(40, 3, 2)
    found = correlations(x, y, counted)
    assert found[0] == pytest.approx(stats.pearsonr(x, y)[0])
    a, b = (np.repeat(part.numpy(), counted[2]) for part in (x, y))
    assert found[2] == pytest.approx(stats.pearsonr(a, b)[0])


def test_a_constant_answer_has_no_correlation() -> None:
    told = torch.tensor([1.0, 2.0, 3.0])
    assert score(torch.full((3, 1), 2.5), told, True, 0).value == 0
    assert spearman(torch.ones(3), told) == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_f1_and_matthews_are_those_of_their_tables(classes: int) -> None:
    said, told = drawn(60, classes)
    found = classified(said, told, classes)
    table = np.zeros((classes, classes))
    np.add.at(table, (told.numpy(), said.numpy()), 1)
    f1 = 2 * table.diagonal() / (table.sum(0) + table.sum(1))
    assert found["f1"] == pytest.approx(f1[1] if classes == 2 else f1.mean(), rel=1e-5)
    one, other = torch.eye(classes)[told].numpy(), torch.eye(classes)[said].numpy()
    cov = lambda a, b: ((a - a.mean(0)) * (b - b.mean(0))).sum()  # noqa: E731
    expected = cov(one, other) / np.sqrt(cov(one, one) * cov(other, other))
    assert found["matthews"] == pytest.approx(expected, rel=1e-5)


def test_images_keep_their_accuracy_alone() -> None:
    logits, told = torch.eye(3), torch.tensor([0, 1, 1])
    assert score(logits, told, False, 0).also == {}
    assert score(logits, told, True, 0).value == score(logits, told, False, 0).value


def test_an_offset_or_a_factor_explains_less() -> None:
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(1))
    assert explained(x, x) == 1
    assert explained(x, 1.1 * x + 0.1) < 0.99
    assert explained(x, -x) == 0
    assert explained(torch.ones(3, 1), torch.ones(3, 1)) == 1
    assert explained(torch.ones(3, 1), torch.zeros(3, 1)) == 0


def test_rounding_explains_answers_that_do_not_differ() -> None:
    maps = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1))
    for same in (maps, maps.expand(3, 4, 4), torch.full((2, 1), 0.7)):
        assert explained(same, same * (1 + 1e-6)) > 0.9999
        assert explained(same, same.flip(0).flip(1) + 0.5) < 0.9
