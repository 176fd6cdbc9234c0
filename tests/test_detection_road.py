"""Detectors through the whole road test: FastestDet, and torch modules of each kind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from roadworthy.core.boxes import OWN
from roadworthy.core.data import load_data
from roadworthy.core.detection import Detection
from roadworthy.core.images import Preprocess
from roadworthy.deployments import Deployments
from roadworthy.errors import BadData, BadModel
from roadworthy.evaluate import evaluate
from roadworthy.noise.sweep import Bench, sweep
from roadworthy.noise.systems import System
from roadworthy.requests import EvaluateRequest
from roadworthy.roadtest import check

SQUARE = "resize: pillow-box\ngeometry: squash\nsize: 64\n"
MODELS = """
import torch
from torch import nn

class Bright(nn.Module):
    '''Boxes what is bright, class 1, in pixels of the input.'''

    def found(self, image):
        y, x = torch.nonzero(image[0] > 0.5, as_tuple=True)
        if not len(x):
            return torch.zeros(0, 4)
        return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()[None]

class Listing(Bright):
    def forward(self, images):
        boxes = [self.found(image) for image in images]
        return [
            {"boxes": b, "scores": torch.full((len(b),), 0.9), "labels": torch.ones(len(b)).long()}
            for b in boxes
        ]

class Table(Bright):
    def forward(self, images):
        rest = torch.tensor([[0.9, 1.0]])
        return torch.stack([torch.cat([self.found(image), rest], 1) for image in images])

class Logits(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))

def listing():
    return Listing()

def table():
    return Table()

def logits():
    return Logits()
"""


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """Twelve dark photos with one bright box each, of different sizes."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "square.yaml").write_text(SQUARE)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        height, width = random.integers(100, 200, 2)
        x1, y1 = random.integers(10, 40, 2)
        x2, y2 = x1 + random.integers(20, 50), y1 + random.integers(20, 50)
        pixels = random.integers(0, 40, (height, width, 3), dtype=np.uint8)
        pixels[y1:y2, x1:x2] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        shares = (
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        )
        (tmp_path / "labels" / f"{i}.txt").write_text(f"1 {' '.join(map(str, shares))}\n")
    return tmp_path


def request(root: Path, model: str, **changes) -> EvaluateRequest:
    spec = f"py:{root / 'models.py'}:{model}"
    return EvaluateRequest(spec, f"yolo:{root}", str(root / "square.yaml"), **changes)


@pytest.mark.parametrize("model", ["listing", "table"])
def test_torch_detectors_are_evaluated(bright: Path, model: str) -> None:
    found = evaluate(request(bright, model, out=bright / "out", batch_size=5))
    assert (found.metric, found.value, found.n) == ("map50", pytest.approx(1), 12)
    assert json.loads((bright / "out" / "run.json").read_text())["command"] == "evaluate"


def test_the_sweep_measures_what_a_box_loses(bright: Path) -> None:
    stages = ("geometry", "model", "post")
    model = f"py:{bright / 'models.py'}:listing"
    spec = str(bright / "square.yaml")
    record = check(model, f"yolo:{bright}", bright / "road", stages=stages, preprocess=spec)
    rows = {row["option"]: row for row in record.numbers["rows"]}
    assert record.numbers["metric"] == "map50"
    assert record.numbers["value"] == pytest.approx(1)
    assert rows["letterbox"]["delta"] == pytest.approx(0)
    assert rows["letterbox"]["flip_rate"] == pytest.approx(0)
    assert "different sizes" in rows["short-side"]["missing"]
    assert rows["box-offset-1"]["delta"] == pytest.approx(0)
    assert not any(row["stage"] == "model" for row in rows.values())
    assert (bright / "road" / "noise.json").is_file()


def test_without_labels_the_training_system_judges(bright: Path) -> None:
    for path in (bright / "labels").iterdir():
        path.unlink()
    (bright / "labels").rmdir()
    model, spec = f"py:{bright / 'models.py'}:table", str(bright / "square.yaml")
    record = check(model, f"yolo:{bright}", bright / "road", stages=("post",), preprocess=spec)
    assert record.numbers["judged_by"] == "agreement with the training system"
    assert record.numbers["value"] == pytest.approx(1)
    with pytest.raises(BadData, match="no labels"):
        evaluate(request(bright, "table"))


def test_a_classifier_is_no_detector(bright: Path) -> None:
    with pytest.raises(BadModel, match=r"answers \[1, 3\] where a detector is needed"):
        evaluate(request(bright, "logits"))


def test_finished_parts_of_a_detectors_sweep_are_kept(bright: Path) -> None:
    class Fixed:
        name = "fixed"

        def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
            one = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.ones(1)}
            return [one] * len(images)

    base = System(Preprocess(resize="pillow-box", geometry="squash", size=(64, 64)))
    dataset = load_data(f"yolo:{bright}")
    bench = Bench(dataset, Detection("torchvision"), lambda _: Fixed(), bright / "kept")
    first = sweep(bench, base, [], "sweep")
    again = sweep(bench, base, [], "sweep")
    assert np.array_equal(first.evidence[base], again.evidence[base])


class Grid(nn.Module):
    """A small network with FastestDet's head."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 16, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).sigmoid()


def test_a_network_of_one_tensor_is_captured_and_cast() -> None:
    torch.manual_seed(0)
    stages = Preprocess(resize="pillow-box", geometry="squash", size=(64, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roadworthy.core.models.LoadedModel.chosen", lambda *_: stages)
        fleet = Deployments(Grid().eval(), None, "cpu", raw=True)
    images = torch.rand(2, 3, 64, 64)
    fleet.show(images)
    assert fleet.models() == []
    own = fleet(System(stages))(images)
    half = fleet(System(stages, runtime="torch-bf16"))(images)
    assert own.shape == half.shape == (2, 8, 4, 4)
    assert half.dtype == torch.float32
    assert 0 < float((own - half).abs().max()) < 0.05
    assert System(stages).post == OWN


@pytest.mark.data
def test_a_detector_of_a_file_is_evaluated(data: Path, tmp_path: Path) -> None:
    """FastestDet in a process of its own, as a user runs it."""
    stages = "resize: opencv-linear\ngeometry: squash\nsize: 352\ncolour: bgr\n"
    (tmp_path / "fastestdet.yaml").write_text(stages)
    arguments = ["evaluate", f"onnx:{data / 'fastestdet' / 'fastestdet.onnx'}", "--json"]
    arguments += ["--data", f"yolo:{data / 'coco_val128'}", "--limit", "8"]
    arguments += ["--preprocess", str(tmp_path / "fastestdet.yaml")]
    code = "from roadworthy.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["metric"], found["n"]) == ("map50", 8)
    assert 0.2 < found["value"] < 0.7
