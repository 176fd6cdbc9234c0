"""TextInput: casing -> tokenizer -> truncation -> padding, from a text to the integers of a model.

Tokenizers are those of Hugging Face: the fast one (Rust) and, for WordPiece vocabularies, the slow
one (Python), which newer versions of transformers hand out only under the name of legacy.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal, assert_never, get_args

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from roadworthy.core.text_data import BETWEEN
from roadworthy.errors import BadData, BadPreprocess, brief

Kind = Literal["fast", "slow"]
Casing = Literal["as-is", "lower", "upper", "capital", "cased"]
Truncation = Literal["right", "left"]
Padding = Literal["right", "left", "longest"]
Cut = Literal["longest", "second"]
Tokens = NDArray[np.int64]
Places = NDArray[np.int64]

USED = 0.9
"""Share of a table's rows that its own tokenizer uses at least."""
SHORTEST, LONGEST = 4, 8192
"""Tokens that an input may have: special ones and one at least."""
_ROWS = ("input_ids", "attention_mask", "token_type_ids")
CHOICES: dict[str, tuple[str, ...]] = {
    "tokenizer": get_args(Kind),
    "casing": get_args(Casing),
    "truncation": get_args(Truncation),
    "padding": get_args(Padding),
    "cut": get_args(Cut),
}
"""What a stage that is a choice allows."""


