"""Outlier Suppression+ (arXiv 2304.09145): a shift and a scale per channel of every norm.

The shift puts the middle of a channel's values at zero; the scale cuts channels that reach further
than a threshold down to it. Every norm's threshold is the one with which what reads the norm, both
sides of its products quantized, comes closest to what it computes in floating point: the result of
attention behind q, k and v, the activation behind fc1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.compress.outliers import watch_norms
from roadworthy.compress.ranges import (
    RangeMethod,
    activation_range,
    histogram,
    mse_range,
    weight_range,
)
from roadworthy.compress.readers import Reads, gamma_of, value_of
from roadworthy.compress.shift import scalable, shiftable
from roadworthy.core.fold import attribute
from roadworthy.core.grid import Grid, along, fake_quantize, quantize
from roadworthy.core.padding import shortened, tokens_of
from roadworthy.core.predict import Inputs

aten = torch.ops.aten
SAMPLES = 32
"""Samples that thresholds are searched on; the channels' ends are those of all of them."""
SILENT = 1e-3
"""Of the median channel's reach: no threshold is lower."""


@dataclass(frozen=True)
class Written:
    """How weights and activations will be quantized."""

    weights: Grid
    activations: Grid
    weight_range: RangeMethod
    act_range: RangeMethod
    exponent: float


@dataclass(frozen=True)
class Found:
    """Of one norm: the errors by threshold, and shift and scale at the best one."""

    losses: dict[float, float]
    shift: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]

    @property
    def threshold(self) -> float:
        """The one of least error."""
        return min(self.losses, key=lambda t: self.losses[t])


@torch.no_grad()
def search(graph: fx.GraphModule, inputs: Inputs, written: Written, steps: int) -> dict[str, Found]:
    """Shift and scale of every norm that can be scaled, by the name of its gamma.

    Args:
        graph: from `roadworthy.core.capture.capture`; not changed.
        inputs: calibration samples; padding does not count.
        written: how both sides will be quantized.
        steps: thresholds tried per norm, evenly spaced on a logarithmic scale.
    """
    stretches = _stretches(graph)
    spans = _spans(graph, inputs, stretches)
    losses = {gamma: dict.fromkeys(span.thresholds(steps), 0.0) for gamma, span in spans.items()}
    given = shortened(inputs[:SAMPLES])
    floats = _Floats(graph, stretches.values())
    floats.run(given)
    for norm, stretch in stretches.items():
        gamma = gamma_of(norm) or ""
        for t in losses[gamma]:
            tried = _Tried(graph, stretch, spans[gamma].shift, spans[gamma].scale(t), written)
            losses[gamma][t] += tried.error(floats.kept, given)
    best = {gamma: min(tried, key=lambda t: tried[t]) for gamma, tried in losses.items()}
    return {g: Found(losses[g], spans[g].shift, spans[g].scale(best[g])) for g in best}


@dataclass(frozen=True)
class _Span:
    """The middle of every channel, 0 where it cannot be shifted, and its reach to both sides."""

    shift: Float[Tensor, " d"]
    reach: Float[Tensor, " d"]

    def thresholds(self, steps: int) -> list[float]:
        low = max(float(self.reach.quantile(0.05)), SILENT * float(self.reach.median()), 1e-12)
        top = max(float(self.reach.max()), low)
        return [top * (low / top) ** (i / max(1, steps - 1)) for i in range(steps)]

    def scale(self, threshold: float) -> Tensor:
        return (self.reach / threshold).clamp(min=1)


def _spans(
    graph: fx.GraphModule, inputs: Inputs, stretches: Mapping[fx.Node, "_Stretch"]
) -> dict[str, _Span]:
    """Of every norm's channels; norms that share a gamma count together."""
    ends = dict[str, tuple[Tensor, Tensor]]()
    still = {gamma_of(norm) for norm in stretches} - {gamma_of(norm) for norm in shiftable(graph)}
    named = {gamma_of(norm) for norm in stretches}

    def keep(norm: fx.Node, values: Tensor, _: Tensor) -> None:
        gamma, low, high = gamma_of(norm), values.amin(0).double(), values.amax(0).double()
        if gamma in named:
            before = ends.get(gamma or "", (low, high))
            ends[gamma or ""] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    watch_norms(graph, inputs, keep)
    found = dict[str, _Span]()
    for gamma, (low, high) in ends.items():
        z = torch.zeros_like(low) if gamma in still else (low + high) / 2
        found[gamma] = _Span(z, torch.maximum(high - z, z - low))
    return found


@dataclass(frozen=True)
class _Stretch:
    """From a norm to what reads the results of its linears: nodes in order, and the last ones."""

    norm: fx.Node
    linears: frozenset[fx.Node]
    nodes: tuple[fx.Node, ...]
    ends: tuple[fx.Node, ...]


def _stretches(graph: fx.GraphModule) -> dict[fx.Node, _Stretch]:
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    return {norm: _stretch(norm, reads, order) for norm, reads in scalable(graph).items()}


