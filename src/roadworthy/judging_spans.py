"""What a quantized finder of answers is worth by the passages that it answers."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.metrics import Difference
from roadworthy.core.spans import Passages, check_answers, each_score, interval, score

SHOWN = 3


def asking_set(spec: str) -> Dataset:
    """Questions and contexts, with answers that are in them."""
    dataset = load_data(spec, answered=True).labelled()
    check_answers(dataset)
    return dataset


def compared(
    logits: Mapping[str, Float[Tensor, "n 2 t"]], asked: Passages, seed: int
) -> dict[str, Any]:
    """Scores of each form by name, what the deployed one gains, and how often it answers as the
    float one."""
    said = {name: asked.answers(each) for name, each in logits.items()}
    each = {name: each_score(answers, asked.wanted) for name, answers in said.items()}
    gain = each["deployed"][:, 0] - each["float"][:, 0]
    same = [a == b for a, b in zip(said["float"], said["deployed"], strict=True)]
    rows = zip(asked.wanted, said["float"], said["deployed"], strict=True)
    shown = [{"right": w, "float": a, "deployed": b} for w, a, b in rows][:SHOWN]
    return {
        **{name: score(values, seed).to_dict() for name, values in each.items()},
        "change": Difference(float(gain.mean()), *interval(gain, seed))._asdict(),
        "same_answers": sum(same) / len(same),
        "answers": shown,
    }
