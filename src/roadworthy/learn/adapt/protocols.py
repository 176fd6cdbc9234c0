"""The ways to adapt a backbone: neighbours, a linear probe, a head, low-rank changes, all of it.

==================  =============================================================================
protocol            what is learned
==================  =============================================================================
`Neighbours`        nothing: the labels of the nearest images vote (classification)
`Linear`            one linear layer on cached features (classification, segmentation, depth)
`Frozen`            the task's head on a backbone that stays as it is
`LowRank`           the head, and a low-rank change of each matrix (LoRA, arXiv 2106.09685)
`Full`              everything
==================  =============================================================================

Each has a choice to make, how many neighbours, which penalty, which rate, and makes it on images
held out of the labelled ones; what is learned in the end is learned from all of them.
"""

from dataclasses import dataclass

from roadworthy.errors import BadInput

HELD = 0.2
"""Share of the labelled images that choose."""


@dataclass(frozen=True)
class Neighbours:
    """Weighted by `exp(cosine / temperature)`, as DINO's (arXiv 2104.14294)."""

    counts: tuple[int, ...] = (1, 5, 10, 20, 50)
    temperature: float = 0.07


@dataclass(frozen=True)
class Linear:
    """Penalties are those of `learn.probe`."""


@dataclass(frozen=True)
class Descent:
    """How a head, and what else may change, is learned by AdamW.

    Args:
        steps: of every trial, and of the last run.
        rates: highest learning rates to choose from, the same number for every backbone.
    """

    steps: int = 200
    batch: int = 32
    rates: tuple[float, ...] = (5e-4, 2e-3, 8e-3)

    def __post_init__(self) -> None:
        if not self.rates:
            raise BadInput("no rate given; an adaptation needs at least one")


@dataclass(frozen=True)
class Frozen:
    """The backbone is in eval mode."""

    descent: Descent = Descent()


@dataclass(frozen=True)
class LowRank:
    """The backbone is in eval mode but for the changes, which are merged into it at the end."""

    descent: Descent = Descent()
    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise BadInput(f"rank {self.rank} given; 1 or more is allowed")


@dataclass(frozen=True)
class Full:
    """Batch norms learn too."""

    descent: Descent = Descent()


Descending = Frozen | LowRank | Full
Protocol = Neighbours | Linear | Descending

NAMES = ("knn", "linear", "frozen", "lora", "full")


def protocol_of(name: str, descent: Descent) -> Protocol:
    """The protocol of a name of `NAMES`.

    >>> protocol_of("knn", Descent()).counts
    (1, 5, 10, 20, 50)
    """
    match name:
        case "knn":
            return Neighbours()
        case "linear":
            return Linear()
        case "frozen":
            return Frozen(descent)
        case "lora":
            return LowRank(descent)
        case "full":
            return Full(descent)
        case _:
            raise BadInput(f"protocol {name!r} given; {', '.join(NAMES)} are allowed")
