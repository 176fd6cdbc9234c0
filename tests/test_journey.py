"""The whole way on a small trained-like model: what is left behind, and that it is true."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compress.small import images, network

from roadworthy.cli import main
from roadworthy.core.runs import RunRecord
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.errors import ParityError
from roadworthy.journey import load_quantized
from roadworthy.options import parse, quantize_request
from roadworthy.report.tree import Tree
from roadworthy.report.views import command_line

MODEL = """
import sys
sys.path.insert(0, {tests!r})
from compress.small import network as build
PREPROCESS = {{"mean": [0.5, 0.5, 0.5], "std": [0.125, 0.125, 0.125]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file and stored images, labelled by the model itself."""
    folder = tmp_path_factory.mktemp("journey")
    (folder / "net.py").write_text(MODEL.format(tests=str(Path(__file__).parent)))
    pixels = ((images(160) + 4) * 32).clamp(0, 255).byte()
    labels = network()((pixels.float() / 255 - 0.5) * 8).argmax(1)
    np.savez(folder / "x.npz", x=pixels.permute(0, 2, 3, 1).numpy(), y=labels.numpy())
    return folder


def command(place: Path, out: Path, *more: str) -> list[str]:
    data = f"npz:{place}/x.npz?x=x&y=y"
    start = ["quantize", f"py:{place}/net.py:build", "--data", data, "--eval", data]
    return [*start, "--out", str(out), "--iterations", "20", "--json", *more]


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    out = place / "w4a4"
    assert main(command(place, out, "--bits", "w4a4", "--sensitivity")) == 0
    return out


def test_everything_promised_is_there(done: Path) -> None:
    wanted = {"model.onnx", "model.safetensors", "quantization.json", "run.json", "report.html"}
    assert {path.name for path in done.iterdir()} == wanted
    run = RunRecord.load(done).to_dict()
    for form in ("float", "simulated", "deployed"):
        assert 0 <= run[form]["value"] <= 1
    assert run["parity"]["agreement"] >= 0.995
    assert run["seconds"] > 0
    assert run["peak_memory_mb"] > 0
    assert {unit["name"] for unit in run["units"]} == {"0", "2", "3", "6", "network"}
    assert {row["layer"] for row in run["sensitivity"]} == {row["name"] for row in run["layers"]}
    assert "Most sensitive layers" in (done / "report.html").read_text()


def test_the_command_of_the_report_asks_for_the_same(place: Path) -> None:
    options = ["--calib-size", "64", "--batch-size", "8", "--blocks", "2,3", "--seed", "3"]
    options += ["--calib-noise", "--skip-bad", "--bits", "w4a8"]
    typed = command(place, place / "told", *options)
    assert main(typed) == 0
    tree = Tree(RunRecord.load(place / "told").to_dict())
    told = shlex.split(command_line(tree))
    asked, again = (quantize_request(parse(line)) for line in (typed, told[1:]))
    kept = replace(again.scheme, backend=asked.scheme.backend)  # which it came out as
    assert asked == replace(again, out=asked.out, scheme=kept)


def test_others_may_read_what_is_left_behind(done: Path) -> None:
    assert len({path.stat().st_mode for path in done.iterdir()}) == 1


def test_the_stored_model_is_the_deployed_one(done: Path) -> None:
    x = images(32)
    module = load_quantized(done)
    with torch.no_grad():
        simulated = module(x)
    deployed = OrtPredictor(done / "model.onnx")(x)
    assert float((simulated.argmax(1) == deployed.argmax(1)).float().mean()) >= 0.95


def test_evaluate_finds_the_recorded_value(
    done: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(done), "--data", f"npz:{place}/x.npz?x=x&y=y", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["value"] == RunRecord.load(done).to_dict()["deployed"]["value"]


def test_a_file_that_disagrees_is_not_left_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise ParityError("agrees on 12 %")

    monkeypatch.setattr("roadworthy.journey.assert_parity", refuse)
    assert main(command(place, place / "bad", "--bits", "w8a8", "--method", "mse")) == 1
    assert "12 %" in capsys.readouterr().err
    assert not (place / "bad" / "model.onnx").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--bits", "w9a4"), "w2a2 to w8a8"),
        (("--blocks", "nowhere"), "nowhere"),
        (("--calib-size", "9999"), "holds 160 images"),
        (("--calib-size", "8"), "a step draws 32"),
        (("--preprocess", "nothing.yaml"), "nothing.yaml"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    place: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(place, place / "never", *more)) == 2
    text = capsys.readouterr().err.strip()
    assert message in text
    assert "\n" not in text
    assert not (place / "never" / "model.onnx").exists()


def test_what_was_finished_stays_whole_when_a_later_run_fails(
    done: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in done.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("roadworthy.journey.save_quantized", full)
    assert main(command(place, done, "--bits", "w2a2", "--method", "mse")) == 1
    assert {path.name: path.read_bytes() for path in done.iterdir()} == before


def test_evaluation_images_are_checked_before_anything_is_learned(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("roadworthy.journey.compress_best", None)
    arguments = command(place, place / "late")
    arguments[arguments.index("--eval") + 1] = "imagefolder:nowhere"
    assert main(arguments) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (place / "late").exists()


def test_a_corrected_evaluation_finds_the_finished_units(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from roadworthy.compress import engine

    def broken(*_: object) -> None:
        raise ParityError("an image is broken")

    with monkeypatch.context() as patch:
        patch.setattr("roadworthy.journey.judge", broken)
        assert main(command(place, place / "again")) == 1
    monkeypatch.setattr(engine, "reconstruct", None)
    arguments = command(place, place / "again")
    at = arguments.index("--eval")
    assert main(arguments[:at] + arguments[at + 2 :]) == 0


def test_calibration_under_noise_is_what_many_deployments_make(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[torch.Tensor] = []

    def listen(_: object, x: torch.Tensor, *__: object) -> None:
        calibrated.append(x)
        raise ParityError("seen enough")

    with monkeypatch.context() as patch:
        patch.setattr("roadworthy.journey.compress_best", listen)
        for more in ((), ("--calib-noise",), ("--calib-noise",)):
            assert main(command(place, place / "noisy", *more)) == 1
    clean, noisy, again = calibrated
    assert torch.equal(noisy, again)
    # The file holds pixels that nobody resizes: colour is all there is to mix, RGB one of eight.
    same = (clean == noisy).flatten(1).all(1)
    assert 0 < int(same.sum()) < len(clean) / 4
    assert float((clean - noisy).abs().mean()) < 1
    assert main(command(place, place / "noisy", "--method", "mse", "--calib-noise")) == 0
    run = RunRecord.load(place / "noisy").to_dict()
    assert "nv12-601-full" in run["config"]["calib_noise"]["colour"]
    assert run["seed"] == 0


def test_damaged_leftovers_are_learned_again(place: Path) -> None:
    left = place / "left" / ".unfinished"
    (left / "folder").mkdir(parents=True)
    (left / "fingerprint.json").write_bytes(b"\xff\xfe\x80")
    assert main(command(place, place / "left")) == 0
    (place / "flat").mkdir()
    (place / "flat" / ".unfinished").write_text("a file")
    assert main(command(place, place / "flat", "--no-resume")) == 0


def test_evaluate_leaves_the_record_of_quantize_alone(
    done: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (done / "run.json").read_bytes()
    data = f"npz:{place}/x.npz?x=x&y=y"
    assert main(["evaluate", str(done), "--data", data, "--out", str(done)]) == 2
    assert "run.json of quantize" in capsys.readouterr().err
    assert (done / "run.json").read_bytes() == before


HEAD = """
import torch
from torch import nn
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)
    def forward(self, x):
        y = self.layer(x.mean((2, 3)))
"""
ENDS = {
    "tuple": ("return (y,)", "tuple of 1 outputs"),
    "dict": ("return {'a': y}", "dict of 1 outputs"),
    "nothing": ("return None", "NoneType"),
    "classes": ("return y.argmax(1)", "int64"),
    "one": ("return y[:, 0]", "answers ['batch'] where"),
    "infinite": ("return y * 1e39", "NaN or infinite"),
    "constant": ("return torch.zeros(x.shape[0], 6)", "nothing to quantize"),
    "layerless": ("return x.mean((2, 3))", "nothing to quantize"),
    "raising": ("raise ValueError('wrong size')", "wrong size"),
    "deciding": ("return y if y.sum() > 0 else -y", "torch.where"),
}


def quantize_ending(place: Path, name: str, end: str) -> int:
    """The exit code for a small network whose forward ends by the line `end`."""
    (place / f"{name}.py").write_text(f"{HEAD}        {end}\n")
    data = ["--data", f"npz:{place}/x.npz?x=x&y=y", "--method", "mse"]
    return main(["quantize", f"py:{place}/{name}.py:Net", *data, "--out", str(place / f"o-{name}")])


@pytest.mark.parametrize("kind", ENDS)
def test_models_that_are_no_classifiers_are_refused_in_one_line(
    kind: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line, message = ENDS[kind]
    assert quantize_ending(place, kind, line) == 2
    text = capfd.readouterr().err.strip()
    assert message in text
    assert "\n" not in text
    assert not (place / f"o-{kind}").exists()


def test_a_dead_cast_is_no_obstacle(place: Path) -> None:
    assert quantize_ending(place, "dead", "y.double(); return y") == 0


@pytest.mark.parametrize("more", [("--tries", "2"), ("--max-drop", "1")])
def test_too_few_images_to_judge_by_are_refused(
    more: tuple[str, str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--calib-size", "3", "--batch-size", "1")
    assert main(command(place, place / "few", *few, *more)) == 2
    assert "give at least" in capsys.readouterr().err
    assert not (place / "few").exists()


def test_a_refused_drop_leaves_what_was_learned_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--iterations", "1", "--calib-size", "64", "--bits", "w8a2", "--max-drop", "0")
    assert main(command(place, place / "drop", *few)) == 2
    said = capsys.readouterr().err
    assert f"allow more; {place}/drop/.unfinished keeps what was learned for it, or give" in said
    assert [path.name for path in (place / "drop").iterdir()] == [".unfinished"]