@dataclass(frozen=True)
class TextInput:
    """From a text, or a pair, to ids, attention mask and, where the tokenizer has them, types.

    Args:
        files: folder or hub id of a Hugging Face tokenizer.
        tokenizer: ``fast`` (Rust) or ``slow`` (Python).
        casing: ``as-is`` leaves it to the tokenizer; ``lower``, ``upper`` and ``capital`` (the
            first letter) change the text before; ``cased`` forbids the tokenizer to lower it.
        truncation: the end at which tokens beyond `length` are cut off.
        padding: the end that is filled up to `length`; ``longest`` fills the right end of a batch
            up to the longest text in it.
        length: tokens of an input at most, special ones included.
        cut: the text of a pair that is truncated, the ``longest`` or the ``second``, so that a
            question about a context stays whole.
    """

    files: str
    tokenizer: Kind = "fast"
    casing: Casing = "as-is"
    truncation: Truncation = "right"
    padding: Padding = "right"
    length: int = 128
    cut: Cut = "longest"

    def __post_init__(self) -> None:
        _check_length(self.length)

    def decoded(self, content: object, name: str) -> tuple[str, ...]:
        """The texts of a row; BadData names what is no text."""
        try:
            assert isinstance(content, bytes)
            return tuple(content.decode().split(BETWEEN))
        except (AssertionError, UnicodeDecodeError) as error:
            raise BadData(f"{name} is no text in UTF-8; give data by text:FILE.tsv") from error

    def tokens(self, texts: tuple[str, ...]) -> Tokens:
        """Ids, attention mask and types ``[r t]``, padded to `length`."""
        told = self._told(texts)
        return np.array([told[row] for row in _ROWS if row in told], np.int64)

    def places(self, texts: tuple[str, ...]) -> Places:
        """First character of every token in the second text, and the one behind its last
        ``[t 2]``; -1 where it is no token of it."""
        if self.tokenizer == "slow":
            raise BadPreprocess(
                "tokenizer slow given to a model that finds answers in a context; the fast one "
                "alone says where tokens are: leave it out"
            )
        told = self._told(texts, return_offsets_mapping=True)
        own = np.array([part == 1 for part in told.sequence_ids(0)])
        return np.where(own[:, None], np.array(told["offset_mapping"], np.int64), -1)

    def _told(self, texts: tuple[str, ...], **more: bool) -> Any:
        cased = [_cased(text, self.casing) for text in texts]
        try:
            return _tokenizer(self)(*cased, **_cut_to(self), **more)
        except Exception as error:  # the Rust library has no exception of its own for this
            if "Truncation error" not in str(error):
                raise
            raise BadData(
                f"question {texts[0][:40]!r} leaves no room for its context in {self.length} tokens"
            ) from error

    def __call__(self, texts: tuple[str, ...]) -> Int[Tensor, "r t"]:
        """The tensor of a text."""
        return torch.from_numpy(self.tokens(texts))

    def batched(self, stacked: Int[Tensor, "b r t"]) -> Int[Tensor, "b r _"]:
        """A batch as the model gets it: ``longest`` leaves out what pads every text of it."""
        if self.padding != "longest":
            return stacked
        return stacked[..., : max(1, int(stacked[:, 1].sum(1).max()))]

    def names(self, ids: Sequence[int]) -> list[str]:
        """The tokens of these ids, as the vocabulary writes them."""
        return [str(name) for name in _tokenizer(self).convert_ids_to_tokens(list(ids))]

    def text_of(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """What these ids say, special tokens left out."""
        return _tokenizer(self).batch_decode([list(row) for row in ids], skip_special_tokens=True)

    def missing(self) -> str | None:
        """What keeps its tokenizer from running here."""
        try:
            _tokenizer(self)
        except BadPreprocess as error:
            return str(error)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Stages as plain values.

        >>> TextInput("folder", length=64).to_dict()["length"]
        64
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TextInput":
        """Stages out of plain values, as a YAML file holds them.

        Raises:
            BadPreprocess: an unknown stage or option, naming the nearest known stage.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise BadPreprocess(f"stage {name!r} given{hint}; {', '.join(known)} are allowed")
        if not isinstance(values.get("files"), str):
            raise BadPreprocess("files is missing; give the folder or the id of a tokenizer")
        for name, allowed in CHOICES.items():
            if values.get(name, allowed[0]) not in allowed:
                raise BadPreprocess(
                    f"{name} {values[name]!r} given; {', '.join(allowed)} are allowed"
                )
        _check_length(values.get("length", LONGEST))
        return cls(**values)


def of_folder(files: str, positions: int | None) -> TextInput:
    """The input that the tokenizer beside a model states: its sides, and its longest text.

    Args:
        files: folder or hub id.
        positions: tokens that the model has positions for, None where it says nothing.
    """
    found = _tokenizer(TextInput(files))
    most = min(int(found.model_max_length), positions or LONGEST, LONGEST)
    return TextInput(files, "fast", "as-is", found.truncation_side, found.padding_side, most)


def check_vocabulary(texts: TextInput, rows: int) -> None:
    """Raise BadPreprocess where a tokenizer makes ids beyond a model's table of `rows`.

    A table is padded to a round number of rows; where far more are never used, that is warned of:
    the tokenizer is likely to be another model's.
    """
    known = max(_tokenizer(texts).get_vocab().values()) + 1
    told = f"the tokenizer of {texts.files} makes ids up to {known - 1} and the model knows {rows}"
    if known > rows:
        raise BadPreprocess(f"{told} tokens; give the tokenizer that belongs to the model")
    if known < USED * rows:
        warnings.warn(f"{told} tokens; does it belong to the model?", stacklevel=2)


def _check_length(given: object) -> None:
    if type(given) is not int or not SHORTEST <= given <= LONGEST:
        raise BadPreprocess(f"length {given!r} given; {SHORTEST} to {LONGEST} tokens are allowed")


def _cased(text: str, casing: Casing) -> str:
    match casing:
        case "as-is" | "cased":
            return text
        case "lower":
            return text.lower()
        case "upper":
            return text.upper()
        case "capital":
            return text[:1].upper() + text[1:]
        case _:
            assert_never(casing)


_OPENING = Lock()


def _tokenizer(stages: TextInput) -> Any:
    """Opened once, however many threads ask: two at a time break transformers' late imports."""
    with _OPENING:
        return _loaded(stages)


@lru_cache(maxsize=32)
def _loaded(stages: TextInput) -> Any:
    """A tokenizer of its own for each input: the fast ones hold sides and lengths as a state."""
    made = _opened(stages.files, stages.tokenizer == "fast")
    if made.is_fast and stages.tokenizer == "slow":
        made = _legacy(made, stages.files)
    if stages.casing == "cased":
        _keep_case(made)
    made.truncation_side = stages.truncation
    made.padding_side = "left" if stages.padding == "left" else "right"
    if set(made.get_vocab()) <= set(made.all_special_tokens):
        raise BadPreprocess(
            f"{stages.files} has no tokenizer with a vocabulary; put tokenizer.json or vocab.txt "
            "beside the model, or name another folder by files: of --preprocess FILE.yaml"
        )
    if made.pad_token is None:
        raise BadPreprocess(f"the tokenizer of {stages.files} has no padding token; give it one")
    # The first call sets that state; later ones, on many threads, find it as they want it.
    made("", **_cut_to(stages))
    return made


def _cut_to(stages: TextInput) -> dict[str, Any]:
    which = "only_second" if stages.cut == "second" else True
    return {"truncation": which, "max_length": stages.length, "padding": "max_length"}


def _opened(files: str, fast: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(files, use_fast=fast)
    except Exception as error:  # damaged files make the libraries raise nearly anything
        reason = brief(error)
        raise BadPreprocess(
            f"the tokenizer of {files} cannot be loaded: {reason}; give a folder with "
            "tokenizer.json or vocab.txt, or an id that the hub knows"
        ) from error


def _legacy(fast: Any, files: str) -> Any:
    """The Python tokenizer of the same vocabulary."""
    model = type(fast.backend_tokenizer.model).__name__
    try:
        from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy
    except ImportError:
        model = f"{model} (transformers without a legacy BERT tokenizer)"
    else:
        if model == "WordPiece":
            ids = fast.get_vocab()
            own = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
            settings = {name: getattr(fast, name) for name in own if hasattr(fast, name)}
            special = {n: str(t) for n, t in fast.special_tokens_map.items() if isinstance(t, str)}
            with TemporaryDirectory() as folder:
                path = Path(folder) / "vocab.txt"
                path.write_text("\n".join(sorted(ids, key=lambda t: ids[t])), encoding="utf-8")
                legacy: Any = BertTokenizerLegacy
                names = {"model_input_names": fast.model_input_names}
                return legacy(vocab_file=str(path), **settings, **special, **names)
    raise BadPreprocess(
        f"the tokenizer of {files} has no slow form: transformers has one in Python for WordPiece, "
        f"and this is {model}"
    )


def _keep_case(tokenizer: Any) -> None:
    """Forbid a tokenizer to lower the case; accents go with it, as in BERT's own code."""
    if tokenizer.is_fast:
        normalizer = tokenizer.backend_tokenizer.normalizer
        if hasattr(normalizer, "lowercase"):
            normalizer.lowercase = False
    elif hasattr(tokenizer, "basic_tokenizer"):
        tokenizer.basic_tokenizer.do_lower_case = False
