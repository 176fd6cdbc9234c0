"""How far to go: weights between where a stage began and where it ended (arXiv 2109.01903).

A stage that goes on from experts may lose what one of them could. Of several points on the straight
line from the first weights to the last, the one is taken at which the worst task, on images kept
for the choice, has gained most over the start. The start is among them, so none falls there. What
is compared are losses: metrics of a few hundred images jump by more than there is to be gained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from roadworthy.core.progress import track
from roadworthy.errors import BadInput
from roadworthy.learn.backbones import Backbone
from roadworthy.learn.batches import Source
from roadworthy.learn.tasks import held_out_loss

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Blend:
    """What was chosen, and every share's gains: how much smaller each judge's loss is than at the
    start, as a share of it.
    """

    share: float
    gains: Mapping[float, tuple[float, ...]]


def between(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """Weights and running statistics at a share of the way; counters are those of the end.

    >>> import torch
    >>> a, b = {"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([2.0, 4.0])}
    >>> between(a, b, 0.25)["w"].tolist()
    [0.5, 4.0]
    """
    return {
        name: each.lerp(end[name], share) if each.is_floating_point() else end[name]
        for name, each in start.items()
    }


def best(gains: Mapping[float, Sequence[float]]) -> float:
    """The share whose worst gain is largest; of equal ones the larger mean.

    >>> best({0.0: (0.0, 0.0), 0.5: (0.01, 0.2), 1.0: (-0.1, 0.5)})
    0.5
    """
    return max(gains, key=lambda share: (min(gains[share]), sum(gains[share])))


def blend(
    learner: nn.Module, start: Weights, judges: Sequence[tuple[Backbone, nn.Module, Source]]
) -> Blend:
    """Put `learner` at the best share of its way, and say which it is.

    Args:
        start: its weights before it learned.
        judges: backbone and head, both parts of `learner`, and images that choose.

    Raises:
        BadInput: no judges.
    """
    if not judges:
        raise BadInput("no images to choose by given; one source of a head's classes is needed")
    end = {name: each.clone() for name, each in learner.state_dict().items()}
    found: dict[float, list[float]] = {}
    for share in track(SHARES, "choosing how far to go", len(SHARES)):
        learner.load_state_dict(between(start, end, share))
        found[share] = [held_out_loss(body, head, source) for body, head, source in judges]
    first = found[SHARES[0]]
    gains = {
        share: tuple(1 - now / before for before, now in zip(first, each, strict=True))
        for share, each in found.items()
    }
    chosen = best(gains)
    learner.load_state_dict(between(start, end, chosen))
    return Blend(chosen, gains)
