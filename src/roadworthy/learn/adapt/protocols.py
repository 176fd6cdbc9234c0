"""The ways to adapt a backbone: neighbours, a linear probe, a head, low-rank changes, all of it.

==================  =============================================================================
protocol            what is learned
==================  =============================================================================
`Neighbours`        nothing: the labels of the nearest images vote (classification)
`Linear`            one linear layer on cached features (classification, segmentation, depth)
`Frozen`            the task's head on a backbone that stays as it is
`LowRank`           the head, and a low-rank change of each matrix (LoRA, arXiv 2106.09685)
`Full`              everything
`Staged`            the head, then everything
==================  =============================================================================

Each has a choice to make, how many neighbours, which penalty, which rate, and makes it on images
held out of the labelled ones; what is learned in the end is learned from all of them.
"""

from dataclasses import dataclass, replace

from roadworthy.errors import BadInput
from roadworthy.learn.plan import Plan

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
        for rate in self.rates:
            Plan(self.steps, self.batch, rate)  # what it refuses is refused before any work


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
    """Batch norms learn too, so that a batch has two images or more."""

    descent: Descent = Descent()

    def __post_init__(self) -> None:
        if self.descent.batch < 2:
            raise BadInput(
                f"batch {self.descent.batch} given; norms of a batch take 2 images or more"
            )


@dataclass(frozen=True)
class Staged:
    """`Frozen` for half of the steps, then `Full` from there: fine-tuning in stages.

    INTERN (arXiv 2111.08687) adapts by a multi-stage fine-tuning. Its text was not at hand. As it
    is recalled, unverified: a first stage learns from downstream images that a VQ-GAN of the
    upstream images has drawn again, a later one from the images themselves; the "image
    re-representation fine-tuning" of arXiv 2111.12386 (abstract), by some of its authors, is of
    that kind. No such VQ-GAN is at hand either, so nothing is drawn again here.

    Chosen instead: the head is fitted while the backbone stays, so that a head that knows nothing
    yet does not distort the features (arXiv 2202.10054); half of the steps each; both stages on all
    images, in an order of their own, at one rate, which rises and falls in each.
    """

    descent: Descent = Descent()

    def __post_init__(self) -> None:
        if self.descent.steps < 2:
            raise BadInput(f"steps {self.descent.steps} given; two stages take 2 or more")
        Full(self.descent)

    @property
    def stages(self) -> tuple[Frozen, Full]:
        """One after the other; an odd step is the second's.

        >>> [stage.descent.steps for stage in Staged(Descent(steps=7)).stages]
        [3, 4]
        """
        whole, head = self.descent.steps, self.descent.steps // 2
        return (
            Frozen(replace(self.descent, steps=head)),
            Full(replace(self.descent, steps=whole - head)),
        )


Stage = Frozen | LowRank | Full
Descending = Stage | Staged
Protocol = Neighbours | Linear | Descending

NAMES = ("knn", "linear", "frozen", "lora", "full", "staged")


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
        case "staged":
            return Staged(descent)
        case _:
            raise BadInput(f"protocol {name!r} given; {', '.join(NAMES)} are allowed")
