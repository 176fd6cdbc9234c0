"""Laws of the report of a road test: it says what the record says, whatever is missing."""

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_report import Run, sample_run
from sample_road import ROWS, loss, sample_blame, sample_pictures, sample_road
from test_page import page, visible

from roadworthy.report.cascade import Step, cascade
from roadworthy.report.heat import EDGES, colour, heat, legend
from roadworthy.report.road import Loss, Row, different, groups, mean_and_worst, read_rows
from roadworthy.report.tree import Tree

WriteRun = Callable[..., Path]
points = st.floats(-50.0, 90.0)


@pytest.fixture
def road(write_run: WriteRun) -> Path:
    folder = write_run(sample_road(), "road")
    (folder / "pictures.json").write_text(json.dumps(sample_pictures()))
    return folder


def test_the_advice_comes_first(road: Path) -> None:
    html = page(road, out=road)
    assert "<p>Serve with the colour path of training: bgr costs 23.4 points" in html
    text = visible(html)
    order = ("bgr costs", "top-1 accuracy as trained", "What every option costs", "stacked")
    places = [text.index(part) for part in (*order, "do to an image", "Answers that change")]
    assert places == sorted(places)
    tiles = re.findall(r'class="tile"><b>(.*?)</b>', html)
    assert tiles == ["73.3", "299", "15", "9", "7"]


def test_every_option_stands_in_one_cell_and_one_row(road: Path) -> None:
    html = page(road, out=road)
    cells = re.findall(r'<div class="cell ([^"]*)" title="([^"]*)">(.*?)</div>', html, re.S)
    names = [name for _, _, inside in cells for name in re.findall("<span>(.*?)</span>", inside)]
    assert sorted(names) == sorted(row["option"] for row in ROWS)
    by_first = {
        re.findall("<span>(.*?)</span>", inside)[0]: (kind, tip) for kind, tip, inside in cells
    }
    assert by_first["opencv-linear"][0] == "lost-4 joined broad"
    assert "2.6 points lost (2.1 to 3.1)" in by_first["opencv-linear"][1]
    assert "4.0 % of the answers change" in by_first["opencv-linear"][1]
    assert by_first["mnn"] == ("missing", "mnn\ncannot run here: pip install it")
    assert by_first["opencv"][0] == "same joined"
    assert by_first["openvino-default"][0] == "calm"
    assert by_first["pillow-bicubic"][0] == "won-2"
    table = re.search(r'class="sortable options">.*?</table>', html, re.S)
    assert table is not None
    assert table[0].count("<tr") == 1 + len(ROWS)


def test_the_ladder_adds_up(road: Path) -> None:
    text = visible(page(road, out=road))
    for shown in ("+0.8", "+10.1", "+17.1", "alone it costs 9.3", "28.1 (27.4 to 28.7)"):
        assert shown in text
    assert "resize pillow-nearest + colour 9" in text
    assert "resize pillow-nearest + colour 10" not in text


def test_pictures_and_flips_are_shown(road: Path) -> None:
    html = page(road, out=road)
    assert html.count("<img") == 2 + 4 + 2
    text = visible(html)
    assert "jpeglib-7 and 1 alike ×32, 1.50 levels" in text
    assert "of another shape: as served" in text
    assert "drilling platform → container ship was right, now wrong resize pillow-nearest" in text
    assert "class 52 → class 60 now right colour bgr 3 options change it" in text
    assert "class 12 → class 13 decode ffmpeg 1 option changes it" in text


def test_only_data_pictures_enter(road: Path) -> None:
    pictures = sample_pictures()
    for row in (*pictures["shots"], *pictures["differences"]):
        row["picture"] = "https://example.org/a.png"
    pictures["thumbnails"] = {"7": "https://example.org/b.png"}
    (road / "pictures.json").write_text(json.dumps(pictures))
    assert "<img" not in page(road, out=road)
    assert "example.org" not in page(road, out=road)


