"""What a runtime makes of a file: products that run in integers, and what stays between floats."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import GraphProto, NodeProto

from roadworthy.deploy.runtimes import open_session

INTEGER = {
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}
"""onnxruntime's products of integers."""
FLOAT = {
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gemm",
    "MatMul",
    "MatMulNBits",
}
"""Its products of floats."""
_CARRIED = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Clip"}


@dataclass(frozen=True)
class Fused:
    """Products that compute in integers and in floats; quantizers whose codes nobody computes with
    (QuantizeLinear and DequantizeLinear alone); number of every kernel."""

    integer: int
    float: int
    pairs: int
    ops: dict[str, int]


def fused(path: Path) -> Fused:
    """Of an ONNX file as onnxruntime optimises it for this CPU."""
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "optimised.onnx"
        open_session(str(path), 1, keep=kept)
        graph = onnx.load(str(kept)).graph
    kinds = Counter(node.op_type for node in graph.node)
    integer, floating = (sum(kinds[op] for op in ops) for ops in (INTEGER, FLOAT))
    return Fused(integer, floating, _pairs(graph), dict(sorted(kinds.items())))


def _pairs(graph: GraphProto) -> int:
    """Quantizers of which all readers, behind what moves codes, make floats again."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def read(name: str) -> Iterator[str]:
        for node in readers.get(name, ()):
            if node.op_type in _CARRIED:
                yield from read(node.output[0])
            else:
                yield node.op_type

    made = (node.output[0] for node in graph.node if node.op_type == "QuantizeLinear")
    return sum(set(read(name)) <= {"DequantizeLinear"} for name in made)
