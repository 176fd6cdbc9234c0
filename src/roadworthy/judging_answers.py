"""What a quantized summarizer is worth by what it writes, token by token."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.generation import Bounds, answer_ids, greedy, rouge
from roadworthy.core.scores import Score
from roadworthy.core.texts import TextInput

METRIC = "rougeL"


def judged_by_answers(spec: str) -> Dataset:
    """Texts and, where a column ``label=`` is named, the answers to them: those that have one."""
    dataset = load_data(spec, answered=True)
    told = any(map(dataset.known, range(len(dataset))))
    return dataset.labelled() if told else dataset


def references(dataset: Dataset, skipped: Collection[str] = ()) -> list[str] | None:
    """The answers to all texts but those of the names `skipped`; None where nobody told them."""
    kept = (i for i in range(len(dataset)) if dataset.name(i) not in skipped)
    told = [dataset.told(i) for i in kept]
    answers = [each for each in told if isinstance(each, str)]
    return answers if len(answers) == len(told) else None


def written(
    predict: Callable[[Tensor], Tensor],
    bounds: Bounds,
    stages: TextInput,
    texts: Int[Tensor, "b r t"],
    size: int = 32,
) -> list[str]:
    """Summaries of texts, token by token, none longer than the texts may be."""
    most = texts.shape[-1]
    found: list[str] = []
    for part in texts.split(size):
        said = greedy(predict, part, bounds, most)
        found += stages.text_of(answer_ids(said))
    return found


def score(answers: list[str], wanted: list[str], seed: int) -> Score:
    """ROUGE-L with the interval of resampled texts, and ROUGE-1 and -2 beside it."""
    each = np.array([rouge([a], [b])[METRIC] for a, b in zip(answers, wanted, strict=True)])
    drawn = np.random.default_rng(seed).integers(len(each), size=(1000, len(each)))
    low, high = np.quantile(each[drawn].mean(1), [0.025, 0.975])
    others = rouge(answers, wanted)
    return Score(METRIC, others.pop(METRIC), float(low), float(high), others)


def compared(
    forms: dict[str, Callable[[Tensor], Tensor]],
    bounds: Bounds,
    stages: TextInput,
    texts: Int[Tensor, "b r t"],
    wanted: list[str] | None,
    seed: int,
) -> dict[str, Any]:
    """Scores of each of `forms` by name, against `wanted` or what the form ``float`` writes."""
    said = {name: written(form, bounds, stages, texts) for name, form in forms.items()}
    wanted = said["float"] if wanted is None else wanted
    found = {name: score(each, wanted, seed).to_dict() for name, each in said.items()}
    same = [a == b for a, b in zip(said["float"], said["deployed"], strict=True)]
    pairs = zip(texts[:3], said["float"][:3], said["deployed"][:3], strict=True)
    shown = [
        {"text": stages.text_of([t[0][t[1].bool()].tolist()])[0], "float": a, "deployed": b}
        for t, a, b in pairs
    ]
    return {**found, "same_summaries": sum(same) / len(same), "summaries": shown}
