"""Train a small BART from nothing on captions: a sentence in, its words sorted out again.

    python recipes/train_seq2seq.py --captions flickr8k_1000/captions.txt --out out/bart-captions

Of a caption the words are shuffled within a window and some are left out; the model writes the
caption. It learns real sentences in a few CPU minutes, with a tokenizer of the captions' own words,
so that an encoder-decoder can be quantized where no pretrained one is at hand. It writes
train.tsv and test.tsv (columns document, summary) beside the model.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from roadworthy.core.progress import track
from roadworthy.errors import BadData, BadInput

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def captions(path: Path) -> dict[str, list[str]]:
    """Captions by image, in lower case; lines of ``image,caption``."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from error
    for line in lines:
        image, _, caption = line.partition(",")
        words = caption.strip(' ".').lower().replace('"', "").split()
        if 4 <= len(words) <= 20:
            found.setdefault(image, []).append(" ".join(words))
    if not found:
        raise BadData(f"{path} holds no captions; lines of image,caption are needed")
    return found


def noised(caption: str, random: np.random.Generator, lost: float, window: float) -> str:
    """The caption with some words left out and the rest moved by up to `window` places."""
    words = caption.split()
    kept = [word for word in words if random.random() >= lost] or words[:1]
    order = np.argsort(np.arange(len(kept)) + random.random(len(kept)) * window)
    return " ".join(kept[i] for i in order)


def make_tokenizer(texts: list[str], length: int):
    """Words of the captions that occur twice or more."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.train_from_iterator(
        texts, trainers.WordLevelTrainer(min_frequency=2, special_tokens=SPECIAL)
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def make_model(words: int, length: int) -> nn.Module:
    """A BART of two layers a side."""
    from transformers import BartConfig, BartForConditionalGeneration

    half = {"layers": 2, "attention_heads": 4, "ffn_dim": 512}
    sides = {
        f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in half.items()
    }
    config = BartConfig(
        vocab_size=words,
        d_model=128,
        max_position_embeddings=length,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        **sides,
    )
    return BartForConditionalGeneration(config)


def train(model, tokenizer, texts: list[str], given: argparse.Namespace) -> None:
    """AdamW, a warm-up of a twentieth of the steps, then linearly to nothing."""
    random = np.random.default_rng(given.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=0.01, fused=True)
    warm, total = given.steps / 20, given.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / (total - warm))
    )
    start, seen = time.process_time(), 0.0
    for step in track(range(1, total + 1), "training"):
        rows = [texts[i] for i in random.integers(len(texts), size=given.batch_size)]
        sources = [noised(row, random, given.lost, given.window) for row in rows]
        inputs = tokenizer(sources, padding=True, return_tensors="pt")
        labels = tokenizer(rows, padding=True, return_tensors="pt").input_ids
        labels = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen = float(loss.detach()) if step == 1 else 0.98 * seen + 0.02 * float(loss.detach())
        if step % 200 == 0:
            minutes = (time.process_time() - start) / 60
            print(f"step {step}, {minutes:.1f} CPU minutes, loss {seen:.3f}", file=sys.stderr)


def write(path: Path, texts: list[str], given: argparse.Namespace) -> None:
    """Noised captions and captions, tab-separated."""
    random = np.random.default_rng(given.seed + 1)
    rows = [f"{noised(text, random, given.lost, given.window)}\t{text}" for text in texts]
    path.write_text("\n".join(["document\tsummary", *rows]) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=Path, required=True, help="lines of image,caption")
    parser.add_argument("--out", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--lost", type=float, default=0.1, help="share of words left out (0.1)")
    parser.add_argument("--window", type=float, default=3, help="places that a word moves (3)")
    parser.add_argument("--length", type=int, default=32, help="tokens of a text at most (32)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train and save; a tenth of the images is held out as the test."""
    given = arguments()
    torch.manual_seed(given.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    images = list(captions(given.captions).values())
    few = max(1, len(images) // 10)
    held, texts = (
        [text for some in part for text in some] for part in (images[:few], images[few:])
    )
    tokenizer = make_tokenizer(texts, given.length)
    model = make_model(len(tokenizer), given.length)
    train(model.train(), tokenizer, texts, given)
    model.eval().save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    write(given.out / "train.tsv", texts, given)
    write(given.out / "test.tsv", held, given)
    print(f"{sum(p.numel() for p in model.parameters())} parameters; {given.out}")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"train_seq2seq: {error}")
