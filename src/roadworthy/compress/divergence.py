"""How far a network's answers are from those of its float form, in nats."""

from jaxtyping import Float
from torch import Tensor


def divergence(fp: Float[Tensor, "*n k"], low: Float[Tensor, "*n k"]) -> float:
    """Kullback-Leibler divergence of the answers, averaged over the samples.

    Logits are those of classes, or of the tokens that answers start and end at. One number alone is
    the mean of a normal of variance one, whose divergence is half the squared difference.

    >>> import torch
    >>> divergence(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    2.0
    """
    if fp.shape[-1] == 1:
        return float((fp - low).square().mean() / 2)
    log_p, log_q = fp.log_softmax(-1), low.log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
