"""Search within a budget: the same cost for both methods, exact resume, clear refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn.spaces import small
from PIL import Image

from roadworthy.core.metanet import MetaNetConfig
from roadworthy.errors import BadInput
from roadworthy.learn.search import Evolution, Goal, Method, Random, Trial, best, expected, search
from roadworthy.learn.space import cost_of

SPACE = small(down=("inside",))
GOAL = Goal(budget=250_000, evaluations=40, size=32, classes=5)
QUICK = Evolution(first=12, parents=5, children=8)


def score(network: MetaNetConfig) -> float:
    """Likes attention late and convolutions early, and depth a little."""
    wanted = ("mbconv", "mbconv", "mbconv", "xca", "xca")
    right = sum(s.op == op for s, op in zip(network.stages, wanted, strict=True))
    return right + sum(0.3 * s.repeats + s.channels / 40 for s in network.stages)


@pytest.mark.parametrize("method", [Random(), QUICK])
def test_trials_are_many_enough_within_the_budget_and_differ(method: Method) -> None:
    trials = search(SPACE, GOAL, score, method, 0)
    assert len({each.network for each in trials}) == len(trials) == 40
    for each in trials:
        SPACE.check(each.network)
        assert each.macs == cost_of(each.network, 32, 5).macs <= GOAL.budget
        assert each.score == score(each.network)


def test_the_budget_binds() -> None:
    free = search(SPACE, replace(GOAL, budget=10**9), score, Random(), 0)
    assert any(each.macs > GOAL.budget for each in free)


def test_both_methods_begin_with_the_same_networks() -> None:
    one, other = (search(SPACE, GOAL, score, method, 3) for method in (Random(), QUICK))
    assert one[:12] == other[:12]
    assert one[12:] != other[12:]
    assert search(SPACE, GOAL, score, QUICK, 4) != other


def test_evolution_finds_more_than_chance_at_the_same_cost() -> None:
    gains = []
    for seed in range(3):
        found = [search(SPACE, GOAL, score, method, seed) for method in (Random(), QUICK)]
        chance, evolved = (best(each)[0].score for each in found)
        gains.append(evolved - chance)
    assert sum(gains) / 3 > 0.3
    assert min(gains) >= 0


def test_what_is_expected_is_what_choices_have_brought() -> None:
    trials = search(SPACE, replace(GOAL, evaluations=80), score, Random(), 0)
    known, new = trials[:60], [each.network for each in trials[60:]]
    hopes = expected(known, new)
    assert np.corrcoef(hopes, [score(each) for each in new])[0, 1] > 0.9
    # of one trial nothing but its score is known
    assert expected(known[:1], new) == pytest.approx([known[0].score] * len(new))


def test_the_best_come_first_and_early_ones_before_equals() -> None:
    network = search(SPACE, replace(GOAL, evaluations=1), score, Random(), 0)[0].network
    trials = [Trial(network, macs, value) for macs, value in ((1, 0.5), (2, 0.7), (3, 0.7))]
    assert [each.macs for each in best(trials, 2)] == [2, 3]


def counted(calls: list[MetaNetConfig]) -> Callable[[MetaNetConfig], float]:
    def judge(network: MetaNetConfig) -> float:
        calls.append(network)
        return score(network)

    return judge


@pytest.mark.parametrize("tail", ["", '{"network": {"st'])
def test_an_interrupted_search_goes_on_to_the_same(tail: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = search(SPACE, GOAL, score, QUICK, 0, path)
    rows = path.read_text().splitlines(keepends=True)
    assert len(rows) == 1 + 40
    path.write_text("".join(rows[: 1 + 25]) + tail)
    calls: list[MetaNetConfig] = []
    assert search(SPACE, GOAL, counted(calls), QUICK, 0, path) == whole
    assert len(calls) == 1 + 15
    assert path.read_text() == "".join(rows)


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    goal = replace(GOAL, evaluations=3)
    search(SPACE, goal, score, QUICK, 0, path)
    with pytest.raises(BadInput, match=r"holds another search \(seed differ\)"):
        search(SPACE, goal, score, QUICK, 1, path)
    with pytest.raises(BadInput, match=r"trial 0 of .* is of another search"):
        search(SPACE, goal, lambda network: 2 * score(network), QUICK, 0, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["macs"] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match="trial 1 of"):
        search(SPACE, goal, score, QUICK, 0, path)


def test_what_cannot_be_found_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadworthy.learn.search._DRAWS", 60)
    with pytest.raises(BadInput, match=r"a budget of 9 .* takes \d+: give more than that"):
        search(SPACE, replace(GOAL, budget=9), score, QUICK, 0)
    tiny = small(op=("xca",), channels=(8,), down=("inside",), repeats=(1,))
    with pytest.raises(BadInput, match="40 evaluations asked for; 1 networks within the budget"):
        search(tiny, GOAL, score, QUICK, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(GOAL, budget=0), "budget 0 given"),
        (lambda: replace(GOAL, evaluations=0), "evaluations 0 given"),
        (lambda: Evolution(first=3, parents=4), "first 3, parents 4"),
        (lambda: Evolution(mutation=0.0), "mutation in"),
    ],
)
def test_settings_cannot_be_wrong(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_the_example_of_the_docs_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for place in (f"{half}/{name}" for half in ("train", "held") for name in "abcdefghij"):
        Path(place).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{place}/{number}.png")
    docs = (Path(__file__).parents[2] / "docs" / "learn.md").read_text()
    _, _, section = docs.partition("### Search")
    _, _, code = section.partition("```python\n")
    code = code.partition("```")[0].replace("steps=250", "steps=1, batch=4")
    said: dict[str, Any] = {}
    exec(code.replace("evaluations=80", "evaluations=2"), said)
    assert len(said["trials"]) == 2
    cut = said["supernet"].cut(said["network"])
    assert cut.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    learned = {each.numpy().tobytes() for each in said["learned"].content.images}
    calibrating = said["judge"].calibration.content.images
    assert learned.issuperset(each.numpy().tobytes() for each in calibrating)
