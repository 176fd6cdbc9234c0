from dataclasses import replace

import numpy as np
import pytest
from test_sweep import BASE, SMALL, bench, photos  # noqa: F401

from roadworthy.errors import BadInput
from roadworthy.noise import study
from roadworthy.noise.options import Option, options
from roadworthy.noise.systems import System

OPTIONS = [
    Option("decode", "opencv", System(replace(SMALL, decode="opencv"))),
    Option("resize", "opencv-nearest", System(replace(SMALL, resize="opencv-nearest"))),
    Option("resize", "pillow-nearest", System(replace(SMALL, resize="pillow-nearest"))),
    Option("resize", "opencv-nearest-exact", System(replace(SMALL, resize="opencv-nearest-exact"))),
    Option("colour", "bgr", System(replace(SMALL, colour="bgr"))),
    Option("decode", "none", BASE, missing="pip install none"),
]


@pytest.mark.usefixtures("photos")
def test_options_that_make_the_same_images_are_one(photos) -> None:  # noqa: F811
    rows = {row.option: row for row in study.classes(bench(photos), BASE, OPTIONS, 0.0)}
    assert rows["opencv"].member_of == study.AS_BASE
    assert rows["opencv"].distance == 0
    assert rows["opencv-nearest-exact"].member_of == "pillow-nearest"
    assert rows["opencv-nearest"].member_of == "opencv-nearest"
    assert rows["none"].missing == "pip install none"
    standing = [o.name for o in study.heads(list(rows.values()), OPTIONS)]
    assert standing == ["opencv-nearest", "pillow-nearest", "bgr"]
    wide = study.classes(bench(photos), BASE, OPTIONS, 254.0)
    assert {row.member_of for row in wide if not row.missing} == {study.AS_BASE}


def test_numbers_of_a_class_are_those_of_its_head(photos) -> None:  # noqa: F811
    track = bench(photos)
    rows = study.classes(track, BASE, OPTIONS, 0.0)
    chosen = study.heads(rows, OPTIONS)
    measured = study.measure(track, BASE, [o.system for o in chosen], 0, "alone")
    done = {row.option: row for row in study.filled(rows, OPTIONS, measured)}
    assert done["opencv"].loss.value == 0
    assert done["opencv"].p == 1
    assert done["opencv-nearest-exact"].loss == done["pillow-nearest"].loss
    assert done["none"].loss is None


def measured(photos, chosen) -> study.Measured:  # noqa: F811
    return study.measure(bench(photos), BASE, [option.system for option in chosen], 0, "alone")


def test_the_ladder_stacks_and_ends_in_all_of_them(photos) -> None:  # noqa: F811
    chosen = [OPTIONS[1], OPTIONS[4]]
    rungs = study.stacked(measured(photos, chosen), chosen, 0)
    assert [rung.option for rung in rungs] == ["opencv-nearest", "bgr"]
    assert rungs[0].added == rungs[0].alone == rungs[0].loss.value
    assert sum(rung.added for rung in rungs) == pytest.approx(rungs[-1].loss.value)


def test_exhaustive_search_finds_at_least_what_the_ladder_finds(photos) -> None:  # noqa: F811
    chosen = [OPTIONS[1], OPTIONS[2], OPTIONS[4]]
    rows = study.exhaustive(bench(photos), BASE, chosen, 0)
    assert len(rows) == 3 * 2
    assert rows[0]["value"] == max(row["value"] for row in rows)
    both = [OPTIONS[1], OPTIONS[4]]
    rungs = study.stacked(measured(photos, both), both, 0)
    assert rows[0]["value"] >= rungs[-1].loss.value


def test_too_many_combinations_say_so(photos) -> None:  # noqa: F811
    many = [
        replace(OPTIONS[1], stage=s, name=str(i)) for s in ("decode", "resize") for i in range(50)
    ]
    with pytest.raises(BadInput, match="2601 combinations"):
        study.exhaustive(bench(photos), BASE, many, 0)


def test_shares_sum_to_the_loss_and_blame_the_cause(photos) -> None:  # noqa: F811
    deploy = System(replace(SMALL, decode="opencv", colour="bgr"))
    found = study.attribute(bench(photos), BASE, deploy, 0)
    assert list(found.shares) == ["decode", "colour"]
    assert found.shares["decode"].value == 0
    total = sum(share.value for share in found.shares.values())
    assert total == pytest.approx(found.total.value)
    with pytest.raises(BadInput, match="the same in every stage"):
        study.attribute(bench(photos), BASE, BASE, 0)


def test_every_stage_offers_something_but_what_the_system_has() -> None:
    offered = options(BASE, ("decode", "resize", "geometry", "colour", "normalise"))
    assert {option.stage for option in offered} == {
        "decode",
        "resize",
        "geometry",
        "colour",
        "normalise",
    }
    present = [option for option in offered if option.missing is None]
    assert all(option.system != BASE for option in present)
    assert len({option.system for option in present}) == len(present)
    with pytest.raises(BadInput, match="stages resize given, in which this model has nothing to"):
        options(System(replace(SMALL, resize=None, geometry=None, size=None)), ("resize",))


def test_distances_are_symmetric_and_zero_on_the_diagonal() -> None:
    from roadworthy.noise.classes import difference

    a = np.zeros((2, 2, 3), np.uint8)
    assert difference(a, a.copy()) == 0
    assert difference(a, a[:1]) == float("inf")
