"""What is done about the outliers of norms before ranges are looked for, chosen by type."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import fx

from roadworthy.compress.migrate import Migration, migrate
from roadworthy.compress.smooth import same_shape, smooth
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


Suppress = GammaMigration | Smooth


def suppress(graph: fx.GraphModule, inputs: Inputs, how: Suppress) -> tuple[Migration, ...]:
    """Change, in place, what the norms of a captured graph write; its function stays."""
    match how:
        case GammaMigration():
            return migrate(graph)
        case Smooth(alpha):
            return smooth(graph, inputs, alpha)


def suppressed_shape(graph: fx.GraphModule, settings: dict[str, Any]) -> None:
    """Give a graph, in place, the nodes and names that `suppress` gave the one whose method was
    saved as `settings`; numbers come from the saved tensors."""
    kind = (settings.get("suppress") or {}).get("kind")
    # Directories written before `suppress` was one field hold two.
    if kind == "gamma-migration" or settings.get("migrate"):
        migrate(graph)
    elif kind == "smooth" or settings.get("smooth") is not None:
        same_shape(graph)
