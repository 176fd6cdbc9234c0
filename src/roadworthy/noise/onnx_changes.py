"""The changes of `roadworthy.noise.changes`, made in an ONNX file."""

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import helper, shape_inference

from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadModel, brief


def onnx_changes(path: Path) -> tuple[str, ...]:
    """The changes that the file at `path` admits.

    Raises:
        BadModel: it cannot be read.
    """
    nodes = [node for node in _read(path).graph.node if node.op_type in _OPERATORS]
    return tuple(n for n, change in ONNX_CHANGES.items() if any(change(_copied(x)) for x in nodes))


def write_onnx_changed(path: Path, name: str, out: Path) -> None:
    """Write the file at `path` to `out` with the change in every place where it applies.

    Args:
        path: the ONNX file, which stays as it is.
        name: of the change.
        out: the new file; it appears whole or not at all.

    Raises:
        BadModel: the file cannot be read, or its shapes no longer fit after the change.
    """
    model = _read(path)
    for node in model.graph.node:
        ONNX_CHANGES[name](node)
    # What the file said of shapes was true before the change.
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()
    try:
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        with write_atomically(out) as part:
            onnx.save(model, str(part))
            onnx.checker.check_model(str(part))
    except (shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
        reason = brief(error, 300)
        raise BadModel(f"with {name} the maps in {path} no longer meet: {reason}") from error


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:
        reason = brief(error)
        raise BadModel(f"{path} cannot be read: {reason}; export it again") from error


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else found.s.decode()


def _whole(node: onnx.NodeProto, name: str) -> list[int]:
    found = next((a for a in node.attribute if a.name == name), None)
    return [] if found is None else [*found.ints] or [found.i]


def _set(node: onnx.NodeProto, **values: str | int) -> None:
    kept = [a for a in node.attribute if a.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in values.items())])


def _ceil_mode(node: onnx.NodeProto) -> bool:
    """Pools that pad by themselves have no size to round."""
    strides = _whole(node, "strides")
    if node.op_type not in ("MaxPool", "AveragePool") or max(strides, default=1) == 1:
        return False
    if any(_whole(node, "ceil_mode")) or _text(node, "auto_pad", "NOTSET").startswith("SAME"):
        return False
    _set(node, ceil_mode=1)
    return True


def _mode(node: onnx.NodeProto) -> str | None:
    """How a node enlarges, None where it does not; versions before 11 know no coordinates."""
    return _text(node, "mode", "nearest") if node.op_type in ("Resize", "Upsample") else None


def _bilinear(node: onnx.NodeProto) -> bool:
    if _mode(node) != "nearest":
        return False
    _set(node, mode="linear")
    _place(node, "half_pixel")
    return True


def _nearest(node: onnx.NodeProto) -> bool:
    """As torch does it: the lower of two neighbours, pixels without a middle."""
    if _mode(node) != "linear":
        return False
    _set(node, mode="nearest")
    if node.op_type == "Resize":
        _place(node, "asymmetric")
        _set(node, nearest_mode="floor", antialias=0)
    return True


def _corners(node: onnx.NodeProto) -> bool:
    if _mode(node) != "linear" or node.op_type != "Resize":
        return False
    aligned = _text(node, _COORDINATES, "half_pixel") == "align_corners"
    _place(node, "half_pixel" if aligned else "align_corners")
    return True


def _asymmetric(node: onnx.NodeProto) -> bool:
    """Corners of pixels where their middles are meant, as older runtimes have it; or back."""
    if _mode(node) != "linear" or node.op_type != "Resize":
        return False
    if _text(node, _COORDINATES, "half_pixel") == "asymmetric":
        _place(node, "half_pixel")
    else:
        _place(node, "asymmetric")
    return True


def _place(node: onnx.NodeProto, coordinates: str) -> None:
    if node.op_type == "Resize":
        _set(node, coordinate_transformation_mode=coordinates)


_OPERATORS = ("MaxPool", "AveragePool", "Resize", "Upsample")
_COORDINATES = "coordinate_transformation_mode"
ONNX_CHANGES: dict[str, Callable[[onnx.NodeProto], bool]] = {
    "ceil-mode": _ceil_mode,
    "upsample-bilinear": _bilinear,
    "upsample-nearest": _nearest,
    "align-corners": _corners,
    "upsample-asymmetric": _asymmetric,
}
"""Each changes a node in place and says whether it did."""
