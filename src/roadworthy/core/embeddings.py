"""Sentence embeddings: an encoder without a head, pooled as its files state, inside the graph."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor, nn

from roadworthy.errors import BadModel

Pooling = Literal["mean", "cls", "max"]
_STATED = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooled:
    """How the states of a text's tokens become one embedding."""

    pooling: Pooling = "mean"
    normalized: bool = False


class HfEmbedding(nn.Module):
    """A Hugging Face encoder that answers one embedding a text."""

    def __init__(self, model: nn.Module, pooled: Pooled) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.register_module("pooler", None)  # behind the first token; nothing here reads it

    def forward(self, tokens: Int[Tensor, "b r t"]) -> Float[Tensor, "b k"]:
        """Embeddings of a batch; padding takes no part in them."""
        types = {"token_type_ids": tokens[:, 2]} if tokens.shape[1] == 3 else {}
        told: Any = self.model(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], **types)
        found = pool(told.last_hidden_state, tokens[:, 1], self.pooled.pooling)
        return nn.functional.normalize(found, dim=1) if self.pooled.normalized else found


def pool(
    states: Float[Tensor, "b t k"], mask: Int[Tensor, "b t"], pooling: Pooling
) -> Float[Tensor, "b k"]:
    """One vector a text, of its tokens alone.

    >>> import torch
    >>> pool(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[1, 1, 0]]), "mean")
    tensor([[3.]])
    """
    kept = mask[:, :, None].to(states.dtype)
    match pooling:
        case "mean":
            return (states * kept).sum(1) / kept.sum(1).clamp(min=1.0)
        case "max":
            return (states * kept + (kept - 1) * 1e9).amax(1)
        case "cls":
            # Padding on the left moves the first token; its place is the first that the mask keeps.
            first = (mask.cumsum(1) == 1).to(states.dtype) * mask.to(states.dtype)
            return (states * first[:, :, None]).sum(1)


def embeds(config: Any) -> bool:
    """Whether a Hugging Face configuration is of a text encoder without a head."""
    bare = any(kind.endswith("Model") for kind in config.architectures or ())
    return bare and hasattr(config, "vocab_size") and not config.is_encoder_decoder


def pooled_of(name: str) -> Pooled:
    """What ``modules.json`` and ``1_Pooling/config.json`` beside a model state, else the mean.

    Raises:
        BadModel: they ask for modules or a pooling that are not mean, cls, max and normalise.
    """
    modules: list[dict[str, Any]] = _read(name, "modules.json") or []
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    stated: dict[str, Any] = _read(name, "1_Pooling/config.json") or {}
    asked = [key for key, on in stated.items() if key.startswith("pooling_mode_") and on is True]
    poolings = [_STATED.get(key, key) for key in asked] or ["mean"]
    unknown = [kind for kind in kinds if kind not in _MODULES]
    if unknown or len(poolings) != 1 or poolings[0] not in get_args(Pooling):
        raise BadModel(
            f"hf:{name} asks for {', '.join(unknown or poolings)} after its encoder; one of mean, "
            "cls and max, and Normalize, are allowed; give a model that needs no more"
        )
    pooling: Any = poolings[0]
    return Pooled(pooling, "Normalize" in kinds)


def longest(name: str, positions: int | None) -> int | None:
    """Tokens of a text at most: ``max_seq_length`` of ``sentence_bert_config.json``, where it is
    there, else the model's positions."""
    stated: dict[str, Any] = _read(name, "sentence_bert_config.json") or {}
    most = stated.get("max_seq_length")
    return min(most, positions or most) if isinstance(most, int) else positions


def cosines(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Cosine of each embedding of `a` with that of `b`, in double precision.

    >>> import torch
    >>> cosines(torch.eye(2), torch.ones(2, 2)).square()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    return nn.functional.cosine_similarity(a.double(), b.double(), dim=1)


def _read(name: str, file: str) -> Any:
    from transformers.utils.hub import cached_file

    found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    if found is None:
        return None
    try:
        return json.loads(Path(found).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadModel(f"{file} of hf:{name} is no JSON: {error}; mend it or remove it") from error
