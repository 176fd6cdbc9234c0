"""TENT: a model that adapts its normalisation to the images it is asked about.

Wang et al., Tent: Fully Test-Time Adaptation by Entropy Minimization (ICLR 2021, arXiv 2006.10726).
"""

from collections.abc import Iterator
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.core.predict import resolve_device
from roadworthy.errors import BadInput, BadModel, brief

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_Norm = _BatchNorm | nn.LayerNorm | nn.GroupNorm


class Tent:
    """A `Predictor` that learns online, batch by batch, without labels.

    Batch normalisation takes the statistics of the batch at hand, and a step of Adam on the scales
    and shifts of all normalisation layers lowers the entropy of the answers (equation 1 and section
    3.2). A batch is answered before the step that it causes. What it is fed in matters: batches of
    one class, or of few images, teach it nonsense.

    Args:
        module: a classifier; a copy is adapted, itself stays as it is.
        rate: of learning; 0 leaves the statistics of the batch alone.
        name, device: as `TorchPredictor` has them.

    Raises:
        BadModel: it has no normalisation layer with scale and shift, as after folding.
        BadInput: a negative rate.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    >>> Tent(net)(torch.rand(2, 3, 1, 1)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, module: nn.Module, rate: float = 1e-3, name: str = "tent", device: str = "cpu"
    ) -> None:
        if not rate >= 0:
            raise BadInput(f"rate {rate} given; 0 or more is allowed")
        self.name, self._rate = name, rate
        self._device = resolve_device(device)
        self._module = deepcopy(module).eval().requires_grad_(False).to(self._device)
        self._learned = [p.requires_grad_() for p in _prepared(self._module)]
        if not self._learned:
            raise BadModel(
                f"{name}: the model has no normalisation layer with scale and shift to adapt; give "
                "one with BatchNorm, LayerNorm or GroupNorm, before it is folded or quantized"
            )
        self._start = [p.detach().clone() for p in self._learned]
        self.reset()

    def reset(self) -> None:
        """Forget all batches seen so far."""
        with torch.no_grad():
            for parameter, value in zip(self._learned, self._start, strict=True):
                parameter.copy_(value)
        self._optimizer = torch.optim.Adam(self._learned, self._rate)

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of a batch, from which the next ones profit.

        Raises:
            BadModel: the module fails on them, as BatchNorm does on one value per channel, or
                answers anything but ``[b k]``.
        """
        # Callers may hold inference mode, whose tensors no gradient passes.
        with torch.inference_mode(False), torch.set_grad_enabled(self._rate > 0):
            logits = self._answer(images.to(self._device).clone())
            if self._rate > 0:
                self._learn(logits)
        return logits.detach().float().cpu()

    def _learn(self, logits: Tensor) -> None:
        self._optimizer.zero_grad()
        entropy(logits).mean().backward()
        self._optimizer.step()

    def _answer(self, images: Tensor) -> Tensor:
        try:
            logits = self._module(images)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = brief(error)
            raise BadModel(
                f"{self.name} fails on a batch of shape {list(images.shape)}: {reason}; give "
                "larger batches of the model's input size"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise BadModel(f"{self.name} needs a classifier that answers [batch, classes]")
        return logits


def entropy(logits: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Of the softmax of each row, in nats.

    >>> entropy(torch.zeros(1, 4)).exp()
    tensor([4.])
    """
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def _prepared(module: nn.Module) -> Iterator[nn.Parameter]:
    """Scales and shifts; running statistics, which else would be used, are dropped."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
        if isinstance(layer, _Norm):
            yield from layer.parameters(recurse=False)
