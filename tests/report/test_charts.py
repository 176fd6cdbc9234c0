"""Laws of the geometry: everything lies inside the plot, order is kept, areas tell the truth."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from roadworthy.report.charts import Scale, decades, dumbbells, mirror, nice_ticks, stems, whiskers

numbers = st.floats(-1e6, 1e6)
losses = st.floats(0.0, 1e6)
counts = st.lists(st.integers(0, 10**6).map(float), min_size=3, max_size=40)


@given(numbers, numbers, st.integers(2, 8))
def test_ticks_cover_the_range_in_equal_steps(a: float, b: float, wanted: int) -> None:
    low, high = min(a, b), max(a, b)
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1e-3))
    ticks = nice_ticks(low, high, wanted)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 2 * wanted + 2
    steps = [right - left for left, right in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_decades_cover_the_range(a: float, b: float) -> None:
    powers = decades(min(a, b), max(a, b))
    assert powers[0] <= min(a, b) * 1.000001
    assert powers[-1] >= max(a, b) * 0.999999
    assert 2 <= len(powers) <= 8


@given(numbers, st.floats(0.001, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_a_scale_keeps_order_and_bounds(low: float, span: float, s: float, t: float) -> None:
    across = Scale(low, low + span, 0.0, 100.0)
    first, second = across(low + span * min(s, t)), across(low + span * max(s, t))
    assert 0 <= first <= second <= 100


@given(st.lists(numbers, min_size=1, max_size=60))
def test_stems_stay_inside_and_rank_as_their_values(values: list[float]) -> None:
    assume(max(values) - min(0.0, *values) > 1e-3)
    chart = stems(values, ["tip"] * len(values), [""] * len(values), " dB")
    assert all(0 <= mark.x <= 100 and 0 <= mark.top <= chart.height for mark in chart.marks)
    tops = [mark.top for _, mark in sorted(zip(values, chart.marks, strict=True), key=_first)]
    assert tops == sorted(tops, reverse=True)


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=60))
def test_dumbbells_point_down_where_the_loss_fell(pairs: list[tuple[float, float]]) -> None:
    chart = dumbbells(pairs, ["tip"] * len(pairs))
    for (first, last), mark in zip(pairs, chart.marks, strict=True):
        assert 0 <= mark.top <= chart.height
        assert 0 <= mark.bottom <= chart.height
        assert mark.bottom >= mark.top if last <= first else mark.bottom <= mark.top
        assert (mark.kind == "up") == (last > first)


@given(counts)
def test_mirrored_histograms_show_the_same_counts_alike(heights: list[float]) -> None:
    edges = [float(i) for i in range(len(heights) + 1)]
    chart = mirror(edges, heights, heights)
    up = [mark for mark in chart.marks if mark.kind == "up"]
    down = [mark for mark in chart.marks if mark.kind == "down"]
    assert [mark.x for mark in up] == [mark.x for mark in down]
    for above, below in zip(up, down, strict=True):
        assert above.bottom == below.top
        assert above.bottom - above.top == pytest.approx(below.bottom - below.top, abs=0.02)
    assert all(0 <= m.x <= 100 and m.x + m.width <= 100.1 for m in chart.marks)


def test_a_taller_bin_is_taller_in_proportion() -> None:
    chart = mirror([0.0, 1.0, 2.0, 3.0], [100.0, 50.0, 25.0], [1.0, 0.0, 1.0])
    heights = [mark.bottom - mark.top for mark in chart.marks if mark.kind == "up"]
    assert heights == pytest.approx([70.0, 35.0, 17.5])
    assert len([mark for mark in chart.marks if mark.kind == "down"]) == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 9)), min_size=1, max_size=9))
def test_a_whisker_holds_its_dot(rows: list[tuple[float, float]]) -> None:
    chart = whiskers([("row", value, value - half, value + half) for value, half in rows])
    for mark in chart.marks:
        assert 0 <= mark.top <= mark.x <= mark.bottom <= 100


def test_metres_fill_their_axis_as_points_do() -> None:
    rows = [("float", 33.1, 31.2, 35.0), ("deployed", 34.3, 32.4, 36.2)]
    metres = [(name, value / 100, low / 100, high / 100) for name, value, low, high in rows]
    points, small = whiskers(rows), whiskers(metres)
    ends = [[at for m in chart.marks for at in (m.top, m.x, m.bottom)] for chart in (points, small)]
    assert ends[1] == pytest.approx(ends[0])
    assert small.marks[0].tip == "0.3310 (0.3120–0.3500)"


def _first(pair: tuple[float, object]) -> float:
    return pair[0]
