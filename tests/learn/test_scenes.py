"""The renderer: what rays meet is where geometry says, and annotations say what can be seen."""

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from roadworthy.learn.raycast import Camera, Solid, cast
from roadworthy.learn.scenes import CLASSES, FARTHEST, FEWEST, OBJECTS, render, scenes

AHEAD = Camera(x=0, y=2, yaw=0, pitch=0, focal=1)


def box(z: float, thing: int = 7, half: float = 1.0) -> Solid:
    return Solid("box", (0, 2, z), (half, half, half), (1, 0, 0), thing)


def test_the_front_of_a_box_is_as_large_and_as_far_as_a_pinhole_sees_it():
    view = cast([box(11)], AHEAD, 100, 100, ground=1, sky=0)
    rows, columns = np.nonzero(view.thing == 7)
    assert np.allclose(view.depth[view.thing == 7], 10)
    for places in (rows, columns):  # 2 m at 10 m, a picture as wide as it is far: a fifth
        assert places.min() == 40
        assert places.max() == 59


@pytest.mark.parametrize("shape", ["box", "ellipsoid"])
def test_every_ray_that_meets_a_solid_ends_on_its_surface(shape: Literal["box", "ellipsoid"]):
    turned = Camera(x=0.5, y=1.5, yaw=0.2, pitch=-0.1, focal=0.9)
    centre, half = np.array([0.3, 1.0, 8.0]), np.array([1.0, 0.8, 2.0])
    solid = Solid(shape, (0.3, 1.0, 8.0), (1.0, 0.8, 2.0), (0, 1, 0), 7)
    view = cast([solid], turned, 80, 80, ground=1, sky=0)
    met = (view.point[view.thing == 7] - centre) / half
    size = np.abs(met).max(1) if shape == "box" else np.linalg.norm(met, axis=1)
    assert len(met) > 100
    assert np.allclose(size, 1, atol=1e-3)
    outward = (view.normal[view.thing == 7] * met).sum(1)
    assert (outward > 0).all()
    towards = (view.point - [turned.x, turned.y, 0])[view.thing == 7]
    assert ((view.normal[view.thing == 7] * towards).sum(1) < 0).all()


def test_the_plane_lies_at_height_zero_and_ends_at_the_horizon():
    view = cast([], AHEAD, 60, 60, ground=1, sky=0)
    assert (view.thing[:30] == 0).all()
    assert (view.thing[30:] == 1).all()
    assert np.allclose(view.point[30:, :, 1], 0, atol=1e-4)
    assert np.isinf(view.depth[:30]).all()


def test_what_is_nearer_hides_what_is_behind_in_any_order():
    near, far = box(5, 7, 0.5), box(20, 8, 0.5)
    views = [cast(each, AHEAD, 60, 60, 1, 0) for each in ([near, far], [far, near])]
    assert all((view.thing == views[0].thing).all() for view in views)
    assert not (views[0].thing == 8).any()


def test_a_solid_behind_the_camera_is_not_seen():
    assert not (cast([box(-11)], AHEAD, 40, 40, 1, 0).thing == 7).any()


@pytest.mark.parametrize("number", range(12))
def test_annotations_agree_with_one_another(number: int):
    sample = render(number, 48)
    assert sample.mask is not None
    assert sample.boxes is not None
    assert sample.depth is not None
    assert Image.open(io.BytesIO(sample.image)).size == (48, 48)
    known = ~np.isnan(sample.depth)
    assert not known[sample.mask == CLASSES.index("sky")].any()
    assert 0 < sample.depth[known].max() <= FARTHEST
    assert known.mean() > 0.3
    for (x1, y1, x2, y2), name in zip(sample.boxes.astype(int), sample.box_labels, strict=True):
        inside = sample.mask[y1:y2, x1:x2] == CLASSES.index(name)
        assert inside.sum() >= FEWEST
        assert inside.any(0)[[0, -1]].all()  # the box is tight
        assert inside.any(1)[[0, -1]].all()
    named = {name for name in OBJECTS if (sample.mask == CLASSES.index(name)).sum() >= 30}
    assert named <= {*sample.box_labels}
    for name in {*sample.box_labels}:
        assert name.replace("person", "pe") in sample.captions[0].replace("buses", "bus")


def test_a_number_gives_the_same_scene_and_another_one_another():
    first, again, other = render(3, 32), render(3, 32), render(4, 32)
    assert first.sha256 == again.sha256
    assert first.captions == again.captions
    assert first.sha256 != other.sha256


def test_every_object_is_a_protagonist_somewhere_and_usually_seen():
    found = list(scenes(range(60), 32))
    assert {sample.labels[0] for sample in found} == {*OBJECTS}
    seen = [sample.labels[0] in sample.box_labels for sample in found]
    assert sum(seen) >= 0.85 * len(seen)
