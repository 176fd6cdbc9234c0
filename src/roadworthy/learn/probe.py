"""Linear probes: what a frozen backbone's features are worth to the simplest head there is.

An image's pooled features, or those of each cell of a map of stride 4, are standardised and read by
a logistic regression (classes, masks) or a linear one (logarithm of depth). The penalty of the
weights is chosen on a fifth of the training images; those that judge choose nothing.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.core.dense_data import VOID
from roadworthy.core.progress import track
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.adapt.protocols import HELD
from roadworthy.learn.backbones import Backbone, check_size
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.dense_losses import STRIDES
from roadworthy.learn.features import kept, network_hash
from roadworthy.learn.judge import Verdict
from roadworthy.learn.tasks import BATCH, Maps, judge_head, read, whole_batches

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_ROWS = 60_000
"""Cells that a head is fitted to, drawn where there are more."""
CPU = torch.device("cpu")
_LEAST_METRES = 0.1


@dataclass(frozen=True)
class Probed:
    """What a linear probe gave.

    Args:
        verdict: on the images that judge.
        penalty: of the squared weights, as chosen on training images.
        n: training images.
    """

    verdict: Verdict
    penalty: float
    n: int

    def row(self) -> dict[str, Any]:
        """In one level."""
        return {**asdict(self.verdict), "penalty": self.penalty, "trained_on": self.n}


class LinearHead(nn.Module):
    """One linear layer on pooled features, or on all maps brought to stride 4."""

    def __init__(self, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, seen: Tensor | Maps) -> Tensor:
        """Logits ``[b k]``, or ``[b k h w]`` of maps."""
        face: Any = self
        if isinstance(seen, Tensor):
            return F.linear(seen, face.weight, face.bias)
        return F.conv2d(beside(seen), face.weight[:, :, None, None], face.bias)


class LinearDepth(LinearHead):
    """A `LinearHead` whose answer is the logarithm of metres, within what was seen in training."""

    def __init__(
        self, weight: Float[Tensor, "1 d"], bias: Float[Tensor, " 1"], limits: Float[Tensor, " 2"]
    ) -> None:
        super().__init__(weight, bias)
        self.register_buffer("limits", limits)

    def forward(self, seen: Tensor | Maps) -> Tensor:
        """Metres ``[b 1 h w]``."""
        low, high = self.get_buffer("limits")
        return super().forward(seen).clamp(low, high).exp()


def beside(maps: Maps) -> Float[Tensor, "b d h w"]:
    """All maps, enlarged to the size of the first."""
    size = maps[0].shape[-2:]
    return torch.cat([F.interpolate(each, size, mode="bilinear") for each in maps], 1)


def linear_probe(
    backbone: Backbone,
    train: Source,
    test: Source,
    seed: int = 0,
    cache: Path | None = None,
    device: torch.device = CPU,
) -> Probed:
    """Fit a linear head to `train` on frozen features, and judge it on `test`.

    Args:
        device: where images are encoded.

    Raises:
        BadInput: a task without a linear head, or sets of differing tasks or classes.
        BadData: fewer than five training images.
    """
    if (train.task, train.classes) != (test.task, test.classes):
        raise BadInput(
            f"trained on {train.task} of {', '.join(train.classes)} and judged on {test.task} of "
            f"{', '.join(test.classes)}; one task and the same classes are needed"
        )
    fitted = fit_linear(backbone, train, seed, cache, device)
    return Probed(judge_head(backbone, fitted.head, test, device), fitted.penalty, len(train))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A linear head, its penalty, and what each penalty lost on the held-out training images."""

    head: LinearHead
    penalty: float
    losses: Mapping[float, float]


