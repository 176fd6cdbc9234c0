"""Instance segmentation through the whole road test, on a model that outlines what is bright."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.errors import BadData, BadModel
from roadworthy.evaluate import evaluate
from roadworthy.requests import EvaluateRequest
from roadworthy.roadtest import check

MODEL = """
import torch
from torch import nn

PREPROCESS = {"resize": "pillow-box", "geometry": "squash", "size": 64}

class Bright(nn.Module):
    '''One mask of what is bright, class 1, in pixels of the input.'''

    def forward(self, images):
        return [self.found(image[1].clamp(0, 1)) for image in images]

    def found(self, image):
        y, x = torch.nonzero(image > 0.5, as_tuple=True)
        if not len(x):
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0),
                    "labels": torch.zeros(0), "masks": torch.zeros(0, 1, *image.shape)}
        box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        return {"boxes": box[None], "scores": torch.tensor([0.9]), "labels": torch.ones(1),
                "masks": image[None, None]}

class Boxes(Bright):
    def forward(self, images):
        return [{k: v for k, v in each.items() if k != "masks"} for each in super().forward(images)]

def build():
    return Bright()

def boxes():
    return Boxes()
"""


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """Ten dark photos with one bright diamond each, of different sizes."""
    (tmp_path / "model.py").write_text(MODEL)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    for i in range(10):
        height, width = random.integers(100, 200, 2)
        cy, cx = random.uniform(0.4, 0.6, 2) * (height, width)
        ry, rx = random.uniform(18, 30, 2)
        y, x = np.mgrid[:height, :width] + 0.5
        inside = np.abs(y - cy) / ry + np.abs(x - cx) / rx < 1
        pixels = random.integers(0, 40, (height, width, 3), dtype=np.uint8)
        pixels[inside] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        corners = [(cx, cy - ry), (cx + rx, cy), (cx, cy + ry), (cx - rx, cy)]
        shares = " ".join(f"{a / width:.6f} {b / height:.6f}" for a, b in corners)
        (tmp_path / "labels" / f"{i}.txt").write_text(f"1 {shares}\n")
    return tmp_path


def test_a_model_is_evaluated(bright: Path) -> None:
    model = f"py:{bright / 'model.py'}:build"
    found = evaluate(EvaluateRequest(model, f"instances:{bright}", batch_size=4))
    assert (found.metric, found.value, found.n) == ("mask_map50", pytest.approx(1), 10)


def test_the_sweep_measures_what_masks_lose(bright: Path) -> None:
    stages = ("geometry", "normalise", "post")
    model, out = f"py:{bright / 'model.py'}:build", bright / "road"
    record = check(model, f"instances:{bright}", out, stages=stages)
    rows = {row["option"]: row for row in record.numbers["rows"]}
    assert record.numbers["metric"] == "mask_map50"
    assert record.numbers["judged_by"] == "labels"
    assert record.numbers["value"] == pytest.approx(1)
    assert rows["letterbox"]["delta"] == pytest.approx(0)
    assert "different sizes" in rows["short-side"]["missing"]
    # A network fed with 255 for 1 sees everything bright.
    assert rows["0-to-255"]["delta"] == pytest.approx(100)
    assert rows["0-to-255"]["flip_rate"] == pytest.approx(1)
    assert {"box-offset-1", "mask-0.3", "mask-before-resize"} <= set(rows)
    assert rows["whole-pixels"]["delta"] == pytest.approx(0)
    assert (out / "report.html").stat().st_size > 10_000
    assert json.loads((out / "noise.json").read_text())


def test_without_outlines_the_training_system_judges(bright: Path) -> None:
    for path in (bright / "labels").iterdir():
        path.unlink()
    (bright / "labels").rmdir()
    model = f"py:{bright / 'model.py'}:build"
    record = check(model, f"instances:{bright}", bright / "road", stages=("post",))
    assert record.numbers["judged_by"] == "agreement with the training system"
    assert record.numbers["value"] == pytest.approx(1)
    rows = {row["option"]: row for row in record.numbers["rows"]}
    assert rows["clipped"]["flip_rate"] == 0


def test_boxes_alone_are_no_answer(bright: Path) -> None:
    model = f"py:{bright / 'model.py'}:boxes"
    with pytest.raises(BadModel, match=r"answers boxes \[1, 4\].* where instances are needed"):
        check(model, f"instances:{bright}", bright / "road", stages=("post",))


def test_a_wrong_outline_is_named(bright: Path) -> None:
    (bright / "labels" / "3.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    with pytest.raises(BadData, match=r"3\.txt, line 1: '1 0\.5 0\.5 0\.1 0\.1' given; class x1"):
        check(f"py:{bright / 'model.py'}:build", f"instances:{bright}", bright / "road")


@pytest.mark.data
def test_the_shared_set_is_evaluated(data: Path, bright: Path) -> None:
    model = f"py:{bright / 'model.py'}:build"
    spec = f"instances:{data / 'coco_val128'}?ids=file"
    found = evaluate(EvaluateRequest(model, spec, limit=12))
    assert found.metric == "mask_map50"
    assert 0 <= found.value < 0.5
    assert 6 <= found.n <= 12
