import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from roadworthy.core.batches import batches
from roadworthy.core.data import load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.predict import TorchPredictor
from roadworthy.core.runs import RunRecord
from roadworthy.errors import BadData, BadModel, BadPreprocess
from roadworthy.evaluate import answers, evaluate
from roadworthy.requests import EvaluateRequest

NET = """
import torch
from torch import nn

PREPROCESS = {}

def build():
    # The class of an image is the channel that is brightest.
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def images(tmp_path: Path) -> str:
    """30 images whose brightest channel is their class, but for the last three."""
    labels = np.arange(30) % 3
    x = np.zeros((30, 4, 4, 3), np.uint8)
    x[np.arange(30), :, :, labels] = 200
    labels[27:] = (labels[27:] + 1) % 3
    np.savez(tmp_path / "set.npz", x=x, y=labels)
    return f"npz:{tmp_path / 'set.npz'}?x=x&y=y"


@pytest.fixture
def network(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"py:{tmp_path / 'net.py'}:build"


def runtime_folder(folder: Path, record: bool = True) -> Path:
    """What `quantize` leaves: here a graph that does the same as NET."""
    folder.mkdir()
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 3])
    graph = helper.make_graph(nodes, "net", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    if record:
        stages = Preprocess(mean=(0.5, 0.5, 0.5)).to_dict()
        RunRecord("quantize", {"preprocess": stages}, 0).save(folder / "run.json")
    return folder


def test_a_torch_model_is_measured(network: str, images: str, tmp_path: Path) -> None:
    found = evaluate(EvaluateRequest(network, images, out=tmp_path / "out", device="cpu"))
    assert (found.metric, found.value, found.n, found.skipped) == ("top1", 0.9, 30, 0)
    assert found.ci_low < 0.9 < found.ci_high
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert written["value"] == 0.9
    assert written["data"]["evaluation"]["sha256"] == found.data_sha256


def test_batch_size_changes_nothing(network: str, images: str) -> None:
    values = {evaluate(EvaluateRequest(network, images, batch_size=b)).value for b in (1, 7, 64)}
    assert values == {0.9}


def test_a_limit_draws_from_every_class(network: str, images: str) -> None:
    assert evaluate(EvaluateRequest(network, images, limit=9)).n == 9
    assert evaluate(EvaluateRequest(network, images, limit=99)).n == 30


def test_a_quantized_folder_and_an_onnx_file(images: str, tmp_path: Path) -> None:
    folder = runtime_folder(tmp_path / "out")
    for model in (str(folder), f"onnx:{folder / 'model.onnx'}"):
        assert evaluate(EvaluateRequest(model, images)).value == 0.9
    bare = runtime_folder(tmp_path / "bare", record=False)
    with pytest.raises(BadPreprocess, match="--preprocess imagenet"):
        evaluate(EvaluateRequest(str(bare), images))


def test_unusable_models_and_data(network: str, images: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(BadModel, match="0 bytes"):
        evaluate(EvaluateRequest(f"onnx:{tmp_path / 'model.onnx'}", images, "imagenet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadModel, match=r"model\.onnx not found"):
        evaluate(EvaluateRequest(str(tmp_path / "empty"), images))
    unlabelled = images.removesuffix("&y=y")
    with pytest.raises(BadData, match="no labels"):
        evaluate(EvaluateRequest(network, unlabelled))


def test_answers_that_are_not_finite_stop_the_measurement(images: str) -> None:
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / (x[:, :1, 0, 0] - x[:, :1, 0, 0])

    parts = batches(load_data(images), Preprocess(), 10)
    with pytest.raises(BadModel, match="overflow answers NaN or infinite values for 30 of 30"):
        answers(TorchPredictor(Overflow(), "overflow"), parts)
