"""Laws of a benchmark's page: every number is there, published ones apart, shares are true."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_bench import MODELS, OWN, SETS, reached, sample_bench
from sample_report import Run
from test_page import page, visible

from roadworthy.learn.gvb.published import PUBLISHED, published
from roadworthy.report.bench import read_measured, told
from roadworthy.report.radar import MOST, RADIUS, Series, radar, share
from roadworthy.report.tree import Tree

WriteRun = Callable[..., Path]
positive = st.floats(0.001, 1e3)


def tree(run: Run) -> Tree:
    return Tree(json.loads(json.dumps(run)))


def distances(one: Series) -> list[float]:
    return [math.hypot(dot.x, dot.y) / RADIUS for dot in one.dots]


@pytest.fixture
def bench(write_run: WriteRun) -> Path:
    return write_run(sample_bench(), "bench")


def test_a_benchmark_says_how_much_was_measured_and_who_leads(bench: Path) -> None:
    html = page(bench, out=bench)
    text = visible(html)
    assert "<h1>Benchmark of 3 backbones on 7 data sets</h1>" in html
    assert "linear, 10 % of the labels, 3 seeds, 64 pixels a side" in text
    types = sample_bench()["types"]
    last = [row["relative"] for row in types if row["backbone"] == MODELS[2]]
    said = f"{MODELS[2]} has the smallest error: {sum(last) / 4:.2f} times that of {MODELS[0]}."
    assert said in text
    assert "the mean over 4 task types" in text
    tiles = re.findall(r'class="tile"><b>(.*?)</b>', html)
    assert tiles == [f"{each:.2f}×" for each in last]


def test_published_values_stand_beside_the_size_of_the_others(write_run: WriteRun) -> None:
    run = sample_bench()
    run["config"]["terms"]["size"] = 96
    folder = write_run(run)
    said = "here images have 96 pixels a side, there the sizes of their authors."
    assert visible(page(folder, out=folder)).count(said) == 1
    del run["config"]["terms"]["size"]
    folder = write_run(run, "unsaid")
    assert "tuned for each data set." in visible(page(folder, out=folder))


@pytest.mark.parametrize("protocol", ["linear", "frozen"])
def test_the_command_gives_the_benchmark_again(protocol: str, write_run: WriteRun) -> None:
    run = sample_bench(("dtd", "kitti", OWN), MODELS[:2])
    run["config"]["terms"]["protocol"] = protocol
    run["config"]["workers"] = "ray"
    folder = write_run(run)
    assert (
        f"<pre>roadworthy benchmark metanet:mn_xs@random out/generalist --root data --datasets dtd "
        f"kitti --data classification={OWN} --test classification=imagefolder:parts/test "
        f"--fraction 0.1 --protocol {protocol} --steps 200 --batch-size 32 --rates 0.0005 0.002 "
        "--seeds 3 --size 64 --seed 0 --workers ray --out out/benchmark</pre>"
    ) in page(folder, out=folder)


def test_an_interval_below_nothing_is_no_range_of_dashes(write_run: WriteRun) -> None:
    run = sample_bench()
    run["table"][0]["low"] = -0.021
    folder = write_run(run)
    assert "−2.1 to " in visible(page(folder, out=folder))


def test_each_data_set_has_a_row_of_all_backbones(bench: Path) -> None:
    html = page(bench, out=bench)
    for name in ("cifar10", "citypersons", "kitti", OWN):
        title = SETS[name].title if name in SETS else name
        title = title.replace("'", "&#39;").replace(":", ":<wbr>").replace("/", "/<wbr>")
        start = html.index(f'<td class="text wrap">{title}<small>')
        cells = visible(html[start : html.index("</tr>", start)])
        scale, digits = (1, "#.3g") if name == "kitti" else (100, ".1f")
        for number in range(3):
            value = reached(name, number)
            low, high = (f"{value * end * scale:{digits}}" for end in (0.97, 1.03))
            assert f"{value * scale:{digits}} {low}–{high}" in cells
        for value in published(name).values():
            assert f" {value * scale:{digits}} " in cells
        best = re.findall(r'class="best"[^>]*>([^<]+)', html[start : html.index("</tr>", start)])
        assert best == [f"{reached(name, 2) * scale:{digits}}"]
    assert "RMSE in m ↓, 2,315 to learn from, 652 to test on" in visible(html)
    assert "miss rate ↓" in visible(html)


def test_published_values_are_told_apart(bench: Path) -> None:
    html = page(bench, out=bench)
    head = html[html.index("<h3>Depth</h3>") :].split("</thead>")[0]
    assert head.count("<small>published</small>") == len(PUBLISHED)
    row = html[html.index("KITTI depth, Eigen&#39;s split<small>") :].split("</tr>")[0]
    assert row.count('class="told') == len(PUBLISHED)


def test_a_users_own_data_have_nothing_published(write_run: WriteRun) -> None:
    folder = write_run(sample_bench((OWN,)))
    assert "published" not in visible(page(folder, out=folder)).lower()


def test_the_relative_error_of_each_type_is_shown(bench: Path) -> None:
    html = page(bench, out=bench)
    table = html[html.index("<h3>Mean relative error</h3>") :].split("</table>")[0]
    text = visible(table)
    for row in sample_bench()["types"]:
        assert f"{row['relative']:.2f}" in text
    assert "Detection 1.00" in text
    assert "All task types 1.00" in text


def test_what_was_odd_is_said_once_and_of_whom() -> None:
    assert told(tree(sample_bench())) == (
        ("CIFAR-10", f"no object of 1 (road); left out ({MODELS[1]})"),
        ("Describable Textures", "3 images also among the images to learn from"),
    )


@pytest.mark.parametrize("other", [{"dataset": "b"}, {"task": "depth"}])
def test_what_was_odd_of_data_sets_of_one_title_is_kept_apart(other: Run) -> None:
    first = {"dataset": "a", "title": "Scenes", "task": "detection"}
    rows = [{**first, "backbone": name, "told": ["odd"]} for name in MODELS[:2]]
    rows += [{**first, **other, "backbone": name} for name in MODELS]
    rows[-1]["told"] = ["odd"]
    found = told(tree({"rows": rows}))
    assert found == (("Scenes", "odd"), ("Scenes", f"odd ({MODELS[2]})"))


@given(positive, st.lists(positive, min_size=1, max_size=9))
def test_shares_rank_as_values_and_the_best_has_all(value: float, others: list[float]) -> None:
    for higher in (True, False):
        best = (max if higher else min)(value, *others)
        assert share(best, best, higher) == 1
        part = share(value, best, higher)
        assert 0 <= part <= 1
        assert part == pytest.approx(value / best if higher else best / value)


def test_the_outer_ring_is_the_best_of_each_axis() -> None:
    drawn = radar(read_measured(tree(sample_bench())))
    assert drawn is not None
    found: dict[str, dict[str, float]] = {}
    for one in drawn.series:
        for dot, out in zip(one.dots, distances(one), strict=True):
            found.setdefault(dot.tip.split(f", {one.name}")[0], {})[one.name] = out
    assert len(found) == 7
    for axis in found.values():
        assert max(axis.values()) == pytest.approx(1, abs=1e-4)
    depth = next(axis for title, axis in found.items() if "KITTI" in title)
    metres = {f"{name} (published)": value for name, value in published("kitti").items()}
    best = min(metres[name] for name in depth if name in metres)
    assert depth[MODELS[0]] == pytest.approx(best / reached("kitti", 0), abs=1e-3)


def test_a_line_breaks_where_a_backbone_has_no_value() -> None:
    drawn = radar(read_measured(tree(sample_bench())))
    assert drawn is not None
    by_kind = {each.kind: each for each in drawn.series}
    assert by_kind["own-1"].path.endswith("Z")
    beside = by_kind["told-1"]  # nothing is published of the user's own data
    assert not beside.path.endswith("Z")
    assert len(beside.dots) == 6
    assert beside.path.count("M") == 1


def test_at_most_six_backbones_are_drawn_and_the_page_says_so(write_run: WriteRun) -> None:
    models = tuple(f"out/model-{number}" for number in range(9))
    folder = write_run(sample_bench(models=models))
    html = page(folder, out=folder)
    assert "6 of 9 backbones are drawn" in visible(html)
    legend = re.findall(r"<li><svg.*?<span>(.*?)</span></li>", html.replace("<wbr>", ""), re.S)
    assert legend[:MOST] == list(models[3:])
    assert len(legend) == MOST + 3
    assert all(name.endswith("(published)") for name in legend[MOST:])


def test_series_differ_in_more_than_colour(bench: Path) -> None:
    html = page(bench, out=bench)
    legend = html[html.index('<ul class="told">') :].split("</ul>")[0]
    assert len(set(re.findall(r'<g class="at">\s*<(\w+)', legend)) - {"title"}) >= 3
    style = html.split("</style>")[0]
    dashes = re.findall(r"\.told-(\d) \.way \{[^}]*stroke-dasharray: ([\d ]+)", style)
    assert len({dash for _, dash in dashes}) == 3
    assert '<title id="run-1-radar">Radar plot of' in html
    assert '<desc id="run-1-told">An axis for each of 7 data sets' in html


def test_one_spec_may_stand_for_several_tasks(write_run: WriteRun) -> None:
    run = sample_bench(("cifar10", "kitti", OWN))
    for row in run["table"]:
        row |= {"dataset": "scenes:0-9", "title": "scenes:0-9"}
    run["table"] = run["table"][:6]
    measured = read_measured(tree(run))
    assert [(one.task, len(one.results)) for one in measured.sets] == [
        ("classification", 3),
        ("depth", 3),
    ]
    folder = write_run(run)
    assert f"{reached('kitti', 1):#.3g}" in visible(page(folder, out=folder))


def test_a_first_backbone_that_leads_is_said_to(write_run: WriteRun) -> None:
    run = sample_bench(models=MODELS[:2])
    for row in run["types"]:
        row["relative"] = 1.0 if row["backbone"] == MODELS[0] else 1.2
    folder = write_run(run)
    html = page(folder, out=folder)
    assert f"No other backbone has a smaller error than {MODELS[0]}." in visible(html)
    assert 'class="tile"' not in html


def test_many_axes_are_numbered_as_the_tables_are(write_run: WriteRun) -> None:
    folder = write_run(sample_bench(tuple(SETS)))
    html = page(folder, out=folder)
    keys = re.findall(r"<li>([^<]+)</li>", html[html.index('<ol class="key">') :])
    assert len(keys) == 26
    assert f'<b class="number">26</b> {keys[25]}<small>' in html
    assert re.findall(r"<text[^>]*>(\d+)</text>", html) == [str(n) for n in range(1, 27)]


def test_two_data_sets_are_dots_with_intervals(write_run: WriteRun) -> None:
    folder = write_run(sample_bench(("cifar10", "kitti")))
    html = page(folder, out=folder)
    assert 'class="radar"' not in html
    assert html.count('class="whisker"') == 2 * (3 + 3)
    assert f"{reached('kitti', 0):#.3g} m" in visible(html)
    assert "(published)" in visible(html)


def test_one_seed_has_no_interval(write_run: WriteRun) -> None:
    run = sample_bench()
    for row in run["table"]:
        row |= {"seeds": 1, "low": None, "high": None}
    folder = write_run(run)
    text = visible(page(folder, out=folder))
    assert f"{reached('cifar10', 0) * 100:.1f}" in text
    assert "None" not in text


def test_one_backbone_is_compared_with_nothing(write_run: WriteRun) -> None:
    folder = write_run(sample_bench(("cifar10", "dtd", OWN), MODELS[:1]))
    text = visible(page(folder, out=folder))
    assert f"{MODELS[0]}: CIFAR-10 {reached('cifar10', 0) * 100:.1f}, Describable" in text
    assert "relative error" not in text.lower()


@pytest.mark.parametrize("key", sample_bench()["table"][0])
def test_any_key_of_a_row_may_be_missing(key: str, write_run: WriteRun) -> None:
    run = copy.deepcopy(sample_bench())
    for row in (*run["table"][::2], *run["rows"][::2], *run["types"][::2]):
        row.pop(key, None)
    folder = write_run(run)
    assert "</html>" in page(folder, out=folder)


def test_a_hostile_name_is_text(write_run: WriteRun) -> None:
    hostile = "<img src=x onerror=alert(2)>"
    run = sample_bench(("cifar10", "dtd", "kitti"), (MODELS[0], hostile))
    for row in (*run["table"], *run["rows"]):
        row |= {"title": hostile, "metric": hostile}
    run["rows"][0]["told"] = [hostile]
    run["published"]["kitti"][hostile] = 2.0
    folder = write_run(run)
    assert "<img" not in page(folder, folder, out=folder)
