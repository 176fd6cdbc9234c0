"""Predictors over files: good ones of any batch, and bad ones in one clear line."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from by_hand import SmallNet, seeded, some_images

from roadworthy.core.predict import Predictor
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.latency import latencies, latency
from roadworthy.deploy.runtimes import OpenVinoPredictor, OrtPredictor
from roadworthy.errors import BadInput, BadModel

RUNTIMES = [OrtPredictor, OpenVinoPredictor]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(seeded(SmallNet), some_images(1), path)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fixed_batch_is_filled_up(runtime: type, path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    del model.graph.value_info[:]
    onnx.save(model, str(tmp_path / "four.onnx"))
    images = some_images(6)
    assert torch.allclose(
        runtime(tmp_path / "four.onnx", 1)(images), runtime(path, 1)(images), atol=1e-6
    )


def test_a_signal_after_two_openvino_models_kills_nobody(path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from roadworthy.deploy.runtimes import OpenVinoPredictor
first, second = (OpenVinoPredictor(Path({str(path)!r}), 1) for _ in range(2))
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    command = [sys.executable, "-X", "faulthandler", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr[-1000:]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no ONNX file at"),
        (b"", r"is empty \(0 bytes\)"),
        (b"\x08\x07garbage", "cannot load"),
    ],
)
def test_bad_files(runtime: type, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadModel, match=message) as caught:
        runtime(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(path: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.onnx"
    short.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadModel, match="cannot load"):
        OrtPredictor(short)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_of_another_size_are_refused(runtime: type, path: Path) -> None:
    with pytest.raises(BadInput, match=r"images of shape \[2, 3, 20, 20\] given"):
        runtime(path)(some_images(2, side=20))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_settings_tell_runtime_and_threads(runtime: type, path: Path) -> None:
    predictor = runtime(path, threads=1)
    assert isinstance(predictor, Predictor)
    assert predictor.settings["threads"] == 1
    assert predictor.settings["runtime"].split()[0] == predictor.name


def test_latencies_come_per_predictor(path: Path) -> None:
    class Slow:
        name = "slow"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            torch.randn(700, 700) @ torch.randn(700, 700)
            return images.flatten(1)

    found = latencies({"file": OrtPredictor(path, 1), "slow": Slow()}, some_images(1), repeats=5)
    assert found["slow"]["median_ms"] > found["file"]["median_ms"] > 0
    assert found["slow"]["p10"] <= found["slow"]["median_ms"] <= found["slow"]["p90"]
    with pytest.raises(BadInput, match="0 repeats"):
        latency(Slow(), some_images(1), repeats=0)
