"""MetaNet is a model like any other: compressed by QDrop, deployed, road-tested."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from core.metanets import lively
from PIL import Image
from torch import nn

from roadworthy import QDrop
from roadworthy.cli import main
from roadworthy.compress.methods import with_batch_size, with_iterations
from roadworthy.core.metanet import MetaNet, MetaNetConfig, Stage
from roadworthy.journey import quantize

ROWS = (
    ("fused", 1, "inside", 8),
    ("mbconv", 1, "local", 8),
    ("xca", 2, "inside", 16),
    ("attention", 1, "local-global", 16),
)


def network() -> nn.Module:
    """All four operators, as after training."""
    stages = tuple(Stage(op, n, width, 2, 2, 8, down) for op, n, down, width in ROWS)
    torch.manual_seed(0)
    net = MetaNet(MetaNetConfig(stages, stem=8, head=32, layer_scale=0.5), num_classes=4)
    return lively(net)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file at four bits, reconstructed; nothing is written unless it equals its module."""
    path = tmp_path_factory.mktemp("metanet") / "model.onnx"
    method = with_batch_size(with_iterations(QDrop(4, 4), 4), 8)
    facts = quantize(network(), torch.randn(16, 3, 32, 32), method).export(path)
    assert facts["parity"]["agreement"] == 1
    return path


def test_only_what_normalises_before_padding_keeps_its_norm(done: Path) -> None:
    found = [node.op_type for node in onnx.load(done).graph.node]
    assert found.count("BatchNormalization") == 1
    assert found.count("Softmax") == 4


def test_it_takes_the_road_test(done: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(8):
        file = tmp_path / "photos" / "abcd"[number % 4] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    training = {"resize": "pillow-bilinear", "geometry": "squash", "size": 32}
    (tmp_path / "training.json").write_text(json.dumps(training))
    given = ["--preprocess", str(tmp_path / "training.json"), "--stages", "resize"]
    data = ["--data", f"imagefolder:{tmp_path}/photos", "--out", str(tmp_path / "road")]
    assert main(["noise", f"onnx:{done}", *data, *given]) == 0
    rows = json.loads((tmp_path / "road" / "noise.json").read_text())
    assert len({row["class"] for row in rows if row["stage"] == "resize"}) > 1
