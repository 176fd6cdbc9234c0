"""One face for everything that turns a batch into outputs: torch, onnxruntime, OpenVINO."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from roadworthy.core.progress import track
from roadworthy.errors import BadData, BadInput, BadModel, brief

Inputs = Float[Tensor, "b c h w"] | Int[Tensor, "b r t"]
"""Images, or texts as rows r (ids, attention mask, types) of t tokens."""
OneOfMany = Float[Tensor, "_ c h w"] | Int[Tensor, "_ r t"]
"""One of several `Inputs`, which may differ in length."""

_ANSWERED = 4
"""Rows of texts that are answered by texts: two of the text, two of what the answer begins with."""


@runtime_checkable
class Predictor(Protocol):
    """Inputs in, outputs out, images and outputs in float32, all on the CPU; logits ``[b k]`` of a
    classifier."""

    name: str

    def __call__(self, images: Inputs) -> Float[Tensor, " b *k"]:
        """Outputs of a batch."""
        ...


def answered(inputs: Tensor) -> bool:
    """Whether these are texts that are answered by texts."""
    return not inputs.is_floating_point() and inputs.shape[1] == _ANSWERED


def things(inputs: Tensor) -> str:
    """What there are several of in a batch.

    >>> things(torch.zeros(1, 2, 8, dtype=torch.int64))
    'texts'
    """
    return "images" if inputs.is_floating_point() else "texts"


def resolve_device(device: str) -> torch.device:
    """The device that ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one) stands for.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise BadInput(f"device {device!r} given; cpu, cuda or auto are allowed")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device cuda given, but torch sees no CUDA GPU; use --device cpu or auto")
    return torch.device(device)


class TorchPredictor:
    """A torch module in eval mode, run without gradients.

    >>> TorchPredictor(nn.Flatten())(torch.ones(2, 1, 1, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, module: nn.Module, name: str = "torch", device: str = "cpu") -> None:
        self.name = name
        self._device = resolve_device(device)
        self._module = module.to(self._device)

    def __call__(self, images: Inputs) -> Float[Tensor, " b *k"]:
        """Logits of a batch; BadModel where the module answers anything but ``[b k]``, or
        ``[b t k]`` where each token of texts is answered."""
        logits = self._answer(images.to(self._device))
        if not isinstance(logits, Tensor) or not _fits(logits, images):
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise BadModel(
                f"{self.name} answers {shape} where a classifier answers [batch, classes] for a "
                f"batch of {len(images)}; wrap it in a module that returns the logits"
            )
        return logits.float().cpu().clone()

    def _answer(self, images: Tensor) -> object:
        try:
            with torch.inference_mode():
                return self._module(images)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise BadModel(f"{self.name} {failure(images, error)}") from error


def _fits(logits: Tensor, given: Inputs) -> bool:
    """Whether a batch is answered one by one, or, of texts, token by token."""
    by_token = not given.is_floating_point() and logits.shape[1:2] == given.shape[2:]
    axes = (3,) if answered(given) else (2, 3) if by_token else (2,)
    return logits.ndim in axes and len(logits) == len(given)


def failure(given: Inputs, error: Exception) -> str:
    """How a model failed on what it was given, and what to mend.

    >>> failure(torch.zeros(1, 3, 8, 8), ValueError("too small"))[:56]
    'fails on float32 images of shape [1, 3, 8, 8]: too small'
    """
    reason = brief(error)
    if given.is_floating_point():
        hint = "set size and crop of the preprocessing to the model's input"
        return f"fails on float32 images of shape {list(given.shape)}: {reason}; {hint}"
    highest = int(given[:, 0].max())
    return (
        f"fails on token ids up to {highest} of shape {list(given.shape)}: {reason}; give it the "
        "tokenizer that belongs to it, and no more tokens than it has positions for"
    )


def predict(
    predictor: Predictor, batches: Iterable[Tensor], progress: str | None = None
) -> Float[Tensor, " n *k"]:
    """Answers of all batches, in order; `progress` names a bar on the terminal."""
    answers = [predictor(images) for images in track(batches, progress)]
    if not answers:
        raise BadData("no images to predict; give a data spec with at least one")
    return torch.cat(answers)
