"""All networks of a space in one set of shared weights (one-shot search, arXiv 1904.00420).

A path is a network of the space. Its weights are the leading channels of the shared ones, of its
operators and of its depth; it runs as the `MetaNet` that it is, so what is cut out answers exactly
as the path did. Operators share nothing but the residual branch into their stage; widths and
depths share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from roadworthy.core.metanet import MetaNet, MetaNetConfig
from roadworthy.core.runs import output_folder
from roadworthy.errors import BadInput
from roadworthy.learn.batches import Augmentation, Batch, Source
from roadworthy.learn.loop import Compute, Feed, Learner, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.space import Space
from roadworthy.learn.tasks import judge_head, whole_batches

_PARTS = {"qkv": 3, "key_value": 2}
"""Layers whose rows are several matrices, each of which is cut by itself."""


class Supernet(nn.Module):
    """The shared weights of a space.

    >>> from roadworthy.core.metanet import POINTS
    >>> from roadworthy.learn.space import Choices
    >>> stages = [Choices((s.op,), (1, 2), (8, 16), ("inside",), s.stride, 2)
    ...           for s in POINTS["mn_xs"].stages]
    >>> net = Supernet(Space(tuple(stages), stem=8, head=32, head_dim=8), num_classes=3)
    >>> path = net.space.draw(np.random.default_rng(0))
    >>> net(torch.zeros(2, 3, 32, 32), path).shape
    torch.Size([2, 3])
    """

    def __init__(self, space: Space, num_classes: int) -> None:
        super().__init__()
        self.space, self.num_classes = space, num_classes
        self.shared = nn.ParameterDict(_initial(space, num_classes))

    def forward(
        self, images: Float[Tensor, "b 3 h w"], path: MetaNetConfig
    ) -> Float[Tensor, "b k"]:
        """Logits of a path, normalised by the statistics of this batch."""
        net = _network(path, self.num_classes)
        for norm in _norms(net):
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        return functional_call(net, self.weights(net), (images,), strict=True)

    def weights(self, net: MetaNet) -> dict[str, Tensor]:
        """The shared weights of each of a network's parameters, by its own name for them."""
        self.space.check(net.config)
        return {
            name: _region(self.shared[_key(net, name)], name, each.shape).flatten(0, 1)
            for name, each in net.named_parameters()
        }

    def cut(self, path: MetaNetConfig) -> MetaNet:
        """A network of its own with a path's weights; its norms have seen no image yet."""
        net = _network(path, self.num_classes).to(next(self.parameters()).device)
        weights = self.weights(net)
        with torch.no_grad():
            for name, each in net.named_parameters():
                each.copy_(weights[name])
        return net


def _network(path: MetaNetConfig, num_classes: int) -> MetaNet:
    """A new network; what is random elsewhere stays as it was."""
    with torch.random.fork_rng(devices=[]):
        return MetaNet(path, num_classes)


def _norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]


def _initial(space: Space, num_classes: int) -> dict[str, nn.Parameter]:
    """Weights that hold those of every corner; what no path reaches is 0."""
    largest: dict[str, list[int]] = {}
    for path in space.corners():
        net = _network(path, num_classes)
        for name, each in net.named_parameters():
            key = _key(net, name)
            largest[key] = list(map(max, each.shape, largest.get(key, each.shape)))
    shared = {key: torch.zeros(shape) for key, shape in largest.items()}
    for path in space.corners():  # the widest last: most of what is drawn first is theirs
        net = MetaNet(path, num_classes)
        for name, each in net.named_parameters():
            region = _region(shared[_key(net, name)], name, each.shape)
            region.copy_(each.detach().reshape(region.shape))
    return {key: nn.Parameter(each) for key, each in shared.items()}


def _key(net: MetaNet, name: str) -> str:
    """Where the shared weights of a parameter are.

    Entries belong to their stage alone, blocks to their operator and their place in the stage; a
    first block that changes the shape is another than one that does not. The residual branch into a
    stage, a pool and a 1x1 convolution whatever else is chosen, is the same for all: through it the
    image reaches every later stage in each path, and what is chosen adds to it.
    """
    first, *rest = name.split(".")
    if first != "stages":
        return name.replace(".", "/")
    number, place, *inner = rest
    stage = net.config.stages[int(number)]
    if inner[0] == "shortcut":
        return "/".join([number, *inner])
    row: Any = net.stages[int(number)]
    kind = stage.op if stage.down == "inside" or place != "0" else stage.down
    return "/".join([number, kind, place, type(row[int(place)]).__name__, *inner])


def _region(whole: Tensor, name: str, shape: torch.Size) -> Tensor:
    """What of a shared weight a parameter of this name and shape sees: ``[parts rows ...]``."""
    parts = _PARTS.get(name.split(".")[-2], 1)
    picks = [slice(None), slice(shape[0] // parts), *map(slice, shape[1:])]
    return whole.unflatten(0, (parts, -1))[tuple(picks)]


def calibrate(net: MetaNet, batches: Iterable[Batch]) -> MetaNet:
    """Give the norms of `net`, in place, the mean statistics of these batches; it, in eval mode.

    Statistics that many paths have left behind belong to none of them.
    """
    norms = _norms(net)
    held = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    with torch.no_grad():
        for batch in batches:
            net(batch.images)
    for norm, momentum in zip(norms, held, strict=True):
        norm.momentum = momentum
    return net.eval()


class PathLearner(Learner):
    """Trains a supernet: each batch is seen by a few paths, in which every operator comes once."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet

    def extra_repr(self) -> str:
        """What makes it another run."""
        return repr(self.supernet.space)

    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The mean cross entropy of the paths."""
        images, labels = tensors["images"], tensors["labels"]
        random = np.random.default_rng(int(torch.randint(2**31, ())))
        losses = [
            F.cross_entropy(self.supernet(images, path), labels)
            for path in self.supernet.space.fair(random)
        ]
        return {"loss": torch.stack(losses).mean()}


def learn_supernet(
    space: Space,
    source: Source,
    plan: Plan,
    out: Path,
    machine: Machine | None = None,
    resume: bool = True,
) -> tuple[Supernet, Compute]:
    """Train the supernet of a space on a source of classes; it and what it cost.

    Raises:
        BadInput: a source of another task, or several processes.
    """
    machine = machine or Machine()
    if source.task != "classification":
        raise BadInput(f"a source of {source.task} given; classification is needed")
    if machine.world > 1:
        raise BadInput(f"{machine.world} processes given; a supernet is trained by one")
    torch.manual_seed(plan.seed)
    learner = PathLearner(Supernet(space, len(source.classes)))
    feed = Feed(source, Augmentation(crop=(0.6, 1.0)))
    trained = train(learner, [feed], plan, output_folder(out), machine, resume)
    return learner.supernet, trained.compute


@dataclass(frozen=True, eq=False)
class Judge:
    """How good a path is: the held-out accuracy of what is cut out of the supernet.

    Args:
        calibration: images that give its norms their statistics.
        held_out: images that judge.
    """

    supernet: Supernet
    calibration: Source
    held_out: Source

    def __call__(self, path: MetaNetConfig) -> float:
        """A fraction of the images."""
        device = next(self.supernet.parameters()).device
        net = calibrate(self.supernet.cut(path), whole_batches(self.calibration, device))
        return judge_head(net, nn.Identity(), self.held_out, device).value
