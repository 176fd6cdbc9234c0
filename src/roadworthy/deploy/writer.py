"""Small steps on an ONNX graph: constants, nodes before a place, replacing a node."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from roadworthy.errors import BadModel

Array = npt.NDArray[Any]


class Writer:
    """Writes nodes in front of `place`; names start with `stem`."""

    def __init__(self, place: ir.Node, stem: str) -> None:
        graph = place.graph
        assert isinstance(graph, ir.Graph)
        self._graph, self._place, self._stem = graph, place, stem

    def constant(self, name: str, array: Array) -> ir.Value:
        """An initialiser ``stem.name``, reused where one of that name exists."""
        full = f"{self._stem}.{name}"
        if full in self._graph.initializers:
            return self._graph.initializers[full]
        tensor = ir.Tensor(np.asarray(array, order="C"), name=full)
        value = ir.Value(name=full, const_value=tensor)
        value.shape, value.type = tensor.shape, ir.TensorType(tensor.dtype)
        self._graph.register_initializer(value)
        return value

    def node(
        self, op: str, inputs: list[ir.Value], name: str, attributes: dict[str, Any] | None = None
    ) -> ir.Value:
        """The one output of a new node; the node and the value are called ``stem.name``."""
        return self.insert(ir.node(op, inputs, attributes), name)

    def insert(self, node: ir.Node, name: str) -> ir.Value:
        """The one output of `node`, which is put in front of the place."""
        node.name = node.outputs[0].name = f"{self._stem}.{name}"
        self._graph.insert_before(self._place, node)
        return node.outputs[0]

    def replace(self, value: ir.Value) -> None:
        """Put `value` where the place's output was, under its name, and drop the place."""
        old = self._place.outputs[0]
        name, value.shape, value.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self._graph.remove(self._place, safe=True)
        value.name = name


def array_of(value: ir.Value | None, what: str) -> Array:
    """Numbers of a constant; BadModel where it is computed at run time."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise BadModel(f"{what} is computed in the graph; quantizers export with constants only")
    return tensor.numpy()


def name_of(value: ir.Value) -> str:
    """The value's name."""
    return value.name or "unnamed"


def int_of(node: ir.Node, name: str, default: int = 0) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()
