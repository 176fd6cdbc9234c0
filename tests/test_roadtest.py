"""The road test end to end, from the command line and from Python, on a small network."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import roadworthy
from roadworthy.cli import main
from roadworthy.core.images import Preprocess
from roadworthy.errors import BadInput

MODEL = """
import torch
from torch import nn
PREPROCESS = {"resize": "pillow-bilinear", "geometry": "squash", "size": 16}
def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
                         nn.Linear(144, 3)).eval()
"""
STAGES = "decode,resize,geometry,colour,normalise"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    (folder / "net.py").write_text(MODEL)
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "jpeg", quality=85)
        file = folder / "photos" / "abc"[i % 3] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stream.getvalue())
    return folder


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    out = place / "out"
    assert main(["noise", f"py:{place}/net.py:build", *sweep(place, out)]) == 0
    return out


def sweep(place: Path, out: Path) -> list[str]:
    return ["--data", f"imagefolder:{place}/photos", "--out", str(out), "--stages", STAGES]


def test_everything_promised_is_there(done: Path) -> None:
    wanted = {"noise.json", "pictures.json", "run.json", "report.html"}
    assert {path.name for path in done.iterdir()} == wanted
    rows = json.loads((done / "noise.json").read_text())
    keys = {"stage", "option", "class", "delta", "ci_low", "ci_high", "flip_rate"}
    assert all(keys <= row.keys() for row in rows)
    by_name = {row["option"]: row for row in rows}
    assert by_name["opencv"]["class"] == "training system"
    assert by_name["opencv"]["delta"] == by_name["opencv"]["flip_rate"] == 0
    assert by_name["opencv-nearest-exact"]["class"] == "pillow-nearest"
    assert by_name["bgr"]["distance"] > 1
    run = json.loads((done / "run.json").read_text())
    assert run["advice"]
    assert run["fingerprint"]["libraries"]["pillow"]


def test_a_second_run_finds_the_same(place: Path, done: Path) -> None:
    again = place / "again"
    assert main(["noise", f"py:{place}/net.py:build", *sweep(place, again)]) == 0
    assert (again / "noise.json").read_text() == (done / "noise.json").read_text()


def test_models_runtimes_and_posts_are_swept(place: Path, capsys) -> None:
    asked = [*sweep(place, place / "rest")[:-1], "model,runtime,post", "--json"]
    capsys.readouterr()
    assert main(["noise", f"py:{place}/net.py:build", *asked]) == 0
    rows = {r["option"]: r for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["onnxruntime-all"]["flip_rate"] == 0
    assert rows["int8"]["missing"] is None
    # A pool that rounds up gives 7 x 7, which this classifier does not take: told, not swept.
    assert "cannot be multiplied" in rows["ceil-mode"]["missing"]
    assert rows["half-softmax"]["delta"] == 0


def test_attribution_from_files(place: Path, capsys) -> None:
    stages = Preprocess(resize="pillow-bilinear", geometry="squash", size=(16, 16))
    deploy = {**replace(stages, decode="opencv", colour="bgr").to_dict(), "runtime": "openvino-f32"}
    (place / "deploy.json").write_text(json.dumps(deploy))
    asked = ["--data", f"imagefolder:{place}/photos", "--deploy", str(place / "deploy.json")]
    model = f"py:{place}/net.py:build"
    capsys.readouterr()
    assert main(["noise", "attribute", model, *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["shares"]) == ["decode", "colour", "runtime"]
    assert found["shares"]["decode"] == found["shares"]["runtime"] == 0
    assert sum(found["shares"].values()) == pytest.approx(found["total"]["value"])
    assert main(["noise", "attribute", model, *asked[:2], "--deploy", "none.yaml"]) == 2
    assert "none.yaml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("post: foo", "post 'foo' given; as-trained, half-softmax are allowed"),
        ("runtime: foo", "runtime 'foo' given"),
        ("model: foo", "model 'foo' given; as-trained, ceil-mode are allowed"),
        ("1: 2", "1"),
        ("geometry: short-side", "add crop"),
    ],
)
def test_what_a_deployment_file_may_not_say(place: Path, capsys, line, message) -> None:
    stages = {"resize": "opencv-linear", "geometry": "squash", "size": 16}
    kept = [f"{k}: {v}" for k, v in stages.items() if not line.startswith(k)]
    (place / "bad.yaml").write_text("\n".join([*kept, line]))
    asked = ["--data", f"imagefolder:{place}/photos", "--deploy", str(place / "bad.yaml")]
    assert main(["noise", "attribute", f"py:{place}/net.py:build", *asked]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_identification_from_files(place: Path, capsys) -> None:
    stages = Preprocess(resize="opencv-area", geometry="squash", size=(24, 24), colour="bgr")
    photo = place / "photos" / "a" / "0.jpg"
    np.save(place / "fed.npy", stages(stages.decoded(photo.read_bytes(), "0.jpg")).numpy())
    asked = ["--image", str(photo), "--tensor", str(place / "fed.npy"), "--json"]
    capsys.readouterr()
    assert main(["noise", "identify", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["found"]
    best = found["matches"][0]
    assert (best["resize"], best["colour"], best["geometry"]) == ("opencv-area", "bgr", "squash")
    assert best["residual"] == pytest.approx(0, abs=1e-3)


def test_python_checks_a_module(place: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    spec = place / "own.yaml"
    spec.write_text("resize: pillow-box\ngeometry: squash\nsize: 16\n")
    record = roadworthy.check(
        net,
        f"imagefolder:{place}/photos",
        place / "checked",
        preprocess=str(spec),
        stages=("colour",),
        combine="exhaustive",
    ).to_dict()
    assert {row["stage"] for row in record["rows"]} == {"colour"}
    worst = max(row["delta"] for row in record["rows"])
    assert record["combinations"][0]["value"] == pytest.approx(worst)
    with pytest.raises(BadInput, match=r"stage 'decoder' given"):
        roadworthy.check(net, "imagefolder:x", place / "x", stages=("decoder",))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--stages", "decode,resise"], "stage 'resise' given (did you mean resize?)"),
        (["--stages", "Decode"], "stage 'Decode' given (did you mean decode?)"),
        (["--stages", ","], "stage '' given"),
        (["--tolerance", "-1"], "--tolerance -1.0 given"),
        (["--limit", "0"], "--limit 0 given"),
    ],
)
def test_wrong_options_are_told_in_one_line(place: Path, capsys, extra, message) -> None:
    asked = [*sweep(place, place / "wrong"), *extra]
    assert main(["noise", f"py:{place}/net.py:build", *asked]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (place / "wrong").exists()


def test_what_can_be_tested_is_although_another_model_cannot(
    place: Path, tmp_path: Path, capsys
) -> None:
    broken, good = f"py:{place}/net.py:missing", f"py:{place}/net.py:build"
    data = ["--data", f"imagefolder:{place}/photos", "--stages", "post"]
    assert main(["noise", broken, good, *data, "--out", str(tmp_path / "board")]) == 2
    err = capsys.readouterr().err.strip()
    assert "no function 'missing'" in err
    assert "the other 1 of 2 models are done" in err
    assert "\n" not in err
    assert {path.name for path in (tmp_path / "board").iterdir()} == {
        "net.py-build",
        "report.html",
    }
    assert (tmp_path / "board" / "net.py-build" / "run.json").is_file()


def test_the_record_of_another_command_is_not_lost(place: Path, tmp_path: Path, capsys) -> None:
    model, data = f"py:{place}/net.py:build", ["--data", f"imagefolder:{place}/photos"]
    out = ["--out", str(tmp_path / "out")]
    assert main(["evaluate", model, *data, *out]) == 0
    before = (tmp_path / "out" / "run.json").read_text()
    assert main(["noise", model, *data, *out, "--stages", "post"]) == 2
    assert "holds the run.json of evaluate" in capsys.readouterr().err
    assert (tmp_path / "out" / "run.json").read_text() == before
