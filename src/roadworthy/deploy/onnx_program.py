"""From an exported program to ONNX, without what `torch.onnx.export` does anew on every call.

* It parses its 500 translations, which takes a second: here they are kept.
* It traces the program again to decompose operators, which takes longer than all the rest. Nearly
  every operator of a captured graph has a translation of its own; for the few that have none the
  graph can say the same otherwise (`settle`). Where all have one, there is nothing to decompose.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import fx
from torch.export import ExportedProgram

# What torch.onnx.export itself calls; its public face takes no registry.
from torch.onnx._internal.exporter import _core, _registration

aten = torch.ops.aten

Translations = Mapping[Any, Callable[..., Any]]
_CASTS = {aten.to.device, aten.to.dtype, aten.to.dtype_layout}
_SAME: dict[Any, Any] = {
    aten.__and__.Tensor: aten.bitwise_and.Tensor,
    aten.max.other: aten.maximum.default,
    aten.min.other: aten.minimum.default,
}
_DROPPED = {aten._assert_tensor_metadata.default}


def to_onnx(program: ExportedProgram, own: Translations, opset: int) -> ir.Model:
    """What `torch.onnx.export` makes of `program`, which is changed; `own` adds translations.

    Values are called like the program's nodes.
    """
    registry = _registry(opset, tuple(own.items()))
    if not _mutates(program.graph):
        settle(program.graph)
        if _translated(program.graph, registry):
            program.run_decompositions = (
                lambda decomp_table=None, decompose_custom_triton_ops=False: program
            )
    return _core.export(program, registry=registry, opset_version=opset, verbose=False).model


@cache
def _registry(
    opset: int, own: tuple[tuple[Any, Callable[..., Any]], ...]
) -> _registration.ONNXRegistry:
    registry = _registration.ONNXRegistry.from_torchlib(opset_version=opset)
    for target, translation in own:
        registry.register_op(target, translation)
    return registry


def settle(graph: fx.Graph) -> None:
    """Say with operators that have a translation what some that have none say; names stay.

    Casts to the type that is there already go. The graph must change nothing in place.
    """
    for node in list(graph.nodes):
        if node.target in _CASTS:
            _settle_cast(node)
        elif node.target is aten.adaptive_avg_pool2d.default:
            _settle_pool(node)
        elif node.target in _SAME:
            node.target = _SAME[node.target]


def _settle_cast(node: fx.Node) -> None:
    source, kind = node.all_input_nodes[0], node.meta["val"].dtype
    if source.meta["val"].dtype is not kind:
        node.target, node.args, node.kwargs = aten._to_copy.default, (source,), {"dtype": kind}
    elif all(user.op != "output" for user in node.users):
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)


def _settle_pool(node: fx.Node) -> None:
    if list(cast(Any, node.args[1])) == [1, 1]:
        node.target, node.args = aten.mean.dim, (node.args[0], [-1, -2], True)


def _calls(graph: fx.Graph) -> set[Any]:
    return {node.target for node in graph.nodes if node.op == "call_function"} - _DROPPED


def _mutates(graph: fx.Graph) -> bool:
    schemas = [getattr(target, "_schema", None) for target in _calls(graph)]
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _translated(graph: fx.Graph, registry: _registration.ONNXRegistry) -> bool:
    """Whether every operator has a translation, for real numbers."""
    found = [registry.get_decomps(target) for target in _calls(graph)]
    return all(any(not each.is_complex for each in several) for several in found)
