"""The frozen graph as onnxruntime's integer kernels compute it, bit for bit.

Run in floats, a quantized graph differs from the runtime by float rounding alone, about 1e-7 of a
value. That moves one code in 10^5 across a rounding border, every moved code moves others, and
after MobileNetV2's 53 layers at 8 bits the two are as far apart as quantization noise itself
(measured: relative difference 9e-5 at the second layer, 0.29 at the logits; 81 % of 64 photo crops
get the same class). Here integers stay integers. Sums of products of codes are exact in float32
below 2^24 and in float64 above; one float32 multiplication brings them to the next grid, in the
order in which onnxruntime's MLAS does it:

==============  ==================================================================
convolution,    ``round(acc * (s_x * s_w / s_y)) + z_y`` with the bias, rounded to
linear          ``s_x * s_w``, in ``acc``; ``acc * (s_x * s_w)`` where floats follow
matrix product  ``round(acc * (s_a * s_b / s_y)) + z_y``, or ``acc * (s_a * s_b)`` in floats
sum             ``round(fma(a, s_a / s_y, fma(b, s_b / s_y, c)))`` with
                ``c = z_y - fma(s_a / s_y, z_a, s_b / s_y * z_b)``
average pool    ``round(sum(x - z_x) * (s_x / (s_y * n))) + z_y``
ReLU, ReLU6     bounds of the codes that follow
==============  ==================================================================

What is not between two quantizers is computed in floats, as in the file: operators that libraries
round differently by the runtime's own kernels (kernels.py), the rest here. docs/deploy.md lists
the networks whose logits are then those of the file, and the few where single codes still differ.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.core.grid import ops
from roadworthy.core.predict import Inputs
from roadworthy.deploy.bias import CARRIERS, weight_step
from roadworthy.deploy.kernels import ROUNDED_DIFFERENTLY, Call, Kernels
from roadworthy.deploy.rows import by_rows

aten = torch.ops.aten
_EXACT_FLOAT32 = 2**24
_RECTIFIERS = (
    aten.relu.default,
    aten.relu_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
)
_IMAGE_AXES = ([2, 3], [-2, -1], [-1, -2])


@dataclass(frozen=True)
class Codes:
    """Integers less their zero point, as floats, and the grid they lie on."""

    centred: Tensor
    scale: Tensor
    zero: Tensor


@dataclass(frozen=True)
class Sum:
    """An integer result on its way to a grid: `codes` of a scale and zero point gives it there."""

    codes: Callable[[Tensor, Tensor], Tensor]
    low: float = -math.inf
    high: float = math.inf


class IntegerPredictor:
    """A frozen graph as an integer runtime computes it: images in, logits out."""

    def __init__(self, module: fx.GraphModule, name: str = "simulated") -> None:
        self.name = name
        self._module = by_rows(module)
        self._kernels = Kernels()

    def __call__(self, images: Inputs) -> Float[Tensor, " b *k"]:
        """Logits of a batch."""
        with torch.inference_mode():
            return cast(Tensor, Integers(self._module, self._kernels).run(images)).float()


class Integers(fx.Interpreter):
    """Follows the codes beside the floats that they stand for."""

    def __init__(self, module: fx.GraphModule, kernels: Kernels) -> None:
        super().__init__(module)
        self.kernels = kernels
        self.codes: dict[fx.Node, Codes] = {}
        self.sums: dict[fx.Node, Sum] = {}
        self.waiting: dict[fx.Node, Call] = {}

    def run_node(self, n: fx.Node) -> Any:
        """One node in integers where both its sides are, else as it is."""
        if n.op != "call_function":
            return super().run_node(n)
        arguments, keywords = self.fetch_args_kwargs_from_env(n)
        result = self._call(n, arguments, keywords)
        for spent in self.user_to_last_uses.get(n, []):
            self.codes.pop(spent, None)
            self.sums.pop(spent, None)
        return result

    def _call(self, n: fx.Node, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        first = n.args[0] if n.args and isinstance(n.args[0], fx.Node) else n
        call = cast("Callable[..., Any]", n.target)
        match n.target:
            case ops.fake_quantize.default:
                return self._quantize(n, first, *arguments)
            case aten.conv2d.default if self._integers(n) and _requantized(n):
                return self._product(n, first, arguments)
            case aten.linear.default if self._integers(n):
                return self._product(n, first, arguments)
            case aten.matmul.default if self._integers(n):
                return self._product_of_codes(n, *arguments)
            case aten.conv2d.default if _only_added(n):
                self.waiting[n] = Call(n.target, self._as_stored(n, arguments))
                return arguments[0]  # nobody reads it: the sum takes what is waiting
            case aten.add.Tensor if not self.waiting.keys().isdisjoint(n.all_input_nodes):
                given = zip(cast("tuple[fx.Node, ...]", n.args), arguments, strict=True)
                return self.kernels.sum([self.waiting.pop(node, value) for node, value in given])
            case aten.add.Tensor if self._integers(n) and not keywords:
                self._add(n)
            case aten.relu.default | aten.relu_.default if first in self.sums:
                self._bound(n, first, 0.0, math.inf)
            case aten.hardtanh.default | aten.hardtanh_.default if first in self.sums:
                self._bound(n, first, *(arguments[1:3] or (-1.0, 1.0)))
            case aten.adaptive_avg_pool2d.default | aten.mean.dim if _over_the_image(n, arguments):
                if first in self.codes:
                    self._pool(n, first, arguments)
                return self.kernels.run(Call(n.target, arguments, keywords))
            case _ if n.target in CARRIERS and first in self.codes and not _pads_with_a_value(n):
                found = self.codes[first]
                moved = call(found.centred, *arguments[1:], **keywords)
                self.codes[n] = replace(found, centred=moved)
            case _ if n.target in ROUNDED_DIFFERENTLY:
                return self.kernels.run(Call(n.target, self._as_stored(n, arguments), keywords))
            case _:
                pass
        return call(*arguments, **keywords)

    def _integers(self, n: fx.Node) -> bool:
        """Whether both operands are integers."""
        weight = n.args[1]
        known = isinstance(weight, fx.Node) and (
            weight in self.codes or weight.target is ops.dequantize.default
        )
        return known and n.args[0] in self.codes

    def _quantize(
        self, n: fx.Node, source: fx.Node, x: Tensor, scale: Tensor, zero: Tensor, *ends: int
    ) -> Tensor:
        def on_grid(value: Tensor) -> Tensor:
            return (torch.round(value / scale) + zero).clamp(*ends)

        result = self.sums.get(source)
        codes = on_grid(x) if result is None else result.codes(scale, zero).clamp(*ends)
        if result is not None:
            bounds = (on_grid(x.new_tensor(end)) for end in (result.low, result.high))
            codes = codes.clamp(*bounds)
        self.codes[n] = Codes(codes - zero, scale, zero)
        return (codes - zero) * scale

    def _product(self, n: fx.Node, source: fx.Node, arguments: tuple[Any, ...]) -> Tensor:
        x, (weight, step) = self.codes[source], self._weight(n)
        bias: Tensor | None = arguments[2] if len(arguments) > 2 else None
        both = x.scale * step
        added = None if bias is None else torch.round(bias.double() / both.double())
        reach = x.centred.abs().max() * weight.abs().flatten(1).sum(1).max()
        reach = reach + (0 if added is None else added.abs().max())
        kind = torch.float32 if reach < _EXACT_FLOAT32 else torch.float64
        operands = (x.centred.to(kind), weight.to(kind), None if added is None else added.to(kind))
        call = cast("Callable[..., Tensor]", n.target)
        total = call(*operands, *arguments[3:]).float()
        shape = [-1, 1, 1] if n.target is aten.conv2d.default else [-1]

        def onto(scale: Tensor, zero: Tensor) -> Tensor:
            return torch.round(total * (both / scale).view(shape)) + zero

        if _requantized(n):
            self.sums[n] = Sum(onto)
        return total * both.view(shape)

    def _product_of_codes(self, n: fx.Node, a: Tensor, b: Tensor) -> Tensor:
        left, right = (self.codes[cast(fx.Node, argument)] for argument in n.args[:2])
        reach = left.centred.abs().max() * right.centred.abs().max() * a.shape[-1]
        kind = torch.float32 if reach < _EXACT_FLOAT32 else torch.float64
        total = (left.centred.to(kind) @ right.centred.to(kind)).float()
        both = left.scale * right.scale

        def onto(scale: Tensor, zero: Tensor) -> Tensor:
            return torch.round(total * (both / scale)) + zero

        self.sums[n] = Sum(onto)
        return total * both

    def _as_stored(self, n: fx.Node, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """What an operator is computed from in floats, with its weight as the file widens it: a
        finer step times larger codes differs in the last bit unless the factor is a power of 2."""
        weight = n.args[1] if n.target in (aten.conv2d.default, aten.linear.default) else None
        if not isinstance(weight, fx.Node) or weight.target is not ops.dequantize.default:
            return arguments
        centred, scale = self._weight(n)
        shape = [-1] + [1] * (centred.ndim - 1)
        return (arguments[0], centred * scale.view(shape), *arguments[2:])

    def _weight(self, n: fx.Node) -> tuple[Tensor, Tensor]:
        """Centred codes and scale ``[c]`` of a weight as the file widens them."""
        node = cast(fx.Node, n.args[1])
        codes, scale, zero = (self._buffer(argument) for argument in node.args[:3])
        source = cast(fx.Node, n.args[0])
        while source.target in CARRIERS:
            source = cast(fx.Node, source.args[0])
        module = cast(fx.GraphModule, self.module)
        factor = torch.round(scale.double() / weight_step(module, n, source)).float()
        shape = [-1] + [1] * (codes.ndim - 1)
        centred = (codes.float() - zero.float().view(shape)) * factor.view(shape)
        return centred, scale / factor

    def _buffer(self, node: Any) -> Tensor:
        return operator.attrgetter(str(node.target))(self.module)

    def _add(self, n: fx.Node) -> None:
        a, b = (self.codes[cast(fx.Node, argument)] for argument in n.args[:2])

        def onto(scale: Tensor, zero: Tensor) -> Tensor:
            of_a, of_b = a.scale / scale, b.scale / scale
            fixed = zero - _fused(of_a, a.zero, of_b * b.zero)
            first = _fused(b.centred + b.zero, of_b, fixed)
            return torch.round(_fused(a.centred + a.zero, of_a, first))

        self.sums[n] = Sum(onto)

    def _bound(self, n: fx.Node, source: fx.Node, low: float, high: float) -> None:
        held = self.sums[source]
        self.sums[n] = replace(held, low=max(held.low, low), high=min(held.high, high))

    def _pool(self, n: fx.Node, source: fx.Node, arguments: tuple[Any, ...]) -> None:
        held = self.codes[source]
        adaptive = n.target is aten.adaptive_avg_pool2d.default
        keep = adaptive or (len(arguments) > 2 and bool(arguments[2]))
        total = held.centred.sum((2, 3), keepdim=keep)
        count = held.centred[0, 0].numel()

        def onto(scale: Tensor, zero: Tensor) -> Tensor:
            return torch.round(total * (held.scale / (scale * count))) + zero

        self.sums[n] = Sum(onto)


def _over_the_image(n: fx.Node, arguments: tuple[Any, ...]) -> bool:
    """Whether a pool or mean of ``[b c h w]`` is taken over all of h and w."""
    where = [int(size) for size in arguments[1]]
    adaptive = n.target is aten.adaptive_avg_pool2d.default
    return arguments[0].ndim == 4 and (where == [1, 1] if adaptive else where in _IMAGE_AXES)


def _only_added(n: fx.Node) -> bool:
    """Whether a convolution is read by nothing but the sum with another tensor."""
    users = list(n.users)
    if len(users) != 1 or users[0].target is not aten.add.Tensor or users[0].kwargs:
        return False
    return all(isinstance(operand, fx.Node) for operand in users[0].args[:2])


def _pads_with_a_value(n: fx.Node) -> bool:
    return n.target is aten.pad.default and len(n.args) > 3 and bool(n.args[3])


def _requantized(n: fx.Node) -> bool:
    """Whether all that becomes of a layer's results, behind its ReLU, are codes."""
    users = list(n.users)
    if len(users) == 1 and users[0].target in _RECTIFIERS:
        users = list(users[0].users)
    return len(users) == 1 and users[0].target is ops.fake_quantize.default


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c`` rounded once: a code times a float32 is exact in float64."""
    return (a.double() * b.double() + c.double()).float()
