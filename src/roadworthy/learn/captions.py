"""Images with captions, held in memory, and their texts as the amateur reads them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from roadworthy.errors import BadData
from roadworthy.learn import concepts
from roadworthy.learn.batches import Batch, digest
from roadworthy.learn.contrastive import masked
from roadworthy.learn.holding import images_of
from roadworthy.learn.sample import Sample
from roadworthy.learn.texts import MASK, PAD, CaptionTokenizer


@dataclass(frozen=True, eq=False)
class Captioned:
    """A set of images with captions.

    Args:
        name: of the data set.
        captions: of each image, one or more.
        content: all images, as bytes.
    """

    name: str
    captions: tuple[tuple[str, ...], ...]
    content: Batch
    task: ClassVar[Literal["captions"]] = "captions"

    def __len__(self) -> int:
        return len(self.content)

    @property
    def sha256(self) -> str:
        """Hash of images and captions, as they are held."""
        return digest(self.captions, self.content)


def hold_captions(samples: Iterable[Sample], size: int) -> Captioned:
    """Decode `samples` once, squashed to squares of `size` pixels, with their captions.

    What has no caption but names of classes is captioned by them. ImageNet's ids stand for the
    names that WordNet has for them; bare numbers are no names.

    Raises:
        BadInput: a size that is no multiple of 32.
        BadData: no samples, or one that says nothing about the image.

    >>> from roadworthy.learn.scenes import scenes
    >>> hold_captions(scenes(range(7, 8)), 32).captions
    (('a traffic sign on a street by day',),)
    """
    held = list(samples)
    captions = tuple(_captions(each) for each in held)
    return Captioned(
        held[0].source if held else "", captions, Batch(images_of(held, "captions", size))
    )


def prompt(name: str) -> str:
    """The caption of an image of which only the class is known.

    >>> prompt("traffic sign"), prompt("apple")
    ('a photo of a traffic sign', 'a photo of an apple')
    """
    return f"a photo of {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _captions(sample: Sample) -> tuple[str, ...]:
    found = sample.captions or tuple(prompt(each) for each in map(_spoken, sample.labels) if each)
    if not found:
        raise BadData(
            f"image {sample.name} of {sample.source} has no caption; the amateur learns from "
            "captions or names of classes"
        )
    return found


def _spoken(label: str) -> str | None:
    """A class's name in words, None of a number.

    >>> _spoken("n02124075"), _spoken("car"), _spoken("7")
    ('Egyptian cat', 'car', None)
    """
    if not label.lstrip("n").isdecimal():
        return label
    graph = concepts.load()
    known = graph.find(label)
    return None if known is None else graph.synonyms[known][0]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The captions of a source as ids.

    Args:
        ids: of each caption of each image; rows of `PAD` fill up.
        counts: how many captions each image has.
        words: the ids that say something.
    """

    ids: Int[Tensor, "n c t"]
    counts: Int[Tensor, " n"]
    words: Int[Tensor, " v"]

    @classmethod
    def of(
        cls, captions: Sequence[Sequence[str]], tokenizer: CaptionTokenizer, length: int
    ) -> "Tokens":
        """Captions of each image, cut to `length` tokens."""
        counts = torch.tensor([len(each) for each in captions])
        ids = torch.full((len(captions), int(counts.max()), length), PAD)
        there = torch.arange(ids.shape[1]) < counts[:, None]
        ids[there] = tokenizer([text for each in captions for text in each], length)
        return cls(ids, counts, tokenizer.words)

    def drawn(self, numbers: Any, part: slice, random: torch.Generator) -> dict[str, Tensor]:
        """``texts``: two captions of each image, different ones where it has several.

        Also ``shown``: the first of them with gaps, and ``hidden``: what was there. All are drawn
        for all ranks together, of which `part` is handed out.
        """
        counts = self.counts[numbers]
        u, v = torch.rand(2, len(numbers), generator=random)
        first = (u * counts).long()
        second = (first + 1 + (v * (counts - 1)).long()) % counts
        texts = torch.stack([self.ids[numbers, first], self.ids[numbers, second]], 1)
        shown, hidden = masked(texts[:, 0], self.words, MASK, random)
        return {"texts": texts[part], "shown": shown[part], "hidden": hidden[part]}
