"""The gate: what agrees passes, what does not is refused with the operator that broke."""

from pathlib import Path

import onnx
import pytest
import torch
from by_hand import SmallNet, by_hand, seeded, some_images
from onnx import numpy_helper
from torch import fx

from roadworthy.core.predict import TorchPredictor
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.inspect import first_break, relative_error
from roadworthy.deploy.parity import Parity, assert_parity, compare, parity
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.errors import BadData, ParityError


@pytest.fixture(scope="module")
def module() -> fx.GraphModule:
    return by_hand(seeded(SmallNet), some_images(32))


@pytest.fixture(scope="module")
def path(module: fx.GraphModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    export_onnx(module, some_images(1), path)
    return path


def damaged(path: Path, folder: Path, initializer: str, factor: float) -> Path:
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == initializer:
            array = numpy_helper.to_array(tensor) * factor + 0.5
            tensor.CopyFrom(numpy_helper.from_array(array.astype("float32"), initializer))
    onnx.save(model, str(folder / "damaged.onnx"))
    return folder / "damaged.onnx"


def test_a_model_agrees_with_itself(module: fx.GraphModule) -> None:
    run = TorchPredictor(module)
    assert parity(run, run, [some_images(4), some_images(3)]) == Parity(1.0, 0.0, 0.0, 7)


def test_a_good_file_passes(module: fx.GraphModule, path: Path) -> None:
    found = parity(TorchPredictor(module), OrtPredictor(path, 1), [some_images(50)])
    assert_parity(found, module, path, some_images(8))
    assert first_break(module, path, some_images(8)) is None


@pytest.mark.parametrize(
    ("initializer", "named"),
    [
        ("dequantize_1.scale", "DequantizeLinear 'dequantize_1'"),
        ("depthwise.bias", "Conv 'conv2d_1'"),
        ("grouped.bias", "Conv 'conv2d_3'"),
    ],
)
def test_the_first_broken_operator_is_named(
    initializer: str, named: str, module: fx.GraphModule, path: Path, tmp_path: Path
) -> None:
    bad = damaged(path, tmp_path, initializer, 3.0)
    found = parity(TorchPredictor(module), OrtPredictor(bad, 1), [some_images(50)])
    with pytest.raises(ParityError, match=rf"first break at {named} \(relative error"):
        assert_parity(found, module, bad, some_images(8), threshold=1.01)


def test_the_message_tells_what_is_required(module: fx.GraphModule, path: Path) -> None:
    with pytest.raises(ParityError, match=r"same class on 97.0 % of 100 images .* 99.5 %"):
        assert_parity(Parity(0.97, 1.0, 0.1, 100), module, path, some_images(2))


def test_unlike_answers_cannot_be_compared() -> None:
    with pytest.raises(BadData, match=r"\[2, 3\] and \[3, 3\]"):
        compare(torch.zeros(2, 3), torch.zeros(3, 3))
    assert relative_error(torch.zeros(2), torch.zeros(3)) == float("inf")
