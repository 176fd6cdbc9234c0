"""What is done about the outliers of norms before ranges are looked for, chosen by type."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx

from roadworthy.compress.migrate import Migration, migrate
from roadworthy.compress.readers import gamma_of
from roadworthy.compress.shift import shift
from roadworthy.compress.smooth import smooth
from roadworthy.compress.thresholds import Found, Written, search
from roadworthy.core.predict import Inputs
from roadworthy.errors import BadInput


@dataclass(frozen=True)
class GammaMigration:
    """Gains of LayerNorms move into the linears behind them (arXiv 2209.13325)."""

    kind: Literal["gamma-migration"] = "gamma-migration"


@dataclass(frozen=True)
class Smooth:
    """Channels of LayerNorms are traded for columns of the linears behind them, as far as `alpha`
    says (arXiv 2211.10438)."""

    alpha: float = 0.5
    kind: Literal["smooth"] = "smooth"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise BadInput(f"a smoothing alpha of {self.alpha} given; 0 to 1 is allowed")


@dataclass(frozen=True)
class ShiftScale:
    """Channels of LayerNorms are shifted to their middle and cut down to a threshold, the best of
    `thresholds` per norm (Outlier Suppression+, arXiv 2304.09145)."""

    thresholds: int = 12
    kind: Literal["shift-scale"] = "shift-scale"

    def __post_init__(self) -> None:
        if self.thresholds < 1:
            raise BadInput(f"{self.thresholds} thresholds given; at least 1 is needed")


Suppress = GammaMigration | Smooth | ShiftScale


@dataclass(frozen=True)
class Moved:
    """What became of the norms, and what a search for thresholds found."""

    migrations: tuple[Migration, ...] = ()
    searched: dict[str, Found] = field(default_factory=dict[str, Found])


def suppress(graph: fx.GraphModule, inputs: Inputs, how: Suppress, written: Written) -> Moved:
    """Change, in place, what the norms of a captured graph write; its function stays."""
    match how:
        case GammaMigration():
            return Moved(migrate(graph))
        case Smooth(alpha):
            return Moved(smooth(graph, inputs, alpha))
        case ShiftScale(thresholds):
            found = search(graph, inputs, written, thresholds)
            shift(graph, {gamma: each.shift for gamma, each in found.items()})
            return Moved(migrate(graph, {g: each.scale for g, each in found.items()}), found)


def suppressed_shape(graph: fx.GraphModule, settings: dict[str, Any]) -> None:
    """Give a graph, in place, the nodes and names that `suppress` gave the one whose method was
    saved as `settings`; numbers come from the saved tensors."""
    kind = (settings.get("suppress") or {}).get("kind")
    # Directories written before `suppress` was one field hold two.
    if kind == "gamma-migration" or settings.get("migrate"):
        migrate(graph)
    elif kind == "shift-scale":
        shift(graph, _every_norm(graph, 1.0))
        migrate(graph, _every_norm(graph, 2.0))
    elif kind == "smooth" or settings.get("smooth") is not None:
        migrate(graph, _every_norm(graph, 2.0))


def _every_norm(graph: fx.GraphModule, value: float) -> dict[str, Tensor]:
    named = {gamma_of(node): node for node in graph.graph.nodes}
    wide = {g: node.meta["val"].shape[-1] for g, node in named.items() if g is not None}
    return {gamma: torch.full((width,), value) for gamma, width in wide.items()}
