"""Where the outliers of a text model or a transformer are: which norms, channels and tokens."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx

from roadworthy.core.capture import module_path
from roadworthy.core.padding import (
    DECODED,
    ENCODED,
    by_length,
    shortened,
    text_mask,
    tokens_of,
)
from roadworthy.core.predict import Inputs
from roadworthy.core.units import decoder_nodes

aten = torch.ops.aten
BATCH = 64
WORST = 16
"""Tokens with the largest values that are named."""


Told = Callable[[fx.Node, Float[Tensor, "n d"], Int[Tensor, " n"]], None]
"""Given a norm, its values at some tokens, and their ids (-1 where they are none of a text)."""


@torch.no_grad()
def watch_norms(graph: fx.GraphModule, inputs: Inputs, tell: Told) -> None:
    """Run `graph` on `inputs` and tell what every LayerNorm writes, without padding."""
    watch = _Watch(graph, tell)
    for rows in by_length(inputs, BATCH):
        watch.given = shortened(inputs[rows])
        watch.run(watch.given)


class _Watch(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, tell: Told) -> None:
        super().__init__(graph)
        self.given = torch.empty(0)
        self.tell = tell
        self.decoded = decoder_nodes(graph)

    def run_node(self, n: fx.Node) -> Any:
        """Run it; tell of a norm."""
        result = super().run_node(n)
        if n.target is aten.layer_norm.default:
            row = DECODED if n in self.decoded else ENCODED
            values = tokens_of(result, self.given, row).flatten(0, -2)
            mask = text_mask(self.given, row)
            ids = None if mask is None else self.given[:, row - 1][mask]
            if ids is None or len(ids) != len(values):
                ids = torch.full((len(values),), -1, device=values.device)
            self.tell(n, values, ids)
        return result


def norm_outliers(graph: fx.GraphModule, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """What every LayerNorm of `graph` writes, by its module path.

    Returns:
        ``low`` and ``high`` of all values, ``ratio`` of the largest size to the median one of the
        tokens' largest, ``channel`` of it, and of texts the ids of the ``tokens`` that carry the 16
        largest, with their number.
    """
    found: dict[str, list[tuple[Tensor, ...]]] = {}

    def keep(norm: fx.Node, values: Tensor, ids: Tensor) -> None:
        size, channel = values.abs().max(-1)
        stack = module_path(norm)
        told = (values.amin(-1), values.amax(-1), size, channel, ids)
        found.setdefault(stack[-1][0] if stack else norm.name, []).append(told)

    watch_norms(graph, inputs, keep)
    joined = {name: map(torch.cat, zip(*parts, strict=True)) for name, parts in found.items()}
    return {name: _summary(*columns) for name, columns in joined.items()}


def _summary(
    low: Float[Tensor, " n"],
    high: Float[Tensor, " n"],
    size: Float[Tensor, " n"],
    channel: Int[Tensor, " n"],
    ids: Int[Tensor, " n"],
) -> dict[str, Any]:
    worst = size.topk(min(WORST, len(size))).indices
    tokens = Counter(ids[worst].tolist()).most_common(3)
    return {
        "low": float(low.min()),
        "high": float(high.max()),
        "ratio": float(size.max() / size.median().clamp(min=1e-12)),
        "channel": int(channel[worst[0]]),
        "tokens": [[token, count] for token, count in tokens if token >= 0],
    }
