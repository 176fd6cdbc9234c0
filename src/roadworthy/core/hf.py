"""Models of Hugging Face folders and hub ids: their task, strictly loaded weights, in float32."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from roadworthy.core import metadata
from roadworthy.core.checkpoints import load_strictly, read_weights
from roadworthy.core.embeddings import HfEmbedding, embeds, longest, pooled_of
from roadworthy.core.generation import HfAnswers
from roadworthy.core.inputs import Stages
from roadworthy.core.spans import HfSpans
from roadworthy.core.specs import Checkpoint, HfSpec, Pretrained, Weights, parse_model_spec
from roadworthy.core.texts import of_folder
from roadworthy.errors import BadModel

Words = Literal["texts", "spans"]
"""What a text is answered by, where labels are such answers."""


class HfLogits(nn.Module):
    """A Hugging Face image classifier that answers the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of a batch."""
        return self.model(pixel_values=images).logits


class HfText(nn.Module):
    """A Hugging Face text classifier that takes ids, attention mask and types in one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "b r t"]) -> Float[Tensor, "b k"]:
        """Logits of a batch."""
        types = {"token_type_ids": tokens[:, 2]} if tokens.shape[1] == 3 else {}
        return self.model(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], **types).logits


def load_hf(spec: HfSpec) -> tuple[nn.Module, Stages | None]:
    """The module of a spec, and what makes its inputs."""
    import transformers

    # Loading takes no time, and its bar would be drawn into files too; what goes wrong is raised.
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    config = _config(spec.name)
    kinds, positions = config.architectures or (), getattr(config, "max_position_embeddings", None)
    if embeds(config):
        module = _weights(spec.name, spec.weights, transformers.AutoModel, ("pooler.",))
        stages = of_folder(spec.name, longest(spec.name, positions))
        return HfEmbedding(module, pooled_of(spec.name)), stages
    match _says(config):
        case "texts":
            module = _weights(spec.name, spec.weights, transformers.AutoModelForSeq2SeqLM)
            return HfAnswers(module), of_folder(spec.name, positions)
        case "spans":
            module = _weights(spec.name, spec.weights, transformers.AutoModelForQuestionAnswering)
            return HfSpans(module), replace(of_folder(spec.name, positions), cut="second")
        case None:
            pass
    if not any("ForSequenceClassification" in kind for kind in kinds):
        module = _weights(spec.name, spec.weights, transformers.AutoModelForImageClassification)
        return HfLogits(module), metadata.of_hf(spec.name)
    module = _weights(spec.name, spec.weights, transformers.AutoModelForSequenceClassification)
    return HfText(module), of_folder(spec.name, positions)


def says_words(name: str) -> Words | None:
    """Whether a folder or hub id answers by words of its own, as an encoder-decoder does, or by
    passages of a context."""
    return _says(_config(name))


def _says(config: Any) -> Words | None:
    kinds = " ".join(config.architectures or ())
    if config.is_encoder_decoder and "ForConditionalGeneration" in kinds:
        return "texts"
    return "spans" if "ForQuestionAnswering" in kinds else None


def _config(name: str) -> Any:
    from transformers import AutoConfig

    if Path(name).is_absolute() and not Path(name).is_dir():
        raise BadModel(f"folder {name} not found; give hf:FOLDER, or an id that the hub knows")
    try:
        return _hub(name, lambda: AutoConfig.from_pretrained(name))
    except BadModel as error:
        if Path(name).is_dir():
            raise
        raise BadModel(f"hf:{name} is no folder here; as an id of the hub: {error}") from error


def _weights(name: str, weights: Weights, auto: Any, unread: tuple[str, ...] = ()) -> nn.Module:
    """The network of a folder; tensors that begin with one of `unread` may be missing."""
    if isinstance(weights, Pretrained):
        # Without these two a layer that the weights lack is random, a wrong shape told in a table.
        asked: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        asked["dtype"] = torch.float32  # else that of the files, half precision too
        module, told = _hub(name, lambda: auto.from_pretrained(name, **asked))
        missing = {*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}
        wrong = sorted(key for key in missing if not key.startswith(unread))
        if wrong:
            raise BadModel(
                f"the weights of hf:{name} lack {len(wrong)} tensors that its config.json asks "
                f"for, or have them in another shape: {', '.join(wrong[:3])}; give a folder whose "
                "files belong together, of a model with its classifier"
            )
        if unused := sorted(told["unexpected_keys"]):
            warnings.warn(
                f"hf:{name} leaves out {len(unused)} tensors of its weights, e.g. {unused[0]}",
                stacklevel=2,
            )
        return module
    module: nn.Module = _hub(name, lambda: _random(auto, name))
    if isinstance(weights, Checkpoint):
        load_strictly(module, read_weights(weights.path), f"checkpoint {weights.path}")
    return module


def _random(auto: Any, name: str) -> nn.Module:
    from transformers import AutoConfig

    return auto.from_config(AutoConfig.from_pretrained(name), dtype=torch.float32)


def _hub(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # damaged files make the libraries raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadModel(
            f"hf:{name} cannot be loaded as a model of images or texts: {reason}; give a "
            "folder with config.json and model.safetensors, or an id that the hub knows"
        ) from error


def stored_type(model: str) -> str | None:
    """Type of the weights on disk as a Hugging Face folder states it, None of other models; all
    of them compute in float32."""
    spec = parse_model_spec(model)
    if not isinstance(spec, HfSpec):
        return None
    stated = _config(spec.name)
    return None if stated.dtype is None else str(stated.dtype).removeprefix("torch.")