def test_the_fingerprint_says_what_really_ran(road: Path) -> None:
    html = page(road, out=road)
    row = re.search(r'<td class="text">openvino-default</td>.*?</tr>', html, re.S)
    assert row is not None
    assert visible(row[0]).split() == ["openvino-default", "openvino", "2026.4.1", "bf16"]
    for shown in ("AVX512", "avx2, avx512_vnni", "libjpeg-turbo 3.2.0", "1.9.0"):
        assert shown in visible(html)


def test_the_command_can_be_typed_again(road: Path) -> None:
    assert (
        "roadworthy noise torchvision:mobilenet_v2@weights.pth --data imagefolder:photos "
        "--limit 300 --stages decode,resize,colour,runtime --combine exhaustive --seed 3 "
        "--out out/road --skip-bad"
    ) in visible(page(road, out=road))


def test_shares_sum_to_the_total_and_the_best_change_is_named(write_run: WriteRun) -> None:
    folder = write_run(sample_blame(), "blame")
    html = page(folder, out=folder)
    text = visible(html)
    assert (
        "Make normalise as in training (mean [0.498], std [0.502] instead of mean [0.485], std "
        "[0.229]): this one change buys back most, 10.7 of the 11.3 points lost."
    ) in text
    assert "pillow-bicubic → opencv-cubic" in text
    bars = re.findall(r'class="full" style="left:([\d.]+)%;width:([\d.]+)%', html)
    ends = [(float(left), float(left) + float(width)) for left, width in bars]
    (first, second, third, total) = ends
    assert second[0] == pytest.approx(first[1], abs=0.02)
    assert third[1] == pytest.approx(second[1], abs=0.02)  # a gain leads back
    assert third[0] == pytest.approx(total[1], abs=0.02)


def test_a_resizer_of_one_side_is_shown_as_geometry(write_run: WriteRun) -> None:
    run = sample_blame()
    run |= {"shares": {"geometry": 11.33}, "intervals": {"geometry": [8.0, 14.0]}}
    run |= {"bought_back": {"geometry": loss(11.33, 14.0)}, "best_change": "geometry"}
    run |= {"train": {"decode": "pillow"}}
    run["deploy"] |= {"geometry": "short-side", "size": [8, 8]}
    folder = write_run(run, "blame")
    text = visible(page(folder, out=folder))
    assert "left out instead of short-side, size [8, 8], resize opencv-cubic" in text
    assert "of the 11.3 points lost, which these images do not tell from none." in text


def test_each_kind_of_run_has_its_own_table(write_run: WriteRun, tmp_path: Path) -> None:
    worse = sample_road(0.7)
    worse["config"]["model"] = "timm:other"
    makes = {"four": sample_run(), "road": sample_road(), "worse": worse, "blame": sample_blame()}
    folders = [write_run(run, name) for name, run in makes.items()]
    html = page(*folders, out=tmp_path / "x.html")
    boards = re.findall(r'<table class="sortable compared">.*?</table>', html, re.S)
    assert [board.count("<tr") - 1 for board in boards] == [1, 2, 1]
    head = re.findall(r'<button type="button">(.*?)</button>', boards[1])
    assert head == ["Model", "As trained", "Decode", "Resize", "Colour", "Runtime", "Combined"]
    first = visible(boards[1].split("<tr>")[2])
    assert first.split()[:2] == ["torchvision:mobilenet_v2", "road"]
    assert "73.3 0.54 0.77 3.51 9.31 12.46 23.40 −0.38 0.05 28.05" in first
    assert all(f'id="run-{number}"' in html for number in (1, 2, 3, 4))


@pytest.mark.parametrize("field", ROWS[2])
def test_any_field_of_a_row_may_be_missing(field: str, write_run: WriteRun) -> None:
    rows = [{k: v for k, v in row.items() if k != field} for row in ROWS]
    folder = write_run({**sample_road(), "rows": rows})
    assert "</html>" in page(folder, out=folder)


