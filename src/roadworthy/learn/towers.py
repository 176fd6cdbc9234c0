"""Images and texts in one space: what the amateur leaves beside its backbone, opened for use."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.errors import BadModel
from roadworthy.learn.backbones import Backbone, backbone
from roadworthy.learn.captions import Captioned
from roadworthy.learn.contrastive import Temperature
from roadworthy.learn.manifest import HEADS, fill, read_config
from roadworthy.learn.tasks import whole_batches
from roadworthy.learn.texts import CaptionTokenizer, TextConfig, TextTransformer

_BATCH = 256


class Towers(nn.Module):
    """A text tower, and projections of pooled images and of texts to features of its width."""

    def __init__(self, pooled: int, text: TextConfig, scale: float = 1 / 0.07) -> None:
        super().__init__()
        self.text = TextTransformer(text)
        self.images = nn.Linear(pooled, text.width, bias=False)
        self.texts = nn.Linear(text.width, text.width, bias=False)
        self.temperature = Temperature(scale)

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Features of texts."""
        return self.texts(self.text(ids)[0])


@dataclass(frozen=True, eq=False)
class Pair:
    """A backbone and its towers, which place what belongs together close together.

    Args:
        size: pixels a side that they learned from.
    """

    backbone: Backbone
    towers: Towers
    tokenizer: CaptionTokenizer
    size: int

    @torch.no_grad()
    def images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit features of images, normalised as `preprocess_of` says."""
        return F.normalize(self.towers.images(self.backbone(images)), dim=1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit features of sentences."""
        ids = self.tokenizer(texts, self.towers.text.config.length)
        return torch.cat([F.normalize(self.towers(each), dim=1) for each in ids.split(_BATCH)])

    @torch.no_grad()
    def similarity(
        self, images: Float[Tensor, "b 3 h w"], texts: Sequence[str]
    ) -> Float[Tensor, "b n"]:
        """Scaled cosines; the softmax of a row says which text an image fits."""
        return self.towers.temperature() * self.images(images) @ self.texts(texts).T


def open_amateur(folder: Path) -> Pair:
    """What `learn_amateur` wrote, in eval mode.

    Raises:
        BadModel: another stage's folder, or a damaged one.
    """
    config = read_config(folder)
    if config.text is None:
        raise BadModel(f"{folder} is of the stage {config.stage}; a folder of an amateur is needed")
    body = backbone(str(folder)).eval()
    towers = Towers(body.width, config.text).eval()
    fill(towers, folder, HEADS)
    return Pair(body, towers, CaptionTokenizer.load(folder), config.size)


def retrieval(pair: Pair, source: Captioned, ranks: Sequence[int] = (1, 5)) -> list[dict[str, Any]]:
    """How often a caption of an image is among the nearest of all, beside chance.

    A sentence that several images have is one text, and right for each of them.
    """
    texts = sorted({text for each in source.captions for text in each})
    device = next(pair.towers.parameters()).device
    seen = torch.cat([pair.images(b.images) for b in whole_batches(source, device)])
    near = seen @ pair.texts(texts).T
    right = torch.tensor([[text in each for text in texts] for each in map(set, source.captions)])
    return [
        {
            "judged_on": source.name,
            "metric": f"image to text recall@{k}",
            "value": recall(near, right, k),
            "chance": chance(right, k),
            "n": len(source),
        }
        for k in ranks
    ]


def recall(near: Float[Tensor, "n m"], right: Bool[Tensor, "n m"], k: int) -> float:
    """Share of rows with a right entry among their `k` largest.

    >>> near = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> recall(near, torch.tensor([[True, False, False], [False, True, True]]), 1)
    0.5
    """
    best = near.topk(min(k, near.shape[1]), 1).indices
    return float(right.gather(1, best).any(1).double().mean())


def chance(right: Bool[Tensor, "n m"], k: int) -> float:
    """The recall of an order at random.

    >>> chance(torch.tensor([[True, False, False, False]]), 2)
    0.5
    """
    of = right.shape[1]
    missed = [comb(of - int(n), k) / comb(of, min(k, of)) for n in right.sum(1)]
    return 1 - sum(missed) / len(missed)
