"""Tiny random text models with a vocabulary of their own, and texts of its words."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCE = "the film is a good bad long dull fine plot and not so very b ##ad g ##ood"
WORDS = SENTENCE.split()
VOCABULARY = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}


def write_model(folder: Path, length: int = 16, layers: int = 1) -> Path:
    """A classifier of texts."""
    return _write(folder, BertForSequenceClassification(_bert(layers, positions=32)), length)


def write_finder(folder: Path, length: int = 24) -> Path:
    """A finder of answers."""
    return _write(folder, BertForQuestionAnswering(_bert(1, positions=length)), length)


def write_bart(folder: Path, length: int = 16) -> Path:
    """A summarizer."""
    config = BartConfig(
        vocab_size=len(VOCABULARY),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=length,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=None,
    )
    return _write(folder, BartForConditionalGeneration(config), length, seed=3, size=0.5)


def write_texts(path: Path, rows: int = 24) -> Path:
    """Texts of 3 to 17 words in two classes by turns."""

    def row(i: int, words: list[str]) -> str:
        return f"{i % 2}\t{' '.join(words)}"

    return _lines(path, "label\tsentence", rows, lambda i: 3 + 2 * (i % 8), row)


def write_questions(path: Path, rows: int = 32) -> Path:
    """Questions of three words, contexts of 5 to 12, answers of two."""

    def row(_: int, words: list[str]) -> str:
        return f"{' '.join(words[:3])}\t{' '.join(words[3:])}\t{' '.join(words[4:6])}"

    return _lines(path, "question\tcontext\tanswer", rows, lambda i: 8 + i % 8, row)


def write_pairs(path: Path, rows: int = 44) -> Path:
    """Documents of 3 to 10 words and their first two, but for a number as the first summary."""

    def row(i: int, words: list[str]) -> str:
        return f"{' '.join(words)}\t{' '.join(words[:2]) if i else '7'}"

    return _lines(path, "document\tsummary", rows, lambda i: 3 + i % 8, row)


def _bert(layers: int, positions: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
    )


def _write(
    folder: Path, model: PreTrainedModel, length: int, seed: int = 1, size: float = 1.0
) -> Path:
    """`model` with large weights, so that what it says depends on every token, and with gains of
    BERT's norms that differ, so that there is one to move; its tokenizer beside it."""
    BertTokenizer(vocab=VOCABULARY, model_max_length=length).save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, size, generator=generator)
        elif name.endswith("LayerNorm.weight"):
            weight.data.uniform_(0.5, 2.0, generator=generator)
    model.save_pretrained(folder)
    return folder


def _lines(
    path: Path,
    header: str,
    rows: int,
    count: Callable[[int], int],
    row: Callable[[int, list[str]], str],
) -> Path:
    generator = torch.Generator().manual_seed(1)
    lines = [header]
    for i in range(rows):
        picks = torch.randint(0, 14, (count(i),), generator=generator).tolist()
        lines.append(row(i, [WORDS[pick] for pick in picks]))
    path.write_text("\n".join(lines) + "\n")
    return path