@pytest.mark.parametrize("junk", ["{}", "[]", '{"shots": 3, "differences": [{}], "names": []}'])
def test_pictures_may_be_junk(junk: str, road: Path) -> None:
    (road / "pictures.json").write_text(junk)
    assert "Answers that change" in page(road, out=road)


def test_hostile_names_are_text(write_run: WriteRun) -> None:
    hostile = "<script>alert(1)</script>\" onload='x'"
    runs = (sample_road(), sample_blame())
    runs[0]["rows"][0]["option"] = runs[0]["rows"][5]["missing"] = hostile
    runs[0]["advice"] = runs[0]["ladder"][0]["option"] = hostile
    runs[0]["fingerprint"]["runtimes"] = {hostile: {hostile: hostile}}
    runs[1]["shares"][hostile] = 1.0
    for number, run in enumerate(runs):
        folder = write_run(copy.deepcopy(run), f"hostile{number}")
        html = page(folder, out=folder)
        assert "<script>alert" not in html
        assert "&lt;script&gt;" in html


def test_an_error_metric_is_not_a_percentage(write_run: WriteRun) -> None:
    run: Run = {**sample_road(), "metric": "rmse", "value": 0.312}
    folder = write_run(run)
    assert "<b>0.312 m</b><span>RMSE as trained" in page(folder, out=folder)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), points), max_size=20))
def test_cells_hold_all_rows_and_heads_are_counted_once(
    drawn: Sequence[tuple[str, str, float]],
) -> None:
    rows = [
        Row("resize", f"{name}{number}", head, Loss(value), measurable=True)
        for number, (name, head, value) in enumerate(drawn)
    ]
    members = [name for group in groups(rows, "resize") for name in group.members]
    assert sorted(members) == sorted(row.option for row in rows)
    heads = different(rows)
    assert len(heads) == len({row.member_of for row in rows})
    found = mean_and_worst(rows, "resize")
    if found is not None:
        values = [row.loss.value for row in heads if row.loss]
        assert found == (pytest.approx(sum(values) / len(values)), max(values))
    shown = [cell for strip in heat(rows) for cell in strip.cells]
    assert sum(len(cell.members) for cell in shown) == len(rows)


@given(points, points)
def test_a_worse_loss_is_never_paler(a: float, b: float) -> None:
    order = [kind for kind, _ in legend() if kind.startswith(("won", "lost"))]
    steps = [
        order.index(colour(Row("resize", "x", "x", Loss(value), measurable=True)))
        for value in sorted((a, b))
    ]
    assert steps[0] <= steps[1]
    assert len(order) == 2 + len(EDGES) + 1


@given(st.lists(st.tuples(points, points, st.floats(0, 20)), min_size=1, max_size=8))
def test_bars_lie_inside_in_proportion(drawn: Sequence[tuple[float, float, float]]) -> None:
    steps = [Step("s", "1", a, b, (b - half, b + half), a) for a, b, half in drawn]
    chart = cascade(steps)
    assert chart is not None
    for line in chart.lines:
        for bar in (line.bar, line.whisker, line.alone):
            assert bar is not None
            assert -0.01 <= bar.left <= bar.left + bar.width <= 100.01
    lengths = [
        (abs(s.end - s.start), line.bar.width) for s, line in zip(steps, chart.lines, strict=True)
    ]
    longest = max(lengths)
    for length, width in lengths:
        assert width * longest[0] == pytest.approx(
            length * longest[1], abs=0.03 * longest[0] + 1e-6
        )


def test_measurable_is_read_off_the_interval_where_it_is_not_said() -> None:
    rows = [
        {"stage": "resize", "option": "a", "delta": 1.0, "ci_low": 0.2, "ci_high": 1.8},
        {"stage": "resize", "option": "b", "delta": 1.0, "ci_low": -0.2, "ci_high": 1.8},
        {"stage": "resize", "option": "c", "delta": 1.0},
    ]
    assert [row.kind for row in read_rows(Tree({"rows": rows}))] == ["felt", "calm", "calm"]
