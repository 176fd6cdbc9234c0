"""Answers that are passages of a context: where they start and end, and what they are worth.

Source of the conventions: SQuAD 1.1 (arXiv 1606.05250): exact match and F1 of words, articles and
punctuation left out, the best of several right answers. Contexts are not cut into windows: what is
truncated cannot be found, and counts as wrong.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from roadworthy.core.data import Dataset, check_pairs
from roadworthy.core.scores import RESAMPLES, Score, counts
from roadworthy.core.text_data import BETWEEN, Texts
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadData

METRIC, BESIDE = "f1", "exact_match"
MOST = 30
"""Tokens of an answer at most, as in Hugging Face's pipeline and examples."""
_STARTS_LIST = "["


class HfSpans(nn.Module):
    """A Hugging Face model that finds answers, its ids, mask and types in one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "b r t"]) -> Float[Tensor, "b t 2"]:
        """For each token the logits that the answer starts, and ends, there."""
        types = {"token_type_ids": tokens[:, 2]} if tokens.shape[1] == 3 else {}
        told: Any = self.model(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], **types)
        return torch.stack([told.start_logits, told.end_logits], -1)


def best_spans(
    logits: Float[Tensor, "n 2 t"], context: Bool[Tensor, "n t"], most: int = MOST
) -> Int[Tensor, "n 2"]:
    """First and last token of the likeliest passage of the context: the largest sum of the two
    logits of `most` tokens at most, of equal ones the shortest.

    >>> logits = torch.tensor([[[9.0, 0.0, 2.0, 0.0], [9.0, 3.0, 0.0, 1.0]]])
    >>> best_spans(logits, torch.tensor([[False, True, True, True]])).tolist()
    [[1, 1]]
    """
    start, end = logits.masked_fill(~context[:, None], -torch.inf).unbind(1)
    best, width = torch.full_like(start[:, 0], -torch.inf), start.shape[1]
    found = torch.zeros(len(logits), 2, dtype=torch.int64)
    for beyond in range(min(most, width)):
        value, first = (start[:, : width - beyond] + end[:, beyond:]).max(1)
        better = value > best
        best = torch.where(better, value, best)
        found = torch.where(better[:, None], torch.stack([first, first + beyond], 1), found)
    return found


@dataclass(frozen=True)
class Passages:
    """Contexts, where in them each token is ``[n t 2]`` (-1 outside), and the right answers."""

    contexts: tuple[str, ...]
    places: Int[NDArray[np.int64], "n t 2"]
    wanted: tuple[tuple[str, ...], ...]

    def answers(self, logits: Float[Tensor, "n 2 t"]) -> list[str]:
        """What is answered; nothing where no token of the context is left."""
        width = logits.shape[-1]  # padding of all texts may be cut off
        context = torch.from_numpy(self.places[:, :width, 0] >= 0)
        spans = best_spans(logits, context).tolist()
        rows = zip(self.contexts, self.places, spans, strict=True)
        return [text[max(0, at[a][0]) : max(0, at[b][1])].strip() for text, at, (a, b) in rows]

    def ends(self) -> Int[Tensor, "n 2"]:
        """First and last token of each first right answer, where its context first has it; -1 where
        it is cut off."""
        found = torch.full((len(self.contexts), 2), -1)
        for row, (text, at, (answer, *_)) in enumerate(
            zip(self.contexts, self.places, self.wanted, strict=True)
        ):
            start = text.find(answer)
            inside = (at[:, 0] < start + len(answer)) & (at[:, 1] > start) & (at[:, 0] >= 0)
            if start >= 0 and at[:, 1].max() >= start + len(answer.rstrip()):
                found[row] = torch.from_numpy(inside.nonzero()[0][[0, -1]])
        return found


def passages(dataset: Dataset, stages: TextInput, skipped: Collection[str] = ()) -> Passages:
    """Contexts and right answers of `dataset`, but of the names `skipped`."""
    kept = [i for i in range(len(dataset)) if dataset.name(i) not in skipped]
    pairs = [stages.decoded(dataset.content(i), dataset.name(i)) for i in kept]
    places = np.stack([stages.places(pair) for pair in pairs])
    wanted = tuple(right_answers(str(dataset.told(i))) for i in kept)
    return Passages(tuple(context for _, context in pairs), places, wanted)


def check_answers(dataset: Dataset) -> None:
    """Raise BadData where a right answer is not in its context."""
    check_pairs(dataset)
    source = dataset.source
    if not isinstance(source, Texts):
        return  # whoever reads it says so
    for own in dataset.indices:
        context = source.texts[own].split(BETWEEN)[1]
        strange = [each for each in right_answers(str(source.told[own])) if each not in context]
        if strange:
            raise BadData(
                f"{source.name(own)}: answer {strange[0][:40]!r} is not in its context; give a "
                'passage of it, letter for letter, or several as a list: ["a", "b"]'
            )


def right_answers(cell: str) -> tuple[str, ...]:
    """The answers that a cell holds: itself, or several as a list in JSON.

    >>> right_answers("the Nile"), right_answers('["the Nile", "Nile"]')
    (('the Nile',), ('the Nile', 'Nile'))
    """
    if cell.startswith(_STARTS_LIST):
        try:
            told: Any = json.loads(cell)
        except ValueError:
            return (cell,)
        if told and all(isinstance(each, str) for each in told):
            return tuple(told)
    return (cell,)


def each_score(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> Float[Any, "n 2"]:
    """F1 and exact match of every answer against the best of the right ones.

    >>> each_score(["a river"], [["the Nile", "River!"]]).tolist()
    [[1.0, 1.0]]
    """
    from torchmetrics.functional.text import squad

    found: list[tuple[float, float]] = []
    for answer, right in zip(said, wanted, strict=True):
        target: Any = {"answers": {"text": list(right), "answer_start": [0] * len(right)}, "id": ""}
        told = squad([{"prediction_text": answer, "id": ""}], [target])
        found.append((float(told["f1"]) / 100, float(told["exact_match"]) / 100))
    return np.array(found)


def score(each: Float[Any, "n 2"], seed: int) -> Score:
    """Mean of F1 with the interval of resampled texts, and of exact match beside it."""
    low, high = interval(each[:, 0], seed)
    f1, exact = each.mean(0)
    return Score(METRIC, float(f1), low, high, {BESIDE: float(exact)})


def interval(values: Float[Any, " n"], seed: int) -> tuple[float, float]:
    """95 % interval of a mean by resampling texts."""
    drawn = counts(len(values), seed, RESAMPLES)[1:] @ values / len(values)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
