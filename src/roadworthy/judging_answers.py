"""What a quantized summarizer is worth by what it writes, token by token."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from roadworthy.core.data import Dataset
from roadworthy.core.generation import HfAnswers, answer_ids, greedy, rouge
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadData

METRIC = "rougeL"


def references(dataset: Dataset) -> list[str]:
    """The texts of column ``label=``, what a summary is compared with."""
    labels = [dataset.label(i) for i in range(len(dataset))]
    told = [None if label is None else dataset.classes[label] for label in labels]
    if None in told or not dataset.ranked:
        raise BadData(
            f"{dataset.spec} has no text for each answer; name a column of texts by label="
        )
    return [each for each in told if each is not None]


def written(
    predict: Callable[[Tensor], Tensor],
    model: HfAnswers,
    stages: TextInput,
    texts: Int[Tensor, "b r t"],
    size: int = 32,
) -> list[str]:
    """Summaries of texts, token by token, none longer than the texts may be."""
    most = texts.shape[-1]
    found: list[str] = []
    for part in texts.split(size):
        said = greedy(predict, part, model.start, model.ends, most)
        found += stages.text_of(answer_ids(said))
    return found


def score(answers: list[str], wanted: list[str], seed: int) -> dict[str, Any]:
    """ROUGE-L with the interval of resampled texts, and ROUGE-1 and -2 beside it."""
    each = np.array([rouge([a], [b])[METRIC] for a, b in zip(answers, wanted, strict=True)])
    drawn = np.random.default_rng(seed).integers(len(each), size=(1000, len(each)))
    low, high = np.quantile(each[drawn].mean(1), [0.025, 0.975])
    interval = [float(low), float(high)]
    return {"metric": METRIC, "value": float(each.mean()), "ci": interval, **rouge(answers, wanted)}


def compared(
    forms: dict[str, Callable[[Tensor], Tensor]],
    model: HfAnswers,
    stages: TextInput,
    texts: Int[Tensor, "b r t"],
    wanted: list[str] | None,
    seed: int,
) -> dict[str, Any]:
    """Scores of each of `forms` by name, against `wanted` or what the form ``float`` writes."""
    said = {name: written(form, model, stages, texts) for name, form in forms.items()}
    wanted = said["float"] if wanted is None else wanted
    found: dict[str, Any] = {name: score(each, wanted, seed) for name, each in said.items()}
    same = [a == b for a, b in zip(said["float"], said["deployed"], strict=True)]
    pairs = zip(texts[:3], said["float"][:3], said["deployed"][:3], strict=True)
    shown = [
        {"text": stages.text_of([t[0][t[1].bool()].tolist()])[0], "float": a, "deployed": b}
        for t, a, b in pairs
    ]
    return {**found, "same_summaries": sum(same) / len(same), "summaries": shown}
