"""Float operators as the runtime computes them.

torch and onnxruntime agree on sums and products of two numbers, not on LayerNorm, softmax, GELU or
float convolutions: a sixth to a half of their results differ in the last bit (measured on 300 000
Gaussian values, onnxruntime 1.32). A quantizer behind them turns that into other codes, one in
10^5, and twelve transformer blocks turn these into other logits. A simulation that is to tell what
a file does takes such operators from the runtime, one by one; all else it computes by itself.
"""

import math
from typing import Any

import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

from roadworthy.deploy.runtimes import open_session

aten = torch.ops.aten
_OPSET, _IR_VERSION = 20, 10
_ELEMENTWISE = {
    aten.sigmoid.default: "Sigmoid",
    aten.tanh.default: "Tanh",
    aten.hardsigmoid.default: "HardSigmoid",
    aten.hardswish.default: "HardSwish",
}
ROUNDED_DIFFERENTLY = {
    *_ELEMENTWISE,
    aten.layer_norm.default,
    aten.softmax.int,
    aten.gelu.default,
    aten.silu.default,
    aten.conv2d.default,
    aten.linear.default,
    aten.matmul.default,
}
"""Operators whose results depend on who computes them, though their operands are the same."""


class Kernels:
    """Runs aten operators on onnxruntime, each in a session of its own that is kept."""

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    def __call__(self, target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """``target(*arguments, **keywords)``."""
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        plain = [a.ndim if isinstance(a, Tensor) else a for a in arguments]
        key = repr((target, plain, keywords))
        if key not in self._sessions:
            nodes = _nodes(target, arguments, keywords)
            self._sessions[key] = open_session(_model(nodes), torch.get_num_threads())
        feed = {name: tensor.numpy() for name, tensor in zip("abc", tensors, strict=False)}
        return torch.from_numpy(self._sessions[key].run(None, feed)[0])


def _model(nodes: list[NodeProto]) -> bytes:
    """The file of `nodes`, whose inputs are called a, b, c and whose output y."""
    names = sorted({name for node in nodes for name in node.input} & set("abc"))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "kernel", inputs, outputs)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    return model.SerializeToString()


def _nodes(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[NodeProto]:
    """What the exported file holds for this operator."""
    make: Any = helper.make_node
    given = list("abc")[: sum(isinstance(argument, Tensor) for argument in arguments)]
    match target:
        case aten.layer_norm.default:
            axes, epsilon = arguments[1], arguments[4] if len(arguments) > 4 else 1e-5
            ones = helper.make_tensor("ones", TensorProto.FLOAT, axes, [1.0] * math.prod(axes))
            scale = [] if len(given) > 1 else [make("Constant", [], ["ones"], value=ones)]
            inputs = given if len(given) > 1 else ["a", "ones"]
            norm = make("LayerNormalization", inputs, ["y"], axis=-len(axes), epsilon=epsilon)
            return [*scale, norm]
        case aten.softmax.int:
            return [make("Softmax", given, ["y"], axis=arguments[1])]
        case aten.gelu.default:
            return [make("Gelu", given, ["y"], approximate=keywords.get("approximate", "none"))]
        case aten.silu.default:
            return [make("Sigmoid", given, ["s"]), make("Mul", [*given, "s"], ["y"])]
        case aten.conv2d.default:
            return [make("Conv", given, ["y"], **_window(*arguments[3:]))]
        case aten.linear.default if arguments[0].ndim == 2:
            return [make("Gemm", given, ["y"], transB=1)]
        case aten.linear.default:
            flip, product = make("Transpose", ["b"], ["t"]), ["s"] if "c" in given else ["y"]
            add = [make("Add", ["s", "c"], ["y"])] if "c" in given else []
            return [flip, make("MatMul", ["a", "t"], product), *add]
        case aten.matmul.default:
            return [make("MatMul", given, ["y"])]
        case _:
            return [make(_ELEMENTWISE[target], given, ["y"], **_slope(target))]


def _slope(target: Any) -> dict[str, float]:
    return {"alpha": 1 / 6} if target is aten.hardsigmoid.default else {}


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
