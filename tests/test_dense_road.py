"""Masks and depth maps through the whole road test, on small networks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.classification import MulticlassJaccardIndex

from roadworthy.cli import main
from roadworthy.core.data import load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.models import load_model
from roadworthy.errors import BadData, BadModel
from roadworthy.evaluate import evaluate
from roadworthy.requests import EvaluateRequest
from roadworthy.roadtest import check

SQUARE = "resize: pillow-bilinear\ngeometry: squash\nsize: [31, 45]\n"
MODELS = """
import torch
from torch import nn
from torch.nn.functional import interpolate

class Net(nn.Module):
    '''Pools an input of odd sides and enlarges what it made of it.'''

    def __init__(self, outputs):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.net = nn.Conv2d(3, outputs, 1)

    def forward(self, x):
        return interpolate(self.net(self.pool(x)), scale_factor=2.0)

def bright():
    '''Three classes: dark, middle, light.'''
    net = Net(3)
    with torch.no_grad():
        net.net.weight[:] = torch.tensor([0.0, 2.0, 4.0])[:, None, None, None] / 3
        net.net.bias[:] = torch.tensor([0.0, -0.6, -2.0])
    return net

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = bright()

    def forward(self, x):
        found = self.net(x)
        return {"aux": found[:, :2], "out": found}

def named():
    return Named()

def far():
    '''The darker, the farther.'''
    net = Net(1)
    with torch.no_grad():
        net.net.weight[:] = -1.0
        net.net.bias[:] = 4.0
    return net

def logits():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Ten photos of different sizes, masks of their brightness, depths that fall with it."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "square.yaml").write_text(SQUARE)
    random = np.random.default_rng(0)
    for i in range(10):
        size = tuple(int(side) for side in random.integers(40, 90, 2))
        coarse = Image.fromarray(random.integers(0, 256, (5, 6), dtype=np.uint8))
        gray = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
        save(tmp_path / "images" / f"{i}.jpg", Image.fromarray(gray.astype(np.uint8)), quality=95)
        ids = np.digitize(gray, [0.3 * 255, 0.7 * 255]).astype(np.uint8)
        ids[:3] = 255
        save(tmp_path / "masks" / f"{i}.png", Image.fromarray(ids))
        metres = (4 - 3 * gray / 255).clip(0.2)
        save(tmp_path / "depth" / f"{i}.png", Image.fromarray((metres * 1000).astype(np.uint16)))
    return tmp_path


def road(root: Path, model: str, data: str, *stages: str, out: str = "road") -> dict:
    spec = str(root / "square.yaml")
    name = f"py:{root / 'models.py'}:{model}"
    return check(name, f"{data}:{root}", root / out, stages=stages, preprocess=spec).numbers


def by_option(numbers: dict) -> dict[str, dict]:
    return {row["option"]: row for row in numbers["rows"]}


def expected(root: Path, kind: str, model: str, ceil: bool = False) -> float:
    """The metric by torch and torchmetrics, without any of what is tested."""
    stages = Preprocess.from_yaml(root / "square.yaml")
    dataset, net = (
        load_data(f"{kind}:{root}"),
        load_model(f"py:{root / 'models.py'}:{model}").module,
    )
    net.pool.ceil_mode = ceil
    iou = MulticlassJaccardIndex(3, average="macro", ignore_index=255)
    squares: list[Tensor] = []
    for i in range(len(dataset)):
        truth = torch.from_numpy(dataset.truth(i))
        maps = interpolate(net(stages(dataset.load(i))[None]), tuple(truth.shape), mode="bilinear")
        if kind == "masks":
            iou.update(maps.argmax(1), truth.long()[None])
        else:
            squares.append(((maps[0, 0] - truth) ** 2).flatten())
    return float(iou.compute() if kind == "masks" else torch.cat(squares).nanmean().sqrt())


def test_a_segmentation_network_is_swept(scenes: Path) -> None:
    found = road(scenes, "bright", "masks", "geometry", "model", "post")
    rows = by_option(found)
    assert (found["metric"], found["n"], found["judged_by"]) == ("miou", 10, "labels")
    assert found["value"] == pytest.approx(expected(scenes, "masks", "bright"), abs=1e-3)
    assert 0.6 < found["value"] < 1
    for option in ("ceil-mode", "upsample-bilinear", "argmax-first", "align-corners", "letterbox"):
        assert 0 < rows[option]["flip_rate"] < 0.5, option
    lost = 100 * (found["value"] - expected(scenes, "masks", "bright", ceil=True))
    assert rows["ceil-mode"]["delta"] == pytest.approx(lost, abs=0.1)
    assert rows["argmax-first"]["delta"] > 0.2
    text = (scenes / "road" / "report.html").read_text()
    assert "mean IoU" in text
    assert len(json.loads((scenes / "road" / "noise.json").read_text())) == len(found["rows"])


