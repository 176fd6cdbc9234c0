"""Texts that are answered by texts: encoder-decoders, what they generate, and what that is worth.

Source of the set-up: Outlier Suppression (arXiv 2209.13325), which calibrates a summarizer on what
its float form generates: the decoder reads these ids, and its logits are what must not change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from roadworthy.core.padding import ENCODED

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Bounds:
    """The id that an answer begins with, and those that end it."""

    start: int
    ends: frozenset[int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values.

        >>> Bounds.from_dict(Bounds(2, frozenset([2])).to_dict()).start
        2
        """
        return {"start": self.start, "ends": sorted(self.ends)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Bounds":
        """Out of plain values, as ``run.json`` holds them."""
        return cls(int(values["start"]), frozenset(values["ends"]))


class HfAnswers(nn.Module):
    """A Hugging Face encoder-decoder that takes ids and mask of a text, and ids and mask of what
    its answer begins with, in one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "b 4 t"]) -> Float[Tensor, "b t v"]:
        """Logits of the token behind each one of the answer."""
        text = {"input_ids": tokens[:, 0], "attention_mask": tokens[:, 1]}
        return self.model(**text, decoder_input_ids=tokens[:, 2], use_cache=False).logits

    @property
    def bounds(self) -> Bounds:
        """Where its answers begin and end."""
        told: Any = self.model.generation_config
        first, ends = told.decoder_start_token_id, told.eos_token_id
        start = told.bos_token_id if first is None else first
        return Bounds(int(start), frozenset(ends if isinstance(ends, list) else [ends]))

    @torch.no_grad()
    def generated(self, texts: Int[Tensor, "b r t"], size: int = 32) -> Int[Tensor, "b 4 t"]:
        """The texts with the answers that the model generates by its own settings, cut at t."""
        made = [self._generated(part) for part in texts[:, :2].split(size)]
        return torch.cat(made)

    def _generated(self, texts: Int[Tensor, "b 2 t"]) -> Int[Tensor, "b 4 t"]:
        model: Any = self.model
        longest = texts.shape[-1]
        said = model.generate(
            input_ids=texts[:, 0], attention_mask=texts[:, 1], max_new_tokens=longest
        )
        return with_answers(texts, said, self.bounds.ends)


def with_answers(
    texts: Int[Tensor, "b 2 t"], said: Int[Tensor, "b s"], ends: frozenset[int]
) -> Int[Tensor, "b 4 t"]:
    """Rows of texts and of answers up to the token that ends them, which no decoder reads.

    >>> said = torch.tensor([[2, 7, 8, 2, 1]])
    >>> with_answers(torch.ones(1, 2, 5, dtype=torch.int64), said, frozenset([2]))[0, 2:].tolist()
    [[2, 7, 8, 0, 0], [1, 1, 1, 0, 0]]
    """
    stops = torch.isin(said, torch.tensor(sorted(ends)))
    stops[:, 0] = False  # of some models the first id is the same
    mask = (stops.cumsum(1) == 0).long()
    answers = torch.stack([said * mask, mask], 1)
    missing = max(0, texts.shape[-1] - said.shape[1])
    padded = nn.functional.pad(answers, (0, missing))[..., : texts.shape[-1]]
    return torch.cat([texts, padded], 1)


@torch.no_grad()
def greedy(
    predict: Callable[[Tensor], Tensor],
    texts: Int[Tensor, "b r t"],
    bounds: Bounds,
    most: int,
) -> Int[Tensor, "b 4 s"]:
    """The texts with answers of the likeliest token after token, at most `most` of them.

    The model is asked once a token for the whole answer so far: it keeps nothing from step to step.
    Texts are widened where answers are longer than they.
    """
    wide = nn.functional.pad(texts[:, :2], (0, max(0, most - texts.shape[-1])))
    answers = torch.zeros_like(wide)
    answers[:, 0, 0], answers[:, 1, 0] = bounds.start, 1
    live = torch.ones(len(texts), dtype=torch.bool)
    stops = torch.tensor(sorted(bounds.ends))
    for place in range(1, most):
        rows = live.nonzero().flatten()
        width = max(place, int(wide[rows, ENCODED].any(0).nonzero().max()) + 1)
        given = torch.cat([wide[rows], answers[rows]], 1)[..., :width]
        token = predict(given)[:, place - 1].argmax(-1)
        live[rows] = ~torch.isin(token, stops)
        rows, token = rows[live[rows]], token[live[rows]]
        if not len(rows):
            break
        answers[rows, 0, place], answers[rows, 1, place] = token, 1
    return torch.cat([wide, answers], 1)


def answer_ids(tokens: Int[Tensor, "b 4 t"]) -> list[list[int]]:
    """Ids of the answers, without the one that they begin with."""
    return [row[2][row[3].bool()][1:].tolist() for row in tokens]


def rouge(answers: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L (F1, no stemming), each between 0 and 1, averaged over texts.

    >>> rouge(["a dog runs"], ["a dog sleeps"])["rouge2"]
    0.5
    """
    from torchmetrics.functional.text import rouge_score

    found = rouge_score(list(answers), list(wanted), rouge_keys=ROUGE)
    return {name: float(found[f"{name}_fmeasure"]) for name in ROUGE}
