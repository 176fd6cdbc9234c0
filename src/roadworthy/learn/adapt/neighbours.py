"""The nearest labelled images vote: nothing is learned that could hide what features are worth."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class NeighbourHead(nn.Module):
    """The logarithm of each class's share of the votes of the nearest images.

    Args:
        known: features of labelled images.
        labels: their classes, each of 0 to k - 1.

    >>> head = NeighbourHead(torch.eye(2), torch.tensor([0, 1]), 2, count=1)
    >>> head(torch.tensor([[0.9, 0.1]])).argmax(1).item()
    0
    """

    def __init__(
        self,
        known: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        classes: int,
        count: int,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.register_buffer("known", F.normalize(known, dim=1))
        self.register_buffer("votes", F.one_hot(labels, classes).to(known))
        self.count = count  # a number, which graphs take where a tensor decides nothing
        self.register_buffer("voters", torch.tensor(count))
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits."""
        known, votes = self.get_buffer("known"), self.get_buffer("votes")
        near, which = (F.normalize(pooled, dim=1) @ known.T).topk(self.count)
        weights = (near / self.get_buffer("temperature")).softmax(1)
        return (weights[..., None] * votes[which]).sum(1).clamp(min=1e-6).log()


def best_count(
    known: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    asked: Float[Tensor, "m d"],
    truth: Int[Tensor, " m"],
    counts: Sequence[int],
    temperature: float,
) -> tuple[int, dict[int, float]]:
    """The count of neighbours that finds most of `truth`, the smaller of equal ones; all scores."""
    classes = int(labels.max()) + 1
    usable = [each for each in counts if each <= len(known)] or [len(known)]
    heads = {n: NeighbourHead(known, labels, classes, n, temperature) for n in usable}
    scores = {
        n: float((head(asked).argmax(1) == truth).float().mean()) for n, head in heads.items()
    }
    return max(usable, key=lambda n: scores[n]), scores
