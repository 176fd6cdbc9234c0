"""Masks are known by the names of their classes, whatever ids a source gives them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.core.dense_data import VOID
from roadworthy.core.sources import png
from roadworthy.errors import BadData
from roadworthy.learn.gvb.own import own
from roadworthy.learn.gvb.shown import show
from roadworthy.learn.holding import classes_of, hold
from roadworthy.learn.sample import Sample
from roadworthy.learn.shards import write_shards

NAMES = ("road", "sky", "car")


def masked(names: tuple[str, ...], *shown: str) -> Sample:
    """An image of columns that show classes, the last of which nobody says."""
    ids = [names.index(each) for each in shown]
    mask = np.full((32, 32), VOID, np.uint8)
    for number, each in enumerate(ids):
        mask[:, 8 * number : 8 * number + 8] = each
    image = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    return Sample(png(image), ".".join(names), "set", mask=mask, mask_labels=names)


def test_ids_of_another_order_mean_the_same() -> None:
    samples = [masked(order, "sky", "road") for order in (NAMES, NAMES[::-1], ("sky", "road"))]
    masks = hold(samples, "segmentation", 32, NAMES).content.masks
    assert masks is not None
    assert masks[0, 0].unique().tolist() == [0, 1, VOID]
    assert (masks == masks[0]).all()


def test_classes_are_those_of_all_samples() -> None:
    samples = [masked(("road", "sky"), "sky"), masked(("car", "sky"), "car")]
    assert classes_of(samples, "segmentation") == ("road", "sky", "car")
    held = hold(samples, "segmentation", 32)
    assert held.classes == ("road", "sky", "car")
    assert held.content.masks is not None
    assert [each.unique().tolist() for each in held.content.masks] == [[1, VOID], [2, VOID]]


def test_ids_without_names_are_numbers_of_the_classes() -> None:
    nameless = replace(masked(NAMES, "car"), mask_labels=())
    masks = hold([nameless], "segmentation", 32, NAMES).content.masks
    assert masks is not None
    assert masks.unique().tolist() == [2, VOID]


def test_an_unknown_class_is_told_where_a_pixel_shows_it() -> None:
    other = ("bird", "road")
    assert len(hold([masked(other, "road")], "segmentation", 32, NAMES)) == 1
    with pytest.raises(BadData, match=r"image bird\.road is of class 'bird'; road, sky, car are"):
        hold([masked(other, "bird")], "segmentation", 32, NAMES)
    beyond = replace(masked(NAMES, "car"), mask_labels=("road", "sky"))
    with pytest.raises(BadData, match="has ids beyond its 2 classes"):
        hold([beyond], "segmentation", 32, NAMES)


def test_ones_own_test_masks_are_judged_by_names(tmp_path: Path) -> None:
    train, test, strange = (str(tmp_path / each) for each in ("train", "test", "strange"))
    write_shards([masked(NAMES, "sky", "road"), masked(NAMES, "car")], train)
    write_shards([masked(NAMES[::-1], "sky", "car")], test)
    write_shards([masked(("bird", "sky"), "sky"), masked(("bird", "sky"), "bird")], strange)
    known = own("segmentation", f"shards:{train}", f"shards:{test}")
    part = known.open(Path(), "test")
    show(part, 32)
    right = masked(NAMES, "sky", "car").mask
    assert right is not None
    answer = np.where(right == VOID, 0, right)
    assert known.metric([answer], part).value == 1
    judged = own("segmentation", f"shards:{train}", f"shards:{strange}").open(Path(), "test")
    with pytest.raises(BadData, match="is of class 'bird'"):
        show(judged, 32)
