"""Biases on the grid on which integer kernels add them.

A runtime adds the bias to its integer sums, so it rounds it to input scale times weight scale. At
8 bits nobody notices; with 2-bit activations that step is wide enough to move one value of 200
across a rounding border (measured on a small random net), and a simulation with the exact bias
would no longer tell what the file does. Rounding the simulated bias the same way keeps them equal.
"""

import operator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx

from roadworthy.core.grid import ops
from roadworthy.deploy.weights import Meeting, plan

aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.linear.default)
CARRIERS = (
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.roll.default,
    aten.pad.default,
)
"""Operators behind which a quantizer's values are still on its grid (padding is with zeros)."""


def snap_biases(module: fx.GraphModule) -> int:
    """Round, in place, the biases of convolutions and linears between quantized operands.

    Call it on the frozen graph before simulating and exporting. Returns how many it rounded.
    """
    return sum(_snap(module, node) for node in module.graph.nodes if node.target in _LAYERS)


def _snap(module: fx.GraphModule, node: fx.Node) -> bool:
    data, weight, bias = [*node.args, None][:3]
    source = cast(fx.Node, data)
    while source.target in CARRIERS:
        source = cast(fx.Node, source.args[0])
    quantized = isinstance(weight, fx.Node) and weight.target is ops.dequantize.default
    if source.target is not ops.fake_quantize.default or not quantized:
        return False
    if not isinstance(bias, fx.Node) or bias.op != "get_attr":
        return False
    step = _value(module, source.args[1]).double() * weight_step(module, node, source)
    value = _value(module, bias)
    if step.numel() != value.numel():
        return False
    with torch.no_grad():
        value.copy_(torch.round(value.double() / step) * step)
    return True


def weight_step(module: fx.GraphModule, node: fx.Node, source: fx.Node) -> Tensor:
    """Scale of the weight as the runtime holds it: finer where a byte has bits to spare."""
    codes, scale, zero, axis, bits = cast(fx.Node, node.args[1]).args
    numbers = _value(module, codes)
    offsets = _value(module, zero).expand(numbers.shape[int(cast(int, axis))]).numpy()
    shape = [-1] + [1] * (numbers.ndim - 1)
    centred = numbers.numpy().astype(np.int32) - offsets.astype(np.int32).reshape(shape)
    ends = source.args[3:5] if source.target is ops.fake_quantize.default else (0, 255)
    low, high = (int(cast(int, end)) for end in ends)
    groups = int(cast(int, node.args[6])) if len(node.args) > 6 else 1
    depthwise = numbers.ndim == 4 and groups == len(numbers) and numbers.shape[1] == 1
    meeting = Meeting(high + 128 if low < 0 else high, depthwise)
    target = plan(centred, offsets, 0, int(cast(int, bits)), meeting)
    return _value(module, scale).double() / (1 if target is None else target.factor)


def _value(module: fx.GraphModule, node: Any) -> Tensor:
    return operator.attrgetter(str(node.target))(module)
