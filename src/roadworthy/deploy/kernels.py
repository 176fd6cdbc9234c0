"""Float operators as the runtime computes them.

torch and onnxruntime agree on sums and products of two numbers, not on LayerNorm, softmax, GELU or
float convolutions: a sixth to a half of their results differ in the last bit (measured on 300 000
Gaussian values, onnxruntime 1.32). A quantizer behind them turns that into other codes, one in
10^5, and twelve transformer blocks turn these into other logits. A simulation that is to tell what
a file does takes such operators from the runtime, one by one; all else it computes by itself.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor

from roadworthy.deploy.runtimes import open_session

aten = torch.ops.aten
_OPSET, _IR_VERSION = 20, 10
_ELEMENTWISE = {
    aten.sigmoid.default: "Sigmoid",
    aten.tanh.default: "Tanh",
    aten.hardswish.default: "HardSwish",
}
ROUNDED_DIFFERENTLY = {
    *_ELEMENTWISE,
    aten.hardsigmoid.default,
    aten.layer_norm.default,
    aten.softmax.int,
    aten.gelu.default,
    aten.silu.default,
    aten.conv2d.default,
    aten.linear.default,
    aten.matmul.default,
}
"""Operators whose results depend on who computes them, though their operands are the same."""


@dataclass(frozen=True, repr=False)
class Call:
    """An aten operator and what it is called with."""

    target: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]

    def __repr__(self) -> str:
        """What tells kernels apart: of tensors only the shape."""
        told = [tuple(a.shape) if isinstance(a, Tensor) else a for a in self.arguments]
        return f"{self.target}{told}{self.keywords}"


class Kernels:
    """Runs aten operators on onnxruntime, each in a session of its own that is kept."""

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    def run(self, call: Call) -> Tensor:
        """The result of one operator."""
        return self._run("one", call.tensors, [call])

    def sum(self, parts: Sequence[Call | Tensor]) -> Tensor:
        """The sum of two operands; those that are calls are computed together with it, since a
        convolution starts from what is added to it."""
        tensors = [
            t for part in parts for t in (part.tensors if isinstance(part, Call) else [part])
        ]
        return self._run("sum", tensors, parts)

    def _run(self, kind: str, tensors: list[Tensor], parts: Sequence[Call | Tensor]) -> Tensor:
        shown = [part if isinstance(part, Call) else tuple(part.shape) for part in parts]
        key = f"{kind}{shown}"
        if key not in self._sessions:
            self._sessions[key] = open_session(_model(parts, kind == "sum"))
        feed = {f"x{index}": tensor.numpy() for index, tensor in enumerate(tensors)}
        return torch.from_numpy(self._sessions[key].run(None, feed)[0])


def _model(parts: Sequence[Call | Tensor], summed: bool) -> bytes:
    """The file of one call, or of the sum of several; inputs are called x0, x1 ... in order.

    Shapes are fixed: fusing a convolution with a sum depends on them.
    """
    inputs: list[ValueInfoProto] = []
    nodes: list[NodeProto] = []
    results: list[str] = []
    for number, part in enumerate(parts):
        given: list[str] = []
        for tensor in part.tensors if isinstance(part, Call) else [part]:
            given.append(f"x{len(inputs)}")
            inputs.append(_value(given[-1], list(tensor.shape)))
        results.append(f"y{number}" if isinstance(part, Call) else given[0])
        if isinstance(part, Call):
            nodes += _nodes(part, given, results[-1])
    if summed:
        nodes.append(helper.make_node("Add", results, ["sum"]))
    graph = helper.make_graph(nodes, "kernel", inputs, [_value(nodes[-1].output[0], None)])
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    return model.SerializeToString()


def _value(name: str, shape: list[int] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _nodes(call: Call, given: list[str], out: str) -> Iterator[NodeProto]:
    """What the exported file holds for an operator, from the values `given` to `out`."""
    make: Any = helper.make_node
    target, arguments = call.target, call.arguments
    match target:
        case aten.layer_norm.default:
            axes, epsilon = arguments[1], arguments[4] if len(arguments) > 4 else 1e-5
            if len(given) == 1:
                ones = helper.make_tensor("ones", TensorProto.FLOAT, axes, [1.0] * math.prod(axes))
                yield make("Constant", [], ["ones"], value=ones)
                given = [*given, "ones"]
            yield make("LayerNormalization", given, [out], axis=-len(axes), epsilon=epsilon)
        case aten.softmax.int:
            yield make("Softmax", given, [out], axis=arguments[1])
        case aten.gelu.default:
            yield make("Gelu", given, [out], approximate=call.keywords.get("approximate", "none"))
        case aten.silu.default:
            yield make("Sigmoid", given, ["gate"])
            yield make("Mul", [*given, "gate"], [out])
        case aten.conv2d.default:
            yield make("Conv", given, [out], **_window(*arguments[3:]))
        case aten.linear.default if arguments[0].ndim == 2:
            yield make("Gemm", given, [out], transB=1)
        case aten.linear.default:
            product = "product" if len(given) == 3 else out
            yield make("Transpose", [given[1]], ["turned"])
            yield make("MatMul", [given[0], "turned"], [product])
            if len(given) == 3:
                yield make("Add", [product, given[2]], [out])
        case aten.matmul.default:
            yield make("MatMul", given, [out])
        case aten.adaptive_avg_pool2d.default:
            yield make("GlobalAveragePool", given, [out])
        case aten.mean.dim if len(arguments) > 2 and arguments[2]:
            yield make("GlobalAveragePool", given, [out])
        case aten.mean.dim:
            yield make("GlobalAveragePool", given, ["pooled"])
            yield make("Flatten", ["pooled"], [out])
        case aten.hardsigmoid.default:
            yield make("HardSigmoid", given, [out], alpha=1 / 6)
        case _:
            yield make(_ELEMENTWISE[target], given, [out])


def _window(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> dict[str, Any]:
    """Attributes of a two-dimensional convolution."""
    return {
        "strides": _pair(stride),
        "pads": _pair(padding) * 2,
        "dilations": _pair(dilation),
        "group": groups,
    }


def _pair(value: Any) -> list[int]:
    pair = [value] * 2 if isinstance(value, int) else list(value)
    return pair * 2 if len(pair) == 1 else pair
