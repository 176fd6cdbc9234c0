"""Where the outliers of a text model or a transformer are: which norms, channels and tokens."""

from collections import Counter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx

from roadworthy.core.capture import module_path
from roadworthy.core.padding import by_length, shortened, text_mask, tokens_of
from roadworthy.core.predict import Inputs

aten = torch.ops.aten
BATCH = 64
WORST = 16
"""Tokens with the largest values that are named."""


@torch.no_grad()
def norm_outliers(graph: fx.GraphModule, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """What every LayerNorm of `graph` writes, by its module path.

    Returns:
        ``low`` and ``high`` of all values, ``ratio`` of the largest size to the median one of the
        tokens' largest, ``channel`` of it, and of texts the ids of the ``tokens`` that carry the 16
        largest, with their number.
    """
    watch = _Watch(graph)
    for rows in by_length(inputs, BATCH):
        x = shortened(inputs[rows])
        watch.given = x
        watch.run(x)
    return {
        name: _summary(*map(torch.cat, zip(*parts, strict=True)))
        for name, parts in watch.found.items()
    }


class _Watch(fx.Interpreter):
    """Keeps per token what is extreme of a norm's result."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.given = torch.empty(0)
        self.found: dict[str, list[tuple[Tensor, ...]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run it; of a norm, note each token's extremes, worst channel and id."""
        result = super().run_node(n)
        if n.target is aten.layer_norm.default:
            values = tokens_of(result, self.given).flatten(0, -2)
            size, channel = values.abs().max(-1)
            mask = text_mask(self.given)
            ids = None if mask is None else self.given[:, 0][mask]
            if ids is None or len(ids) != len(size):
                ids = torch.full_like(channel, -1)
            stack = module_path(n)
            name = stack[-1][0] if stack else n.name
            told = (values.amin(-1), values.amax(-1), size, channel, ids)
            self.found.setdefault(name, []).append(told)
        return result


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
