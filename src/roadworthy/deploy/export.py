"""A quantized module becomes an ONNX file with integer weights, or nothing at all."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import nn

from roadworthy.core.predict import Inputs
from roadworthy.core.runs import write_atomically
from roadworthy.deploy.activations import emit_activation
from roadworthy.deploy.rows import in_rows
from roadworthy.deploy.tidy import before_quantizers, quantize_gemm_biases
from roadworthy.deploy.translate import DOMAIN, translate
from roadworthy.deploy.weights import emit_weight


@dataclass(frozen=True)
class OnnxFacts:
    """What was written: operator set, bytes of the file, nodes per operator."""

    opset: int
    bytes: int
    ops: dict[str, int]


def export_onnx(module: nn.Module, example: Inputs, path: Path, widen: bool = True) -> OnnxFacts:
    """Write `module` to `path`; the file appears whole or not at all.

    Args:
        module: a graph of aten operators with ``roadworthy::fake_quantize`` and
            ``roadworthy::dequantize``; a float module is written as it is.
        example: one or more images; the batch is dynamic in the file, of texts the length too.
        path: the ONNX file, replaced if it exists.
        widen: shape the file for CPU runtimes: packed weights become bytes when they load it, which
            gives them integer kernels below 8 bits, and signed activations become unsigned. False
            keeps types and codes as they are in `module` (for accelerators that read them so).

    Raises:
        BadModel: torch refuses the module, or a quantizer's grid has no place in ONNX.
    """
    model = build(module, example, widen)
    with write_atomically(path) as part:
        ir.save(model, part)
        onnx.checker.check_model(str(part))
        size = part.stat().st_size
    ops = Counter(node.op_type for node in model.graph)
    return OnnxFacts(model.opset_imports[""], size, dict(sorted(ops.items())))


def build(module: nn.Module, example: Inputs, widen: bool = True) -> ir.Model:
    """The ONNX model in memory; values keep the names of the module's graph nodes."""
    with torch.no_grad():
        model = translate(in_rows(module) if widen else module, example)
    graph = model.graph
    before_quantizers(graph)
    for node in _placeholders(graph, "Dequantize"):
        emit_weight(node, widen)
    for node in _placeholders(graph, "FakeQuantize"):
        emit_activation(node, unsigned=widen)
    quantize_gemm_biases(graph)
    model.opset_imports.pop(DOMAIN, None)
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    graph.inputs[0].name = "images" if example.is_floating_point() else "tokens"
    graph.outputs[0].name = "logits"
    return model


def _placeholders(graph: ir.Graph, name: str) -> list[ir.Node]:
    return [node for node in graph if node.domain == DOMAIN and node.op_type == name]
