import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from roadworthy.core.metrics import accuracy, agreement, correct, mcnemar, paired_bootstrap, wilson
from roadworthy.errors import BadData

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def split(pairs: list[tuple[bool, bool]]) -> tuple[Tensor, Tensor]:
    a, b = zip(*pairs, strict=True)
    return torch.tensor(a), torch.tensor(b)


@given(st.integers(1, 50), st.integers(2, 7), st.integers(0, 99))
def test_accuracy_is_torchmetrics(n: int, k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=rng)
    labels = torch.randint(k, (n,), generator=rng)
    wanted = multiclass_accuracy(logits, labels, k, average="micro").item()
    assert accuracy(logits, labels) == pytest.approx(wanted, abs=1e-6)
    assert accuracy(logits, logits.argmax(1)) == 1.0


def test_agreement_is_symmetric_and_whole_with_itself() -> None:
    a, b = torch.randn(40, 5), torch.randn(40, 5)
    assert agreement(a, a) == agreement(a, 3 * a) == 1.0
    assert agreement(a, b) == agreement(b, a) == (a.argmax(1) == b.argmax(1)).double().mean()


@given(PAIRS)
def test_exact_mcnemar_is_the_binomial_test(pairs) -> None:
    a, b = split(pairs)
    lost, won = int((a & ~b).sum()), int((b & ~a).sum())
    wanted = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(a, b, mid_p=False) == pytest.approx(wanted, rel=1e-9)


@given(PAIRS)
def test_mid_p_is_smaller_symmetric_and_a_probability(pairs) -> None:
    a, b = split(pairs)
    p = mcnemar(a, b)
    assert 0 < p <= 1
    assert p <= mcnemar(a, b, mid_p=False)
    assert p == mcnemar(b, a)


def test_mid_p_of_fagerland_2013() -> None:
    # 1 against 7 discordant pairs of 21: exact 0.070, mid-p 0.039.
    a = torch.tensor([True] + [False] * 7 + [True] * 13)
    b = torch.tensor([False] + [True] * 7 + [True] * 13)
    assert mcnemar(a, b, mid_p=False) == pytest.approx(0.0703, abs=1e-4)
    assert mcnemar(a, b) == pytest.approx(0.0391, abs=1e-4)


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    a = torch.arange(20_000) < 9_000
    b = torch.arange(20_000) < 9_100
    assert 0 < mcnemar(a, b) < 1e-20
    assert 0 < mcnemar(a, ~a) < 1e-20


@settings(max_examples=25)
@given(PAIRS, st.integers(0, 9))
def test_the_interval_holds_the_difference_and_turns_with_it(pairs, seed: int) -> None:
    a, b = split(pairs)
    gain = paired_bootstrap(a, b, seed)
    assert gain.low - 1e-12 <= gain.delta <= gain.high + 1e-12
    assert gain.delta == pytest.approx(b.double().mean().item() - a.double().mean().item())
    assert gain == paired_bootstrap(a, b, seed)


def test_the_bootstrap_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(1)
    a, b = torch.from_numpy(rng.random(300) < 0.8), torch.from_numpy(rng.random(300) < 0.85)
    rows = rng.integers(0, 300, (20_000, 300))
    deltas = (b.numpy().astype(float) - a.numpy())[rows].mean(1)
    low, high = np.quantile(deltas, [0.025, 0.975])
    found = paired_bootstrap(a, b, seed=0, n=20_000)
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)


def test_the_bootstrap_covers() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        a, b = (torch.from_numpy(rng.random(400) < p) for p in (0.7, 0.75))
        found = paired_bootstrap(a, b, seed=trial, n=1000)
        held += found.low <= 0.05 <= found.high
    assert 180 <= held <= 199


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data) -> None:
    good = data.draw(st.integers(0, n))
    wanted = binomtest(good, n).proportion_ci(method="wilson")
    found = wilson(torch.arange(n) < good)
    assert found == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_no_images_are_no_metric() -> None:
    none = torch.zeros(0, dtype=torch.bool)
    for measure in (
        lambda: accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
        lambda: agreement(torch.zeros(0, 3), torch.zeros(0, 3)),
        lambda: paired_bootstrap(none, none, 0),
        lambda: mcnemar(none, none),
        lambda: wilson(none),
    ):
        with pytest.raises(BadData, match="no images"):
            measure()


def test_correct_marks_each_image() -> None:
    assert correct(torch.eye(3), torch.tensor([0, 2, 2])).tolist() == [True, False, True]
