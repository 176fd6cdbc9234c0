"""Laws of the pages of an adapted model and of a search: what was chosen, among what, and why."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_adapt import (
    TRIALS,
    sample_adapt,
    sample_depth,
    sample_search,
    write_manifest,
    write_trials,
)
from sample_report import Run, sample_run
from test_page import page, visible

from roadworthy.learn.adapt.protocols import NAMES, Descent, protocol_of
from roadworthy.report.adaptview import PROTOCOLS

WriteRun = Callable[..., Path]
SAMPLES = {"adapt": sample_adapt, "depth": sample_depth, "search": sample_search}


@pytest.fixture
def adapted(write_run: WriteRun) -> Path:
    folder = write_run(sample_adapt(), "adapted")
    write_manifest(folder)
    return folder


@pytest.fixture
def searched(write_run: WriteRun) -> Path:
    folder = write_run(sample_search(), "search")
    write_trials(folder)
    return folder


def test_an_adapted_model_says_what_it_is_and_reached(adapted: Path) -> None:
    html = page(adapted, out=adapted)
    text = visible(html)
    assert "<h1>out/distilled for classification</h1>" in html
    assert "adapted: a linear layer on frozen features, 10 % of the labels, 32 pixels a" in text
    assert "Top-1 accuracy 34.2 (31.3–37.2) with 10 % of the labels." in text
    assert "The penalty 0.1 was chosen of 3, on held-out labelled images. 1,017 test" in text
    assert 'class="mark-pass"' in html
    assert "learned from npz:train.npz 2,500 97e497e497e4" in text
    assert "judged by npz:test.npz?x=x&amp;y=y 1,017 58ef58ef58ef" in text
    assert "out/distilled (fa72fa72fa72)" in text
    assert "multiply-accumulates 607 GMACs 1.82 TMACs" in text


def test_an_adapted_model_says_how_it_is_opened_and_made_again(adapted: Path) -> None:
    text = visible(page(adapted, out=adapted))
    assert (
        "roadworthy evaluate py:out/adapted/model.py:build --data &#39;npz:test.npz?x=x&amp;y=y"
    ) in text
    assert (
        "roadworthy adapt out/distilled --data npz:train.npz --task classification --test "
        "&#39;npz:test.npz?x=x&amp;y=y&#39; --fraction 0.1 --protocol linear --size 32 --seed 4 "
        "--out out/adapted"
    ) in text


@pytest.mark.parametrize("spec", ["shards:out/scenes", "scenes:0-99", "captions:a.csv@images"])
def test_data_that_only_learning_opens_are_not_evaluated(spec: str, write_run: WriteRun) -> None:
    run = sample_adapt()
    run["config"]["test"] = spec
    folder = write_run(run)
    text = visible(page(folder, out=folder))
    assert "roadworthy evaluate py:out/adapted/model.py:build --data SPEC" in text
    assert f"--test {spec}" in text


def test_the_choice_stands_out_among_its_trials(adapted: Path) -> None:
    html = page(adapted, out=adapted)
    bars = re.findall(r"<span>(.*?)</span>\s*.*?<i class=\"(.*?)\".*?<b>(.*?)</b>", html)
    assert bars == [
        ("0.01", "before", "2.053"),
        ("0.1, chosen", "", "1.936"),
        ("1", "before", "1.980"),
    ]
    assert "Penalty by loss, lower is better" in visible(html)


def test_an_unjudged_adaptation_claims_nothing_and_names_failed_rates(write_run: WriteRun) -> None:
    folder = write_run(sample_depth(), "depth")
    html = page(folder, out=folder)
    text = visible(html)
    assert "Adapted to depth; no test images judged it." in text
    assert 'class="mark-none"' in html
    assert "Learning rate by RMSE, lower is better" in text
    assert "0.0005, chosen 1.25 m" in text
    assert "0.008 failed" in text
    assert "--protocol frozen --steps 200 --batch-size 32 --rates 0.0005 0.008 --size" in text
    assert "--test" not in text


def test_odd_data_are_told_and_marked(write_run: WriteRun) -> None:
    folder = write_run({**sample_adapt(), "warnings": ["3 test images are also learned from"]})
    html = page(folder, out=folder)
    assert "3 test images are also learned from" in visible(html)
    assert 'class="mark-warn"' in html


def test_every_protocol_is_known_by_its_name() -> None:
    known = {type(protocol_of(name, Descent())).__name__: name for name in NAMES}
    assert {protocol: name for protocol, (name, _) in PROTOCOLS.items()} == known


def test_adapted_models_are_compared_first(
    adapted: Path, write_run: WriteRun, tmp_path: Path
) -> None:
    other = write_run(sample_depth(), "depth")
    html = page(adapted, other, write_run(sample_run()), out=tmp_path / "all.html")
    board = html[html.index("<h3>Adapted models</h3>") :]
    rows = [" ".join(visible(row).split()) for row in re.findall(r"<tr>.*?</tr>", board, re.S)[1:3]]
    assert rows == [
        "out/distilled adapted classification a linear layer on frozen features 2,500 "
        "34.2 top-1 accuracy, 31.3–37.2 0.1 penalty",
        "out/distilled depth depth a head on a frozen backbone 2,500 – 0.0005 learning rate",
    ]


def test_a_search_says_what_it_found_beside_the_model_itself(searched: Path) -> None:
    html = page(searched, out=searched)
    text = visible(html)
    assert "<h1>Search around metanet:mn_xs</h1>" in html
    assert (
        "Best of 4 networks: top-1 accuracy 23.0 at 89 % of the cost; metanet:mn_xs 17.0." in text
    )
    assert "evolution, networks of at most 1.91 MMACs, a supernet of 40 steps, 32 pixels" in text
    rows = re.findall(r"<tr><td class=\"text\">.*?</tr>", html, re.S)
    shown = [" ".join(visible(row).split()) for row in rows]
    assert shown[0].startswith("best 1 23.0 18.6–28.1 1.70 M 0.538 M mbconv 2x16 inside xca 1x24")
    assert [row.split()[0] for row in shown[:5]] == [*["best"] * 4, "metanet:mn_xs"]
    assert (
        "roadworthy learn search metanet:mn_xs --source classification=npz:train.npz --held "
        "classification=npz:held.npz --evaluations 4 --method evolution --steps 40 --batch-size 32 "
        "--rate 0.003 --size 32 --seed 0 --out out/search"
    ) in text


def test_every_trial_is_drawn_and_the_best_so_far_never_falls(searched: Path) -> None:
    html = page(searched, out=searched)
    tips = re.findall(r"<title>(.*?)</title>", html)
    for number, (macs, score) in enumerate(TRIALS, 1):
        assert f"trial {number}: {score * 100:.1f} at {macs / 1e6:.3g} MMACs" in tips
    assert "metanet:mn_xs: 17.0 at 1.91 MMACs" in tips
    assert re.findall(r'class="dot best"[^>]*><title>(.*?)<', html) == [
        "trial 4: 23.0 at 1.7 MMACs"
    ]
    assert 'class="limit"' in html
    stair = re.findall(r'<polyline class="curve" points="(.*?)"', html)[0].split()
    downs = [float(pair.split(",")[1]) for pair in stair]
    assert downs == sorted(downs, reverse=True)
    assert len(set(downs)) == 3
    assert "the line the best so far: 16.0 → 23.0" in visible(html)
    assert "Loss of the supernet" in html


def test_a_search_that_finds_nothing_better_is_marked(write_run: WriteRun) -> None:
    run = sample_search()
    run["itself"]["score"] = 0.4
    folder = write_run(run, "worse")
    assert 'class="mark-warn"' in page(folder, out=folder)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_hostile_name_is_text(kind: str, write_run: WriteRun) -> None:
    hostile = "<img src=x onerror=alert(2)>"
    run: Run = SAMPLES[kind]()
    run["config"]["model"] = hostile
    if "trials" in run:
        run["trials"][hostile] = 1.0
    folder = write_run(run)
    assert "<img" not in page(folder, folder, out=folder)