def fit_linear(
    backbone: Backbone,
    train: Source,
    seed: int = 0,
    cache: Path | None = None,
    device: torch.device = CPU,
) -> Fitted:
    """A linear head on frozen features; fails as `linear_probe` does.

    Args:
        cache: folder in which features are kept, for the same images and weights.
        device: where images are encoded.
    """
    if train.task == "detection":
        raise BadInput(
            "a linear probe of detection given; classification, segmentation and depth are allowed"
        )
    if len(train) < 5:
        raise BadData(f"{len(train)} training images given; 5 or more are needed")
    check_size(backbone, train.content.side)
    backbone.eval()
    generator = torch.Generator().manual_seed(seed)
    x, y, image = kept_rows(backbone, train, generator, cache, device)
    x, mean, size = _standard(x)
    held = _holding(image, torch.rand(len(train), generator=generator))
    learned = ~held
    fit = _solver(train)
    losses = {p: _loss(train, fit(x[learned], y[learned], p), x[held], y[held]) for p in PENALTIES}
    penalty = min(losses, key=lambda each: losses[each])
    weight, bias = fit(x, y, penalty)
    weight = weight / size
    bias = bias - weight @ mean
    if train.task == "depth":
        limits = torch.stack([y.min(), y.max()])
        return Fitted(LinearDepth(weight, bias, limits), penalty, losses)
    return Fitted(LinearHead(weight, bias), penalty, losses)


def part_of(source: Source, fraction: float, seed: int) -> Source:
    """A share of the images, the same share of each class, at least one of each.

    Raises:
        BadInput: a share that is not above 0 and at most 1.

    >>> from roadworthy.learn.batches import Batch
    >>> content = Batch(torch.zeros(20, 3, 1, 1), labels=torch.arange(20) % 2)
    >>> part = part_of(Source("set", "classification", ("a", "b"), content), 0.2, 0)
    >>> part.content.labels.bincount().tolist()
    [2, 2]
    """
    if not 0 < fraction <= 1:
        raise BadInput(f"fraction {fraction} given; above 0 and at most 1 is allowed")
    labels = source.content.labels
    groups = torch.zeros(len(source), dtype=torch.int64) if labels is None else labels
    drawn = np.concatenate(
        [
            _drawn((groups == group).nonzero()[:, 0].numpy(), fraction, seed)
            for group in groups.unique()
        ]
    )
    return replace(source, content=source.content[torch.from_numpy(np.sort(drawn))])


