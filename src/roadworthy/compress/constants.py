"""New constants of a captured graph."""

from collections.abc import Hashable

from torch import Tensor, fx

from roadworthy.core.fold import add_buffer


class Constants:
    """One constant for all the places that ask for the same."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self._made: dict[tuple[Hashable, ...], str] = {}

    def put(self, reader: fx.Node, position: int, key: tuple[Hashable, ...], value: Tensor) -> None:
        """Let `reader` read `value` at `position`; `key` says what it is, its first part names
        it."""
        if key not in self._made:
            self._made[key] = add_buffer(self.graph, str(key[0]), value)
        with self.graph.graph.inserting_before(reader):
            node = self.graph.graph.get_attr(self._made[key])
        reader.args = (*reader.args[:position], node, *reader.args[position + 1 :])