def _stretch(norm: fx.Node, reads: Reads, order: Mapping[fx.Node, int]) -> _Stretch:
    linears = frozenset(reads.linears)
    seen, ends = _between(norm, linears, order), set[fx.Node]()
    todo: list[fx.Node] = list(linears)
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if any(_is_end(user, linears) for user in node.users):
            ends.add(node)
        else:
            todo.extend(user for user in node.users if isinstance(user.meta.get("val"), Tensor))
    ordered, last = (tuple(sorted(n, key=order.__getitem__)) for n in (seen, ends))
    return _Stretch(norm, linears, ordered, last)


def _between(
    norm: fx.Node, linears: frozenset[fx.Node], order: Mapping[fx.Node, int]
) -> set[fx.Node]:
    """What lies between a norm and its linears."""
    behind, ahead = {norm}, set[fx.Node](linears)
    for node in order:
        if any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    for node in reversed(list(order)):
        if any(user in ahead for user in node.users):
            ahead.add(node)
    return (behind & ahead) - {norm} - linears


def _is_end(user: fx.Node, linears: frozenset[fx.Node]) -> bool:
    """Whether a stretch ends in front of `user`: the next weight, norm, or the end of it all."""
    weighted = user.target is aten.linear.default and user not in linears
    return weighted or user.target is aten.layer_norm.default or user.op == "output"


class _Floats(fx.Interpreter):
    """Runs the float graph and keeps what stretches begin with, read and end in."""

    def __init__(self, graph: fx.GraphModule, stretches: Iterable[_Stretch]) -> None:
        super().__init__(graph)
        self.kept = dict[fx.Node, Any]()
        self.wanted = set[fx.Node]()
        for each in stretches:
            read = {source for node in each.nodes for source in node.all_input_nodes}
            self.wanted |= {each.norm, *each.ends} | (read - set(each.nodes))

    def run_node(self, n: fx.Node) -> Any:
        """Run it; keep what is wanted."""
        result = super().run_node(n)
        if n in self.wanted:
            self.kept[n] = result
        return result


class _Tried:
    """One norm with one shift and scale, both sides of what it multiplies quantized."""

    def __init__(
        self, graph: fx.GraphModule, stretch: _Stretch, z: Tensor, s: Tensor, written: Written
    ) -> None:
        kind = value_of(stretch.norm).dtype
        self.stretch, self.z, self.s, self.written = stretch, z.to(kind), s.to(kind), written
        self.runner = fx.Interpreter(graph)
        self.changed = {linear: self._weight(graph, linear) for linear in stretch.linears}

    def _weight(self, graph: fx.GraphModule, linear: fx.Node) -> tuple[Tensor, Tensor]:
        """The quantized columns, scaled back, and what a bias in floating point makes up for."""
        weight = attribute(graph, linear.args[1])
        assert weight is not None
        grid, wide = self.written.weights, weight * self.s
        # Thresholds are told apart without the last percent, and a square is cheaper than a power.
        if self.written.weight_range == "mse":
            scale, zero = mse_range(wide, grid, exponent=2.0, refined=False)
        else:
            scale, zero = weight_range(wide, grid, self.written.weight_range)
        codes = quantize(wide, scale, zero, grid)
        narrow = (codes - along(zero, 0, 2)) * along(scale, 0, 2) / self.s
        bias = attribute(graph, linear.args[2]) if len(linear.args) > 2 else None
        return narrow, (weight - narrow) @ self.z + (0 if bias is None else bias)

    def error(self, floats: Mapping[fx.Node, Tensor], given: Inputs) -> float:
        """Squared error at the ends of the stretch, without padding."""
        values = dict(floats)
        values[self.stretch.norm] = self._quantized(floats[self.stretch.norm], given)
        self.runner.env = values
        for node in self.stretch.nodes:
            if node in self.changed:
                source = values[node.args[0]]  # pyright: ignore[reportArgumentType]
                values[node] = torch.nn.functional.linear(source, *self.changed[node])
            else:
                values[node] = self.runner.run_node(node)
        return sum(self._distance(values[n], floats[n], given) for n in self.stretch.ends)

    def _quantized(self, x: Tensor, given: Inputs) -> Tensor:
        """The norm's values as linears will read them, shifted and scaled back."""
        narrow, grid = (x - self.z) / self.s, self.written.activations
        seen = histogram([tokens_of(narrow, given)])
        method, exponent = self.written.act_range, self.written.exponent
        scale, zero = activation_range(seen, grid, method, exponent=exponent)
        return fake_quantize(narrow, scale, zero, grid.qmin, grid.qmax) * self.s + self.z

    def _distance(self, got: Tensor, wanted: Tensor, given: Inputs) -> float:
        return float(tokens_of(got - wanted, given).square().sum())


def records(found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """What a record says of each norm; its gamma names it."""
    return [
        {
            "gamma": gamma,
            "threshold": each.threshold,
            "losses": [{"threshold": t, "loss": e} for t, e in each.losses.items()],
            "shift": each.shift.tolist(),
            "scale": each.scale.tolist(),
        }
        for gamma, each in found.items()
    ]