def _drawn(numbers: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    count = max(1, round(fraction * len(numbers)))
    return np.random.default_rng(seed).permutation(numbers)[:count]


def kept_rows(
    backbone: Backbone,
    source: Source,
    generator: torch.Generator,
    cache: Path | None,
    device: torch.device = CPU,
) -> tuple[Float[Tensor, "n d"], Shaped[Tensor, " n"], Int[Tensor, " n"]]:
    """`rows_of`, out of `cache` where they are there; `generator` goes on all the same."""

    def made() -> dict[str, Tensor]:
        x, y, image = rows_of(backbone, source, generator, device)
        return {"x": x, "y": y, "image": image, "after": generator.get_state()}

    if cache is None:
        rows = made()
    else:
        begun = hashlib.sha256(generator.get_state().numpy().tobytes()).hexdigest()
        rows = kept(cache, f"{network_hash(backbone)} {source.sha256} {begun}", made)
    generator.set_state(rows["after"])
    return rows["x"], rows["y"], rows["image"]


def rows_of(
    backbone: Backbone, source: Source, generator: torch.Generator, device: torch.device = CPU
) -> tuple[Float[Tensor, "n d"], Shaped[Tensor, " n"], Int[Tensor, " n"]]:
    """Features and what is to be said of them, of images or of cells, and whose they are.

    All images, but no more than some `_ROWS` cells. Encoded by `device`, held by the CPU.
    """
    share = min(1.0, _ROWS / len(source) / cells) if (cells := _cells(source)) > 1 else 1.0
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    start = 0
    batches = whole_batches(source, device)
    backbone.to(device)
    with torch.no_grad():
        for batch in track(batches, "encoding", -(-len(source) // BATCH)):
            x = _rows(read(backbone, source.task, batch.images)).cpu()
            y = _wanted(source, batch).cpu()
            kept = _told(source, y) & (torch.rand(len(y), generator=generator) < share)
            image = start + torch.arange(len(batch)).repeat_interleave(cells)
            start += len(batch)
            parts.append((x[kept], y[kept], image[kept]))
    backbone.to(CPU)
    features, wanted, images = (torch.cat(each) for each in zip(*parts, strict=True))
    return features, wanted, images


def _cells(source: Source) -> int:
    side = source.content.side // STRIDES[0]
    return 1 if source.task == "classification" else side * side


def _rows(seen: Maps) -> Float[Tensor, "n d"]:
    return seen[0] if len(seen) == 1 else beside(seen).permute(0, 2, 3, 1).flatten(0, 2)


def _wanted(source: Source, batch: Batch) -> Shaped[Tensor, " n"]:
    """Class ids, or logarithms of metres; of cells by their middle pixel."""
    middle = slice(STRIDES[0] // 2, None, STRIDES[0])
    match source.task:
        case "classification":
            assert batch.labels is not None
            return batch.labels
        case "segmentation":
            assert batch.masks is not None
            return batch.masks[:, middle, middle].flatten().long()
        case "depth":
            assert batch.depth is not None
            return batch.depth[:, middle, middle].flatten().clamp(min=_LEAST_METRES).log()
        case "detection":
            raise AssertionError("refused before")
        case _:
            assert_never(source.task)


def _told(source: Source, wanted: Shaped[Tensor, " n"]) -> Tensor:
    match source.task:
        case "depth":
            return wanted.isfinite()
        case "segmentation":
            return wanted != VOID
        case _:
            return wanted >= 0


def _standard(x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
    mean, size = x.mean(0), x.std(0).clamp(min=1e-6)
    return (x - mean) / size, mean, size


def _holding(image: Int[Tensor, " n"], order: Float[Tensor, " images"]) -> Bool[Tensor, " n"]:
    """Which rows choose the penalty: those of the first of the images that have any.

    Args:
        image: whose each row is; all cells of one are on one side.

    >>> _holding(torch.tensor([0, 0, 2]), torch.tensor([0.9, 0.1, 0.3])).tolist()
    [False, False, True]
    """
    known = image.unique()
    if len(known) < 2:
        raise BadData(
            f"{len(known)} of {len(order)} training images says anything to learn from; 2 or more "
            "are needed, of which one chooses the penalty"
        )
    first = known[order[known].argsort()[: max(1, round(HELD * len(known)))]]
    return torch.isin(image, first)


Solved = tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]


def _solver(source: Source) -> Callable[[Tensor, Tensor, float], Solved]:
    if source.task == "depth":
        return ridge
    classes = len(source.classes)
    return lambda x, y, penalty: logistic(x, y, classes, penalty)


def _loss(source: Source, found: Solved, x: Tensor, y: Tensor) -> float:
    said = F.linear(x, *found)
    if source.task == "depth":
        return float((said[:, 0] - y).square().mean())
    return float(F.cross_entropy(said, y))


def ridge(x: Float[Tensor, "n d"], y: Float[Tensor, " n"], penalty: float) -> Solved:
    """Least squares, in closed form; `penalty` times the squared weights is added to the mean.

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> [each.item() for each in ridge(x, torch.tensor([1.0, 5.0]), 0.0)]
    [2.0, 3.0]
    """
    wide, middle = x.double(), y.double().mean()
    square = wide.T @ wide / len(x) + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(square, wide.T @ (y.double() - middle) / len(x))
    bias = middle - wide.mean(0) @ weight
    return weight[None].to(x.dtype), bias[None].to(x.dtype)


def logistic(x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int, penalty: float) -> Solved:
    """Multinomial logistic regression by L-BFGS; `penalty / 2` times the squared weights counts."""
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = F.cross_entropy(layer(x), y) + penalty / 2 * layer.weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return layer.weight.detach(), layer.bias.detach()
