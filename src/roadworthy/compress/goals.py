"""What fine-tuning learns from: classes, the ends of answers, or the float model's embeddings."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, fx, nn

from roadworthy.core.extract import whole
from roadworthy.core.padding import IMPOSSIBLE, choices, in_batches, shortened, text_mask
from roadworthy.core.predict import Inputs
from roadworthy.errors import BadData, BadInput, BadModel


@dataclass(frozen=True)
class Labelled:
    """Samples, and what a model is to answer: class ids ``[n]``, first and last token of a passage
    ``[n 2]``, or embeddings ``[n k]`` in floating point, whose direction alone counts."""

    inputs: Inputs
    labels: Int[Tensor, " n *two"] | Float[Tensor, "n k"]

    def at(self, rows: Int[Tensor, " b"]) -> "Labelled":
        """These samples, without the tokens that are padding in all of them."""
        return Labelled(shortened(self.inputs[rows]), self.labels[rows])

    @property
    def embedded(self) -> bool:
        """Whether what is wanted are embeddings."""
        return self.labels.is_floating_point()


def check_goal(graph: fx.GraphModule, samples: Labelled, distil: float) -> None:
    """Raise where a model does not answer what its samples have labels for.

    Raises:
        BadModel: it answers something else.
        BadInput: a share of distillation where all of it is.
        BadData: labels that are none of the model's classes, or of the text's tokens.
    """
    shape, labels = list(whole(graph).exit.meta["val"].shape[1:]), samples.labels
    if samples.embedded:
        if shape != list(labels.shape[1:]):
            raise BadModel(
                f"the model answers {['batch', *shape]}; its own embeddings "
                f"{['batch', *labels.shape[1:]]} are needed to learn from"
            )
        if distil:
            raise BadInput(
                f"a share {distil} of distillation given; embeddings are learned from the float "
                "model alone: leave it out"
            )
        return
    fits = len(shape) == 1 and shape[0] > 1 if labels.ndim == 1 else shape[1:] == [2]
    if not fits:
        needed = "scores of two or more classes: [batch, classes]"
        if labels.ndim == 2:
            needed = "scores of the tokens where answers start and end: [batch, tokens, 2]"
        raise BadModel(f"the model answers {['batch', *shape]}; fine-tuning needs {needed}")
    if labels.ndim == 2:
        mask = text_mask(samples.inputs)
        assert mask is not None  # tokens are answered
        if not bool(mask.gather(1, labels).all()):
            raise BadData("a label names a token of padding; first and last token are needed")
        return
    strange = set(labels.tolist()) - set(range(shape[0]))
    if strange:
        raise BadData(f"label {min(strange)} given; the model has classes 0 to {shape[0] - 1}")


def loss(said: Float[Tensor, " b *k"], samples: Labelled) -> Tensor:
    """Cross entropy of classes, or of both ends of an answer over the tokens; of embeddings one
    less their cosine.

    >>> import torch
    >>> wanted = Labelled(torch.zeros(1, 2, 3).long(), torch.tensor([[3.0, 4.0]]))
    >>> loss(torch.tensor([[4.0, 3.0]]), wanted)
    tensor(0.0400)
    """
    if samples.embedded:
        return 1 - nn.functional.cosine_similarity(said, samples.labels).mean()
    return nn.functional.cross_entropy(said, samples.labels)


def scored(said: Float[Tensor, " b *k"], inputs: Inputs) -> Float[Tensor, " b *k"]:
    """Answers with no score where a text has padding."""
    mask = text_mask(inputs)
    if said.ndim != 3 or mask is None:
        return said
    return said.masked_fill(~mask[:, :, None], IMPOSSIBLE)


def apart(said: Float[Tensor, " b k *e"], wanted: Float[Tensor, " b k *e"]) -> Tensor:
    """KL divergence of scores from the wanted ones, over classes or tokens."""
    known = wanted.log_softmax(1)
    rows = (known.exp() * (known - said.log_softmax(1))).sum(1)
    return rows.mean()


def judged(model: nn.Module, held: Labelled) -> dict[str, float]:
    """Loss, and the share of right answers (both ends are) or the mean cosine."""
    said = in_batches(model, held.inputs)
    if held.embedded:
        left = float(loss(said, held))
        return {"loss": left, "cosine": 1 - left}
    said = choices(said, held.inputs)
    if said.ndim == 3:
        said = said.transpose(1, 2)
    hit = (said.argmax(1) == held.labels).reshape(len(said), -1).all(1)
    return {"loss": float(loss(said, held)), "right": float(hit.float().mean())}
