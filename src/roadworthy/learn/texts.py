"""Captions as the amateur reads them: a tokenizer made of the captions, a small transformer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn

from roadworthy.errors import BadData, BadModel

FILE = "tokenizer.json"
SPECIAL = ("[pad]", "[start]", "[end]", "[mask]")
PAD, START, END, MASK = range(len(SPECIAL))


@dataclass(frozen=True)
class TextConfig:
    """A text transformer.

    Args:
        vocabulary: how many tokens there are.
        length: tokens of a text, its start and end counted; longer ones are cut.

    Raises:
        BadModel: heads that do not divide the width, or a text without a token of its own.
    """

    vocabulary: int
    length: int = 32
    width: int = 128
    depth: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise BadModel(
                f"{self.heads} heads do not divide the width {self.width}; give a multiple of them"
            )
        if self.length < 3:
            raise BadModel(f"texts of {self.length} tokens given; 3 or more are allowed")


class CaptionTokenizer:
    """Lower-cased captions to ids and back; nothing is unknown, as letters are bytes at worst.

    >>> tokens = CaptionTokenizer.trained(["a red car", "two red cars"], 280)
    >>> tokens(["A red car"], 8).shape
    torch.Size([1, 8])
    >>> tokens.text(tokens(["Two red cars"], 8)[0])
    'two red cars'
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def trained(cls, captions: Iterable[str], vocabulary: int = 2048) -> "CaptionTokenizer":
        """Byte pairs (arXiv 1508.07909) of `captions`, `vocabulary` tokens at most, 260 at least.

        Raises:
            BadData: no captions.
        """
        texts = list(captions)
        if not texts:
            raise BadData("no captions to make a tokenizer of; give a source that has some")
        made: Any = Tokenizer(models.BPE())
        made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        made.decoder = decoders.ByteLevel()
        made.post_processor = processors.TemplateProcessing(
            single="[start] $A [end]", special_tokens=[("[start]", START), ("[end]", END)]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        return cls(made)

    @classmethod
    def load(cls, folder: Path) -> "CaptionTokenizer":
        """What `save` wrote.

        Raises:
            BadModel: there is no such file, or it is damaged or another tokenizer's.
        """
        path = folder / FILE
        try:
            found = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise BadModel(f"{path} is no tokenizer: {error}; train or copy it again") from error
        if [found.token_to_id(name) for name in SPECIAL] != [*range(len(SPECIAL))]:
            raise BadModel(
                f"{path} has no {', '.join(SPECIAL)} as its first tokens; train one here"
            )
        return cls(found)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, which the tokenizers library reads anywhere."""
        self._tokenizer.save(str(folder / FILE))

    def __len__(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, captions: Sequence[str], length: int) -> Int[Tensor, "b t"]:
        """Ids between start and end, cut to `length`, filled up with `PAD`."""
        made = self._tokenizer.encode_batch(list(captions))
        ids = [
            each.ids if len(each.ids) <= length else [*each.ids[: length - 1], END] for each in made
        ]
        return torch.tensor([each + [PAD] * (length - len(each)) for each in ids]).reshape(
            -1, length
        )

    def text(self, ids: Int[Tensor, " t"]) -> str:
        """What ids say, without the special ones."""
        return self._tokenizer.decode(ids.tolist()).strip()

    @property
    def words(self) -> Int[Tensor, " n"]:
        """The ids that say something: all but the special ones."""
        return torch.arange(len(SPECIAL), len(self))


def keys(ids: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """A number for each text that equal ones share, however far they are padded.

    >>> keys(torch.tensor([[1, 9, 2], [1, 2, 9], [1, 9, 2]])).unique().numel()
    2
    """
    random = torch.Generator().manual_seed(0)
    factors = torch.randint(1 << 62, ids.shape[1:], generator=random)
    return (ids * factors.to(ids.device)).sum(1)


class TextTransformer(nn.Module):
    """Every token sees all tokens of its text; normalised before each layer.

    >>> net = TextTransformer(TextConfig(vocabulary=300))
    >>> pooled, tokens = net(torch.randint(4, 300, (2, 32)))
    >>> pooled.shape, tokens.shape, net.words(tokens).shape
    (torch.Size([2, 128]), torch.Size([2, 32, 128]), torch.Size([2, 32, 300]))
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.length, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.depth, nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(
        self, ids: Int[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b t d"]]:
        """The mean of a text's tokens, and the tokens; what is `PAD` is not seen."""
        empty = ids == PAD
        tokens = self.embedding(ids) + self.positions[: ids.shape[1]]
        tokens = self.layers(tokens, src_key_padding_mask=empty)
        kept = (~empty).to(tokens)[..., None]
        return (tokens * kept).sum(1) / kept.sum(1).clamp(min=1), tokens

    def words(self, tokens: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Logits of what each token is; the weights are the embedding's."""
        return tokens @ self.embedding.weight.T + self.bias
