"""The count of kernels sees a product that stays in floats, and a quantizer that does nothing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from by_hand import SmallNet, by_hand, seeded, some_images
from onnx import TensorProto, helper, numpy_helper

from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.fused import FLOAT, INTEGER, fused


def chain(path: Path, *, weight: bool, codes: bool) -> Path:
    """x -> quantizer -> MatMul -> ReLU -> quantizer -> MatMul of two inputs; the first product's
    weight quantized or not, the second quantizer's codes used by a product or not at all."""
    numbers = {
        "scale": np.float32(0.1),
        "zero": np.uint8(128),
        "w": np.ones((8, 8), np.float32),
        "c": np.ones((8, 8), np.int8),
        "none": np.int8(0),
    }
    make = helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        make("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        make("DequantizeLinear", ["c", "scale", "none"], ["e"]),
        make("MatMul", ["d", "e" if weight else "w"], ["y"]),
        make("Softmax", ["y"], ["s"]),
        make("QuantizeLinear", ["s", "scale", "zero"], ["r"]),
        make("Transpose", ["r"], ["t"], perm=[1, 0]),
        make("DequantizeLinear", ["t", "scale", "zero"], ["f"]),
        make("MatMul", ["f", "e"], ["z"]) if codes else make("Softmax", ["f"], ["z"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in numbers.items()]
    value = helper.make_tensor_value_info
    ends = [[value(name, TensorProto.FLOAT, [8, 8])] for name in "xz"]
    graph = helper.make_graph(nodes, "chain", *ends, stored)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path


@pytest.mark.parametrize(
    ("weight", "codes", "counts"),
    [(True, True, (2, 0, 0)), (False, True, (1, 1, 1)), (True, False, (1, 0, 1))],
)
def test_products_and_lost_quantizers_are_counted(
    weight: bool, codes: bool, counts: tuple[int, int, int], tmp_path: Path
) -> None:
    found = fused(chain(tmp_path / "chain.onnx", weight=weight, codes=codes))
    assert (found.integer, found.float, found.pairs) == counts, found.ops


def test_a_whole_integer_network_counts_as_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(by_hand(seeded(SmallNet), some_images(32)), some_images(1), path)
    found = fused(path)
    assert (found.integer, found.float, found.pairs) == (5, 0, 0)
    assert found.ops["QLinearConv"] == 4


def test_a_float_network_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(seeded(SmallNet), some_images(1), path)
    found = fused(path)
    assert (found.integer, found.float, found.pairs) == (0, 5, 0)


def test_no_kernel_is_both() -> None:
    assert not INTEGER & FLOAT
