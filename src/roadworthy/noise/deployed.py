"""Images as many deployments see them, each by one of its own: what calibration wants to meet."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from roadworthy.core.data import Dataset
from roadworthy.core.images import Preprocess
from roadworthy.core.resizers import Pixels, Raster
from roadworthy.noise.mix import Mixed, RandomPreprocess


def as_deployed(dataset: Dataset, mix: RandomPreprocess, seed: int) -> tuple[Dataset, Preprocess]:
    """`dataset` as many deployments see it: each image by a draw of its own, the same every time.

    Every option of `mix` is drawn as often as the others of its stage, give or take one; its
    `augment` is not applied.

    Returns:
        The images as 8-bit pixels, and what is left to do to them.

    >>> from roadworthy.core.data import load_data
    >>> mix = RandomPreprocess(Preprocess(mean=(0.5, 0.5, 0.5)))
    >>> pixels, rest = as_deployed(load_data("builtin:photos").head(2), mix, seed=0)
    >>> pixels.content(0).dtype, rest.mean
    (dtype('uint8'), (0.5, 0.5, 0.5))
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[Mixed, tuple[str, ...]] = {
        stage: _dealt(names, len(dataset), generator)
        for stage, names in mix.choices.items()
        if names
    }
    systems = tuple(
        replace(mix.preprocess, **{stage: names[i] for stage, names in drawn.items()})
        for i in range(len(dataset))
    )
    rest = Preprocess(
        mean=mix.preprocess.mean, std=mix.preprocess.std, precision=mix.preprocess.precision
    )
    seen = replace(dataset, source=_Deployed(dataset, systems), indices=tuple(range(len(dataset))))
    return seen, rest


@dataclass(frozen=True)
class _Deployed:
    """A source of what `systems` make of the images of `dataset`, one each."""

    dataset: Dataset
    systems: tuple[Preprocess, ...]

    def __len__(self) -> int:
        return len(self.systems)

    def read(self, index: int) -> Pixels:
        """Resized, cropped and coloured; BadData where the file cannot be read."""
        stages = self.systems[index]
        pixels = stages.decoded(self.dataset.content(index), self.name(index))
        return _eight_bit(stages.coloured(stages.fitted(pixels)))

    def label(self, index: int) -> int | None:
        return self.dataset.label(index)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def key(self, index: int) -> str:
        return self.dataset.source.key(self.dataset.indices[index])


def _dealt(names: tuple[str, ...], count: int, generator: torch.Generator) -> tuple[str, ...]:
    """`count` of `names`, in random order, each as often as the others, give or take one."""
    order = torch.randperm(count, generator=generator).tolist()
    return tuple(names[i % len(names)] for i in order)


def _eight_bit(raster: Raster) -> Pixels:
    if raster.dtype == np.uint8:
        return np.asarray(raster, np.uint8)
    return np.rint(raster).clip(0, 255).astype(np.uint8)
