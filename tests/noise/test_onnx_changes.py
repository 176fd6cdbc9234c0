"""The same changes made in ONNX files: torch's own layers are the reference."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.errors import BadModel
from roadworthy.noise.onnx_changes import onnx_changes, write_onnx_changed

SIZE = (10, 9)


def save(path: Path, nodes: list[onnx.NodeProto], opset: int = 19) -> Path:
    """A file of one input ``x`` ``[b 3 10 9]`` and one output ``y``."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, *SIZE])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3, "h", "w"])
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])
    graph = helper.make_graph(nodes, "g", [given], [found], [scales])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def resize(**attributes: str) -> onnx.NodeProto:
    return helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)


def answer(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": images.numpy()})[0])


TORCH = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("node", "name", "wanted"),
    [
        (
            helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
            "ceil-mode",
            lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        ),
        (
            helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
            "ceil-mode",
            lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
        ),
        (
            resize(**TORCH),
            "upsample-bilinear",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        ),
        (
            resize(mode="linear"),
            "upsample-nearest",
            lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        ),
        (
            resize(mode="linear"),
            "align-corners",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        ),
        (
            resize(mode="linear", coordinate_transformation_mode="align_corners"),
            "align-corners",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        ),
        (
            resize(mode="linear", coordinate_transformation_mode="asymmetric"),
            "upsample-asymmetric",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        ),
    ],
)
def test_a_changed_file_answers_as_torchs_layer(node, name: str, wanted, tmp_path: Path) -> None:
    images = torch.randn(2, 3, *SIZE)
    path, out = save(tmp_path / "model.onnx", [node]), tmp_path / "changed.onnx"
    before = path.read_bytes()
    assert name in onnx_changes(path)
    write_onnx_changed(path, name, out)
    assert path.read_bytes() == before
    torch.testing.assert_close(answer(out, images), wanted(images), atol=1e-5, rtol=1e-4)
    plain = answer(path, images)
    assert plain.shape != wanted(images).shape or not torch.allclose(plain, wanted(images), 1e-2)


def test_asymmetric_places_pixels_by_their_corners(tmp_path: Path) -> None:
    images = torch.arange(10.0)[:, None].expand(1, 3, *SIZE).contiguous()
    path = save(tmp_path / "model.onnx", [resize(mode="linear")])
    write_onnx_changed(path, "upsample-asymmetric", tmp_path / "changed.onnx")
    assert answer(tmp_path / "changed.onnx", images)[0, 0, :4, 0].tolist() == [0, 0.5, 1, 1.5]
    assert answer(path, images)[0, 0, :4, 0].tolist() == [0, 0.25, 0.75, 1.25]


def test_the_new_size_is_declared(tmp_path: Path) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "changed.onnx"
    save(path, [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])])
    model = onnx.load(str(path))
    for dimension, size in zip(
        model.graph.output[0].type.tensor_type.shape.dim[2:], (5, 4), strict=True
    ):
        dimension.dim_value = size
    onnx.save(model, str(path))
    write_onnx_changed(path, "ceil-mode", out)
    shape = onnx.load(str(out)).graph.output[0].type.tensor_type.shape.dim
    assert [dimension.dim_value for dimension in shape[1:]] == [3, 5, 5]


def test_what_does_not_apply_is_not_offered(tmp_path: Path) -> None:
    pools = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["a"], ["c"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node(
            "MaxPool", ["c"], ["y"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"
        ),
    ]
    assert onnx_changes(save(tmp_path / "pools.onnx", pools)) == ()
    nearest = save(tmp_path / "nearest.onnx", [resize(**TORCH)])
    assert onnx_changes(nearest) == ("upsample-bilinear",)
    linear = save(tmp_path / "linear.onnx", [resize(mode="linear")])
    assert onnx_changes(linear) == ("upsample-nearest", "align-corners", "upsample-asymmetric")


def test_maps_that_no_longer_meet_are_told(tmp_path: Path) -> None:
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], **pool),
        helper.make_node("LpPool", ["x"], ["c"], **pool),
        helper.make_node("Concat", ["a", "c"], ["y"], axis=1),
    ]
    path, out = save(tmp_path / "model.onnx", nodes), tmp_path / "changed.onnx"
    with pytest.raises(BadModel, match=r"with ceil-mode the maps in .* no longer meet: .*Concat"):
        write_onnx_changed(path, "ceil-mode", out)
    assert not out.exists()


def test_operators_of_a_runtime_do_not_stand_in_the_way(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft"),
        helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    path, images = save(tmp_path / "model.onnx", nodes), torch.randn(1, 3, *SIZE)
    write_onnx_changed(path, "ceil-mode", tmp_path / "changed.onnx")
    wanted = nn.MaxPool2d(2, ceil_mode=True)(F.gelu(images))
    torch.testing.assert_close(answer(tmp_path / "changed.onnx", images), wanted)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage")
    with pytest.raises(BadModel, match="cannot be read"):
        onnx_changes(tmp_path / "bad.onnx")


@pytest.mark.data
def test_a_real_detector_is_enlarged_otherwise(data: Path, tmp_path: Path) -> None:
    """FastestDet: its one pool of odd sizes feeds a Concat, its one Resize is nearest."""
    path, out = data / "fastestdet" / "fastestdet.onnx", tmp_path / "changed.onnx"
    assert onnx_changes(path) == ("ceil-mode", "upsample-bilinear")
    with pytest.raises(BadModel, match="Concat"):
        write_onnx_changed(path, "ceil-mode", out)
    write_onnx_changed(path, "upsample-bilinear", out)
    assert onnx_changes(out) == (
        "ceil-mode",
        "upsample-nearest",
        "align-corners",
        "upsample-asymmetric",
    )
