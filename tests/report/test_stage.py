"""Laws of the report of a stage of learning: what it learned from, reached and cost."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_report import sample_run
from sample_stage import TASKS, logged, sample_amateur, sample_probes, sample_stage, write_beside
from test_page import page, visible

from roadworthy.report.charts import CEILING, FLOOR, curve
from roadworthy.report.journal import losses, means, parts, running, speed
from roadworthy.report.lessons import judged
from roadworthy.report.tree import Tree

WriteRun = Callable[..., Path]
series = st.lists(st.tuples(st.integers(0, 999), st.floats(-1e3, 1e3)), min_size=2, max_size=300)


@pytest.fixture
def stage(write_run: WriteRun) -> Path:
    folder = write_run(sample_stage(), "generalist")
    write_beside(folder)
    return folder


def test_a_stage_says_what_it_reached_learned_and_cost(stage: Path) -> None:
    html = page(stage, out=stage)
    text = visible(html)
    assert "Generalist: top-1 accuracy 27.0, mAP50 2.1, RMSE 8.53 m." in text
    assert "It saw 4,800 images in 100 steps." in text
    tiles = re.findall(r'class="tile"><b>(.*?)</b>', html)
    assert tiles == ["27.0", "2.1", "8.53 m", "607 G", "50"]
    assert "metanet:mn_xs" in text
    assert "out/detection (e29fe29fe29f)" in text
    assert "wrote model.safetensors fa72fa72fa72" in text
    assert "kept of the way from its experts 75 %" in text
    assert "classification scenes (synthetic) 800 876187618761" in text
    assert "multiply-accumulates 607 GMACs 1.82 TMACs" in text
    assert "CPU time 1 min 33 s 4 min 38 s" in text
    assert "GPU time" not in text


def test_each_held_out_metric_says_which_way_is_better(stage: Path) -> None:
    html = page(stage, out=stage)
    rows = re.findall(r"<tr><td class=\"text\">.*?</tr>", html, re.S)
    held = [" ".join(visible(row).split()) for row in rows if "er</td>" in row]
    for task, row in zip(TASKS, held, strict=True):
        assert row.startswith(task)
        assert ("lower" in row, "higher" in row) == (task == "depth", task != "depth")
    assert "27.0 21.3–33.5" in held[0]


def test_each_source_has_its_own_loss(stage: Path) -> None:
    log = [Tree(logged(step)) for step in range(40)]
    found = losses(log)
    assert [figure.name.split(",")[0] for figure in found] == ["depth", "detection"]
    for figure, first in zip(found, (0, 1), strict=True):
        begun = sum(logged(step)["loss"] for step in (first, first + 2, first + 4)) / 3
        line = [mark for mark in figure.chart.marks if mark.kind == "line"]
        assert float(figure.note.split()[0]) == pytest.approx(begun, rel=0.01)
        assert line[-1].top > line[0].top + 50  # it fell: further down on the page
        assert sum(not mark.kind for mark in figure.chart.marks) == 20
    assert [figure.name for figure in parts(log)] == ["answers", "features"]
    assert "Parts of the loss" in visible(page(stage, out=stage))
    drawn = speed(log)
    assert drawn is not None
    assert drawn.note == "52 → 87"


def test_a_loss_of_one_part_is_drawn_once() -> None:
    told = ("step", "task", "source", "rate", "loss", "images_per_s", "seconds_left")
    log = [Tree({name: logged(step)[name] for name in told}) for step in range(9)]
    assert parts(log) == ()
    assert len(losses(log)) == 2


@given(series, st.integers(1, 40))
def test_means_of_neighbours_keep_the_mean_of_all(
    points: list[tuple[float, float]], most: int
) -> None:
    found = means(points, most)
    each = -(-len(points) // most)
    sizes = [len(points[at : at + each]) for at in range(0, len(points), each)]
    assert len(found) == len(sizes) <= most
    total = sum(value * n for (_, value), n in zip(found, sizes, strict=True))
    assert total == pytest.approx(sum(value for _, value in points), abs=1e-6)


@given(series, st.integers(0, 9))
def test_a_running_mean_lies_within_what_it_is_of(
    points: list[tuple[float, float]], width: int
) -> None:
    values = [value for _, value in points]
    for at, (_, value) in enumerate(running(points, width)):
        near = values[max(at - width, 0) : at + width + 1]
        assert min(near) - 1e-9 <= value <= max(near) + 1e-9
    assert running(points, 0) == points


@given(series)
def test_a_curve_lies_inside_its_plot_and_higher_is_more(points: list[tuple[float, float]]) -> None:
    dots = [mark for mark in curve(points, points).marks if not mark.kind]
    assert all(0 <= dot.x <= 100 and CEILING <= dot.top <= FLOOR for dot in dots)
    by_value = [
        dot for _, dot in sorted(zip((y for _, y in points), dots, strict=True), key=lambda e: e[0])
    ]
    tops = [dot.top for dot in by_value]
    assert tops == sorted(tops, reverse=True)


def test_stages_are_compared_by_table_and_chart(stage: Path, write_run: WriteRun) -> None:
    better = write_run(sample_stage(0.05), "distilled")
    amateur = write_run(sample_amateur(), "amateur")
    html = page(amateur, stage, better, write_run(sample_run()), out=stage)
    table = re.search(
        r'class="sortable compared">.*?</table>', html[html.index(">Stages<") :], re.S
    )
    assert table is not None
    head = ["Stage", "Recall@1 ↑", "Recall@5 ↑", "Top-1 accuracy ↑", "mAP50 ↑", "RMSE ↓"]
    assert re.findall(r"<button.*?>(.*?)</button>", table[0]) == [*head, "MACs", "CPU time"]
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in table[0].split("<tr>")[2:]]
    assert [row[0] for row in rows] == ["amateur", "generalist", "distilled"]
    assert rows[0][2:7] == ["3.5", "17.5", "–", "–", "–"]
    assert rows[1][1:4] == ["generalist,", "from", "detection"]
    assert rows[2][4:10] == ["–", "–", "32.0", "7.1", "8.58", "m"]
    beside = html[html.index("Stages side by side") : html.index('class="run"')]
    assert re.findall(r"<figcaption>(.*?) <small>", beside) == [
        "classification, top-1 accuracy", "detection, mAP50", "depth, RMSE",
    ]  # fmt: skip
    assert re.findall(r'class="value".*?>(.*?)<', beside)[:2] == ["27.0", "32.0"]
    assert "lower is better; scenes (synthetic), 200 images" in beside


def test_stages_judged_on_other_images_are_not_set_side_by_side(
    stage: Path, write_run: WriteRun
) -> None:
    other = sample_stage()
    for row in other["held_out"]:
        row["n"] = 300
    assert "Stages side by side" not in page(stage, write_run(other, "other"), out=stage)


def test_an_amateur_is_shown_beside_chance(write_run: WriteRun) -> None:
    folder = write_run(sample_amateur(), "amateur")
    text = visible(page(folder, out=folder))
    assert "recall@1 3.5 (chance 0.5), image to text recall@5 17.5 (chance 2.5)." in text
    assert "roadworthy learn amateur metanet:mn_xs@random --source shards:out/scenes " in text


def test_probes_name_the_best_backbone(write_run: WriteRun) -> None:
    folder = write_run(sample_probes(), "probes")
    text = visible(page(folder, out=folder))
    assert "Best of 3 probed: out/distilled, top-1 accuracy 46.0." in text
    assert "roadworthy learn probe metanet:mn_xs@random out/distilled out/generalist --data" in text


def test_the_command_gives_the_stage_again(stage: Path, write_run: WriteRun) -> None:
    run = sample_stage()
    run["config"]["machine"]["strategy"] = "fsdp"
    sharded = write_run(run, "sharded")
    assert "--precision 32-true --strategy fsdp" in visible(page(sharded, out=sharded))
    assert (
        "roadworthy learn generalist out/detection --source classification=shards:out/scenes "
        "--source detection=shards:out/scenes --source depth=shards:out/scenes "
        "--held classification=shards:out/scenes --with out/classification out/depth "
        "--steps 100 --batch-size 48 --rate 0.001 --temperature 2.0 --precision 32-true "
        "--size 64 --seed 5 --out out/generalist"
    ) in visible(page(stage, out=stage))


def test_a_stage_without_held_out_images_is_not_judged(write_run: WriteRun) -> None:
    folder = write_run({**sample_stage(), "held_out": []}, "blind")
    html = page(folder, out=folder)
    assert "no held-out images judged it" in visible(html)
    assert 'class="mark-none"' in html
    assert "On held-out images" not in html


def test_a_hostile_source_is_text(write_run: WriteRun) -> None:
    hostile = "<img src=x onerror=alert(2)>"
    run = sample_stage()
    for row in (*run["held_out"], *run["data"].values()):
        row |= {"judged_on": hostile, "name": hostile}
    folder = write_run(run)
    write_beside(folder)
    log = [{**logged(step), "source": hostile} for step in range(5)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    assert "<img" not in page(folder, folder, out=folder)


def test_less_is_better_of_metres_alone() -> None:
    assert [each.less for each in judged(Tree(sample_stage()))] == [False, False, True]
