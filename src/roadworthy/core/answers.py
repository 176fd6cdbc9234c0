"""Answers to images that are not one row of classes: maps ``[b k h w]``, boxes ``[b n 4+k]``."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.core.extract import whole
from roadworthy.errors import BadInput, BadModel

_CORNERS = 4


def dense(answers: Tensor, inputs: Tensor) -> bool:
    """Whether images are answered place by place or box by box."""
    return inputs.is_floating_point() and answers.ndim > 2


def parts(answers: Float[Tensor, " b *k"]) -> Sequence[Float[Tensor, " b *_"]]:
    """What has one unit: corners in pixels and shares of boxes apart, anything else as it is.

    >>> import torch
    >>> [each.shape[2] for each in parts(torch.zeros(2, 340, 11))]
    [4, 7]
    """
    if answers.ndim != 3:
        return (answers,)
    return answers[..., :_CORNERS], answers[..., _CORNERS:]


def dense_shape(graph: fx.GraphModule) -> tuple[int, ...] | None:
    """What a captured model answers to an image where it is maps ``(k, h, w)`` or boxes
    ``(n, 4+k)``; None where it is classes ``(k,)``, or made of texts.

    Raises:
        BadModel: an image is answered by anything else.
    """
    part = whole(graph)
    answers, inputs = part.exit.meta["val"], part.entry.meta["val"]
    shape = tuple(map(int, answers.shape[1:]))
    if len(shape) == 1:
        return None
    boxes = len(shape) == 2 and shape[1] > _CORNERS
    if inputs.is_floating_point() and (len(shape) == 3 or boxes):
        return shape
    raise BadModel(
        f"the model answers {['batch', *shape]} where [batch, classes], maps [batch, classes or 1, "
        "height, width] or boxes [batch, boxes, 4 corners + shares of classes] are needed; wrap it "
        "in a module that returns one of these"
    )


def answers_boxes(graph: fx.GraphModule, inputs: Tensor) -> bool:
    """Whether a captured model answers boxes ``[b n 4+k]`` to an image."""
    answers = whole(graph).exit.meta["val"]
    return dense(answers, inputs) and answers.ndim == 3


def check_compared(graph: fx.GraphModule, inputs: Tensor, what: str) -> None:
    """BadInput where `what` compares classes and the model answers boxes."""
    if answers_boxes(graph, inputs):
        answers = whole(graph).exit.meta["val"]
        raise BadInput(
            f"{what} compares classes and the model answers {['batch', *answers.shape[1:]]}; leave "
            "it out, or give --method minmax, mse, adaround, brecq or qdrop"
        )