def test_a_network_of_several_outputs_is_swept(scenes: Path) -> None:
    one, named = (road(scenes, m, "masks", "model", "post", out=m) for m in ("bright", "named"))
    assert by_option(named)["ceil-mode"] == by_option(one)["ceil-mode"]
    assert named["value"] == one["value"]


def test_a_depth_network_is_swept_in_centimetres(scenes: Path) -> None:
    found = road(scenes, "far", "depth", "geometry", "model", "post")
    rows = by_option(found)
    assert found["metric"] == "rmse"
    assert 0.05 < found["value"] < 0.6
    assert found["value"] == pytest.approx(expected(scenes, "depth", "far"), abs=1e-4)
    lost = 100 * (expected(scenes, "depth", "far", ceil=True) - found["value"])
    assert rows["ceil-mode"]["delta"] == pytest.approx(lost, abs=0.01)
    assert abs(lost) > 0.1
    assert rows["nearest"]["ci_low"] <= rows["nearest"]["delta"] <= rows["nearest"]["ci_high"]
    spec = f"py:{scenes / 'models.py'}:far"
    worse = scenes / "worse.yaml"
    worse.write_text(SQUARE + "colour: bgr\nstd: [2, 2, 2]\n")
    flat = evaluate(EvaluateRequest(spec, f"depth:{scenes}", str(worse)))
    assert flat.value > found["value"] + 0.5
    assert "RMSE" in (scenes / "road" / "report.html").read_text()


def test_without_maps_the_training_system_judges(scenes: Path) -> None:
    for kind, model, best in (("masks", "bright", 1), ("depth", "far", 0)):
        for path in (scenes / kind).iterdir():
            path.unlink()
        (scenes / kind).rmdir()
        found = road(scenes, model, kind, "post", out=kind + "-road")
        assert found["judged_by"] == "agreement with the training system"
        assert found["value"] == pytest.approx(best)
        assert all(row["delta"] > 0 for row in found["rows"])


def test_images_without_masks_are_left_out(scenes: Path) -> None:
    (scenes / "masks" / "3.png").unlink()
    assert road(scenes, "bright", "masks", "post")["n"] == 9


def test_a_sweep_that_was_killed_goes_on(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from roadworthy.noise import study

    whole = road(scenes, "bright", "masks", "post", out="first")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "stacked", killed)
        with pytest.raises(KeyboardInterrupt):
            road(scenes, "bright", "masks", "post", out="second")
    assert list((scenes / "second" / ".unfinished").rglob("*.npz"))
    assert road(scenes, "bright", "masks", "post", out="second")["rows"] == whole["rows"]


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("logits", "masks", r"answers \[1, 3\] where masks need"),
        ("logits", "depth", r"answers \[1, 3\] where depth maps need"),
        ("bright", "depth", r"answers \[1, 3, 30, 44\] where depth maps need"),
        ("far", "masks", r"answers \[1, 1, 30, 44\] where masks need .* 2 to 255 classes"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    scenes: Path, model: str, data: str, message: str
) -> None:
    with pytest.raises(BadModel, match=message):
        road(scenes, model, data, "post")


def test_a_class_that_the_model_lacks_is_named(scenes: Path) -> None:
    path = scenes / "masks" / "7.png"
    ids = np.array(Image.open(path))
    ids[5, 5] = 12
    Image.fromarray(ids).save(path)
    with pytest.raises(BadData, match=r"7\.jpg has class id 12 and the model 3 classes"):
        road(scenes, "bright", "masks", "post")


def test_bad_input_ends_with_one_line(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open(scenes / "images" / "0.jpg").convert("RGB").save(scenes / "masks" / "0.png")
    arguments = ["noise", f"py:{scenes / 'models.py'}:bright", "--data", f"masks:{scenes}"]
    arguments += ["--out", str(scenes / "out"), "--preprocess", str(scenes / "square.yaml")]
    assert main([*arguments, "--stages", "post"]) == 2
    said = capsys.readouterr().err.strip()
    assert "mask" in said
    assert "0.png" in said
    assert "holds colours" in said
    assert "\n" not in said
