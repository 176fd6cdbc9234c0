"""Does the file behave as simulated? A gate, and a finger on the operator where it stops to."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.core.alike import Measure, alike, shown
from roadworthy.core.answers import dense, parts
from roadworthy.core.embeddings import cosines
from roadworthy.core.padding import choices
from roadworthy.core.predict import Inputs, OneOfMany, Predictor, answered, predict, things
from roadworthy.core.scores import explained
from roadworthy.deploy.inspect import first_break
from roadworthy.errors import BadData, ParityError

AGREEMENT = 0.995
_FEW, _MANY = 8, 1024
"""Inputs that are compared."""
_ROOM = 2**29
"""Bytes of the answers of one model that are compared: a large map takes 20 MB an image."""


@dataclass(frozen=True)
class Parity:
    """Simulated against deployed: agreement as `measure` has it, largest and mean difference."""

    agreement: float
    max_abs: float
    mean_abs: float
    n: int
    measure: Measure = "class"

    def to_dict(self) -> dict[str, Any]:
        """The numbers for ``run.json``."""
        return asdict(self)


def affordable(model: Callable[[Tensor], Tensor], inputs: Inputs) -> OneOfMany:
    """The first inputs, 1024 or as many, 8 at least, as have answers of half a gigabyte."""
    fitting = _ROOM // model(inputs[:1]).nbytes
    return inputs[: min(_MANY, max(_FEW, fitting))]


def compare(
    simulated: Float[Tensor, " n *k"],
    deployed: Float[Tensor, " m *l"],
    embeds: bool = False,
    inputs: Inputs | None = None,
) -> Parity:
    """Parity of two sets of logits, or of embeddings, of the same images.

    `inputs` are needed where each token of texts, each place of images or each box is answered.
    Numbers of places and boxes count by the variance explained, corners and shares apart.

    >>> import torch
    >>> compare(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.5, 1.0], [0.0, 1.0]]))
    Parity(agreement=0.5, max_abs=1.0, mean_abs=0.625, n=2, measure='class')
    """
    if simulated.shape != deployed.shape or not len(simulated):
        raise BadData(
            f"logits of shapes {list(simulated.shape)} and {list(deployed.shape)} given; parity "
            "needs the same images, at least one, through both models"
        )
    gap = (simulated - deployed).abs()
    numbers = (float(gap.max()), float(gap.mean()), len(simulated))
    if embeds:
        return Parity(float(cosines(simulated, deployed).mean()), *numbers, "cosine")
    placed = inputs is not None and dense(simulated, inputs)
    if placed or simulated.shape[1] == 1:
        pairs = zip(parts(simulated), parts(deployed), strict=True)
        return Parity(min(explained(*pair) for pair in pairs), *numbers, "explained")
    return _same_choices(simulated, deployed, gap, inputs)


def _same_choices(a: Tensor, b: Tensor, gap: Tensor, texts: Inputs | None) -> Parity:
    chosen = (each if texts is None else choices(each, texts) for each in (a, b))
    first, second = (each.argmax(-1).reshape(len(each), -1) for each in chosen)
    agreed = float((first == second).all(1).float().mean())
    by_token = texts is not None and answered(texts)
    measure = "token" if by_token else "class" if len(first) == len(a) else "span"
    return Parity(agreed, float(gap.max()), float(gap.mean()), len(first), measure)


def parity(simulated: Predictor, deployed: Predictor, images: Iterable[OneOfMany]) -> Parity:
    """Parity of two predictors on batches of `images`."""
    batches = list(images)
    answers = predict(simulated, batches), predict(deployed, batches)
    told = batches[0] if things(batches[0]) == "images" else None
    return compare(*answers, inputs=told)


def assert_parity(
    found: Parity,
    module: nn.Module,
    path: Path,
    images: Inputs,
    threshold: float = AGREEMENT,
) -> None:
    """Raise ParityError with the first operator that breaks, if agreement is below `threshold`.

    `module` is the simulated graph, `path` the file, `images` a few inputs to look with.
    """
    if found.agreement >= threshold:
        return
    place = first_break(module, path, images)
    where = "no single operator stands out" if place is None else f"first break at {place}"
    told = alike(found.measure, found.agreement, found.n, things(images))
    raise ParityError(
        f"deployed and simulated: {told} (largest difference {found.max_abs:.3g}); at least "
        f"{shown(found.measure, threshold)} is required; {where}; quantize's --backend may "
        "have that operator computed otherwise"
    )
