"""Laws of the words: a number is never made better than it is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.report import words
from roadworthy.report.facts import read_facts, wilson
from roadworthy.report.tree import Tree


@given(st.floats(0, 1, exclude_max=True))
def test_only_all_is_a_hundred_per_cent(share: float) -> None:
    assert not words.percent(share).startswith("100")


@given(st.floats(0, 1), st.floats(0, 1))
def test_per_cent_keeps_order(a: float, b: float) -> None:
    shown = [float(words.percent(share).removesuffix(" %")) for share in sorted((a, b))]
    assert shown[0] <= shown[1]


@given(st.floats(-100, 100))
def test_a_change_carries_its_sign(value: float) -> None:
    shown = words.signed(value)
    assert shown[0] == ("±" if abs(value) < 0.05 else "+" if value > 0 else "−") or shown == "±0.0"


@pytest.mark.parametrize(
    ("metric", "after", "kind"),
    [("rmse", 0.335, "pass"), ("rmse", 0.35, "warn"), ("rmse", 0.2, "pass"), ("top1", 0.3, "warn")],
)
def test_more_than_a_centimetre_or_a_point_lost_is_marked(
    metric: str, after: float, kind: str
) -> None:
    tree = Tree({"float": {"metric": metric, "value": 0.331}, "deployed": {"value": after}})
    assert words.verdict_class(read_facts(tree, Path("run"))) == kind


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_wilson_holds_the_share(n: int, hits: int) -> None:
    share = min(hits, n) / n
    interval = wilson(share, n)
    assert interval is not None
    assert 0 <= interval[0] <= share + 1e-12
    assert share - 1e-12 <= interval[1] <= 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_wilson_is_the_root_of_the_score_test(share: float) -> None:
    n, z = 137, 1.959964
    interval = wilson(share, n)
    assert interval is not None
    for bound in interval:
        if 0 < bound < 1:
            assert abs(share - bound) == pytest.approx(z * (bound * (1 - bound) / n) ** 0.5)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, "The model: nothing was measured in this run."),
        ({"deployed": {"value": 0.9}}, "The model reaches 90.0 points."),
        ({"latency": {"float_ms": 3, "quantized_ms": 1}}, "The model is 3.0× as fast as float."),
        (
            {"config": {"bits": "w8a8"}, "float": {"value": 0.9}, "deployed": {"value": 0.91}},
            "W8A8 reaches 91.0 points, float 90.0.",
        ),
        (
            {"parity": {"agreement": 1.0, "n": 20}},
            "Deployed and simulated: same class on all 20 images.",
        ),
        ({"metric": "rmse", "value": 0.331}, "The model: 0.331 m RMSE."),
        (
            {"float": {"metric": "rmse", "value": 0.331}, "deployed": {"value": 0.3431}},
            "The model errs by 0.343 m, float by 0.331 m.",
        ),
    ],
)
def test_the_verdict_says_what_there_is(tree: object, expected: str) -> None:
    assert words.verdict(read_facts(Tree(tree), Path("run"))) == expected
