"""Where a file leaves its simulation: named values of both, compared in graph order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx, nn

from roadworthy.core.predict import Inputs
from roadworthy.deploy.rows import in_rows
from roadworthy.deploy.runtimes import open_session
from roadworthy.deploy.translate import dynamic_export

_SMALL, _SHARE = 0.02, 0.1
_QUANTIZERS = ("QuantizeLinear", "Clip", "DequantizeLinear")


@dataclass(frozen=True)
class Break:
    """The operator of a file whose output left the simulated one, and by how much (relative)."""

    op: str
    name: str
    error: float

    def __str__(self) -> str:
        return f"{self.op} {self.name!r} (relative error {self.error:.1%})"


def first_break(module: nn.Module, path: Path, images: Inputs) -> Break | None:
    """The first operator whose output is off; None where nothing is.

    Reading a value keeps a runtime from fusing across it. So the quantizers are compared first,
    behind which fusion goes on, and then, one value at a time, the operators in front of the first
    bad quantizer. Where those are right by themselves, it is their fused kernel that is wrong.
    """
    simulated = module_values(module, images)
    model = onnx.load(str(path))
    kinds = {out: node.op_type for node in model.graph.node for out in node.output}
    named = [name for name in kinds if name in simulated]
    quantizers = [name for name in named if kinds[name] == "DequantizeLinear"]
    coarse = _first_bad(simulated, file_values(model, quantizers, images))
    span = named if coarse is None else _span(named, quantizers, coarse[0])
    fine = _first_bad(simulated, file_values(model, span, images))
    match fine, coarse:
        case (str(name), float(error)), _ if kinds[name] != "DequantizeLinear":
            return Break(kinds[name], name, error)
        case _, (str(name), float(error)):
            return Break(*_producer(model, name), error)
        case _:
            return None


def module_values(module: nn.Module, images: Inputs) -> dict[str, Tensor]:
    """Every floating-point value inside `module`, under the name that the ONNX file gives it."""
    with torch.no_grad():
        graph = dynamic_export(in_rows(module), images).module(check_guards=False)
        assert isinstance(graph, fx.GraphModule)
        watch = _Watch(graph)
        watch.run(images)
    return watch.values


class _Watch(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.values[n.name] = value
        return value


def file_values(model: onnx.ModelProto, names: Iterable[str], images: Inputs) -> dict[str, Tensor]:
    """The values called `names` in an ONNX model, as onnxruntime computes them."""
    names = list(names)
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    present = {value.name for value in model.graph.output}
    for name in names:
        if name not in present:
            extended.graph.output.append(onnx.ValueInfoProto(name=name))
    session = open_session(extended.SerializeToString())
    feed = {session.get_inputs()[0].name: images.numpy()}
    found = session.run(names, feed) if names else []
    return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}


def relative_error(wanted: Tensor, got: Tensor) -> float:
    """Root mean square of the difference over that of `wanted`; infinite for unlike shapes.

    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    0.1
    """
    if wanted.shape != got.shape:
        return float("inf")
    norm = float(wanted.norm()) or 1.0
    return round(float((wanted - got).norm()) / norm, 6)


def _first_bad(simulated: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[str, float] | None:
    """The first value off by 2 % and by a tenth of the worst: rounding ties drift below that."""
    errors = {name: relative_error(simulated[name], value) for name, value in found.items()}
    limit = max([_SMALL, *(_SHARE * error for error in errors.values() if error < float("inf"))])
    return next(((name, error) for name, error in errors.items() if not error <= limit), None)


def _span(named: list[str], quantizers: list[str], bad: str) -> list[str]:
    """The values after the last good quantizer, up to the bad one."""
    index = quantizers.index(bad)
    start = named.index(quantizers[index - 1]) + 1 if index else 0
    return named[start : named.index(bad) + 1]


def _producer(model: onnx.ModelProto, name: str) -> tuple[str, str]:
    """The operator in front of quantizer `name`: the one that a runtime fuses with it."""
    makers = {out: node for node in model.graph.node for out in node.output}
    node = makers[name]
    while node.op_type in _QUANTIZERS and node.input[0] in makers:
        node = makers[node.input[0]]
    return node.op_type, node.output[0]
