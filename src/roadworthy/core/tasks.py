"""What answers are worth: one task, one metric, all alike to whoever compares two systems.

An answer is the small array that a system gives for one image. Its evidence is what the metric
needs of it; metrics are computed from evidence and from how often each image counts, so that one
bootstrap serves them all.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core.images import Placement

Answer = NDArray[Any]
Evidence = NDArray[np.float64]


@runtime_checkable
class Task(Protocol):
    """One kind of answer and its metric."""

    metric: str
    posts: tuple[str, ...]
    """Other ways to turn outputs into answers."""
    points: float
    """What one unit of the metric is in points: 100 where it is a fraction. Negative where a lower
    metric is better, so that losing is always losing."""

    def answers(self, outputs: Any, places: Sequence[Placement], post: str) -> list[Answer]:
        """What a batch of outputs says, image by image, in coordinates of the image file."""
        ...

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """Per image what the metric needs ``[n ...]``."""
        ...

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """The metric with image i counted ``counts[r, i]`` times, for every r."""
        ...

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """How much of each answer is not the base's, 0 to 1."""
        ...

    def truth(self, answer: Answer) -> Answer:
        """What an unlabelled image is judged by: an answer of the training system."""
        ...

    def brief(self, answer: Answer) -> float:
        """One number to show for an answer: the class, or how many objects."""
        ...


class Classification:
    """Top-1 accuracy; an answer is the class id and its probability ``[2]``.

    >>> import torch
    >>> task = Classification()
    >>> said = task.answers(torch.tensor([[0.0, 3.0], [9.0, 0.0]]), [], "as-trained")
    >>> evidence = task.evidence(said, [np.array([1]), np.array([1])])
    >>> task.values(evidence, np.array([[1, 1], [2, 0]])).tolist()
    [0.5, 1.0]
    """

    metric = "top1"
    points = 100.0

    posts: tuple[str, ...] = ("half-softmax",)

    def answers(
        self, outputs: Float[Tensor, "b k"], places: Sequence[Placement], post: str
    ) -> list[Answer]:
        """Class and probability of each image; ``half-softmax`` rounds as float16 does."""
        logits = outputs.half() if post == "half-softmax" else outputs
        top = logits.softmax(1).float().max(1)
        return list(np.stack([top.indices.numpy(), top.values.numpy()], 1).astype(np.float64))

    def evidence(self, answers: Sequence[Answer], truths: Sequence[Answer]) -> Evidence:
        """1 where the class is right ``[n]``."""
        pairs = zip(answers, truths, strict=True)
        return np.array([float(answer[0] == truth[0]) for answer, truth in pairs])

    def values(self, evidence: Evidence, counts: Int[NDArray[np.int64], "r n"]) -> Float[Any, " r"]:
        """Accuracy of each resample."""
        return (counts @ evidence) / counts.sum(1)

    def flips(self, answers: Sequence[Answer], base: Sequence[Answer]) -> Float[Any, " n"]:
        """1 where another class is given."""
        return 1.0 - self.evidence(answers, base)

    def truth(self, answer: Answer) -> Answer:
        """The class."""
        return answer[:1]

    def brief(self, answer: Answer) -> float:
        """The class."""
        return float(answer[0])
