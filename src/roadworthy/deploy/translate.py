"""From an aten graph to an ONNX graph in which our two operators are still single nodes.

`torch.onnx` cannot know what integers we want, and its optimiser folds a DequantizeLinear over
constants into floats; placeholders of a private domain pass through it untouched.
"""

import warnings
from functools import cache
from typing import Any, cast

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript import values
from torch import fx, nn

from roadworthy.core.capture import dynamic_axes
from roadworthy.core.grid import Grid, ops
from roadworthy.core.predict import Inputs
from roadworthy.deploy.onnx_program import to_onnx
from roadworthy.errors import BadModel

DOMAIN = "roadworthy"
_OPSETS = {8: 20, 4: 21, 2: 25}
_IR_VERSIONS = {8: 10, 4: 10, 2: 13}


def placeholder(name: str, attributes: tuple[str, ...]) -> values.Op:
    """An ONNX operator of our own domain with three inputs and integer `attributes`."""
    inputs = [OpSchema.FormalParameter(each, f"T_{each}") for each in ("x", "scale", "zero_point")]
    kinds = ["tensor(float)", "tensor(int8)", "tensor(uint8)"]
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=inputs,
        outputs=[OpSchema.FormalParameter("y", "T_scale")],
        type_constraints=[(f"T_{each}", kinds, "") for each in ("x", "scale", "zero_point")],
        attributes=[
            OpSchema.Attribute(each, OpSchema.AttrType.INT, "", required=True)
            for each in attributes
        ],
    )
    return values.Op(values.Opset(DOMAIN, 1), name, schema)


@cache
def _table() -> dict[Any, Any]:
    activation = placeholder("FakeQuantize", ("qmin", "qmax"))
    weight = placeholder("Dequantize", ("axis", "bits"))

    def fake_quantize(x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int) -> Any:
        return activation(x, scale, zero_point, qmin=qmin, qmax=qmax)

    def dequantize(codes: Any, scale: Any, zero_point: Any, axis: int, bits: int) -> Any:
        return weight(codes, scale, zero_point, axis=axis, bits=bits)

    return {ops.fake_quantize.default: fake_quantize, ops.dequantize.default: dequantize}


def narrowest(graph: fx.Graph) -> int:
    """Bits of the narrowest container that the graph's weights need: 2, 4 or 8."""
    target = ops.dequantize.default
    bits = [int(cast(int, node.args[4])) for node in graph.nodes if node.target is target]
    return min((Grid(each).container_bits for each in bits), default=8)


def dynamic_export(module: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    """`module` as a program whose batch is dynamic; ONNX values are called like its nodes."""
    sample = torch.cat([example[:1]] * 2)
    # A batch has no upper end and gets its name in the file; texts end where positions do.
    shapes: dict[int, Any] = dict.fromkeys(dynamic_axes(example), torch.export.Dim.DYNAMIC)
    shapes[0] = torch.export.Dim("batch")
    return torch.export.export(module, (sample,), dynamic_shapes=(shapes,))


def translate(module: nn.Module, example: Inputs) -> ir.Model:
    """ONNX graph of `module` with a dynamic batch, at the lowest opset that holds its weights.

    Raises:
        BadModel: torch.export or torch.onnx refuses the module.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = dynamic_export(module, example)
            container = narrowest(exported.graph)
            model = to_onnx(exported, _table(), _OPSETS[container])
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise BadModel(
            f"{type(module).__name__} does not export to ONNX: {reason[:300]}; replace the "
            "operator it names, or keep this model in torch"
        ) from error
    model.ir_version = _IR_VERSIONS[container]
    return model
