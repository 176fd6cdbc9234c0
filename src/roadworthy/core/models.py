"""From a model spec, or a module in hand, to a module in eval mode and what is known about it."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from roadworthy.core import metadata
from roadworthy.core.checkpoints import check_finite, class_count, load_strictly, read_weights
from roadworthy.core.embeddings import HfEmbedding
from roadworthy.core.generation import HfAnswers
from roadworthy.core.hf import load_hf
from roadworthy.core.images import Preprocess, preprocess_from
from roadworthy.core.inputs import Stages
from roadworthy.core.inputs import preprocess_from as preprocess_of_any
from roadworthy.core.metanet import MetaNet, named
from roadworthy.core.spans import HfSpans
from roadworthy.core.specs import (
    Checkpoint,
    HfSpec,
    MetaNetSpec,
    ModelSpec,
    OnnxSpec,
    Pretrained,
    PySpec,
    Random,
    TimmSpec,
    TorchvisionSpec,
    parse_model_spec,
)
from roadworthy.core.texts import TextInput, check_vocabulary
from roadworthy.errors import BadModel, brief

Says = Literal["scores", "spans", "embeddings", "texts"]
SHIPPED = Path(__file__).with_name("weights")
"""Weights that come along: a ``NAME.safetensors`` for ``metanet:NAME``."""


def check_says(says: Says, model: object) -> None:
    """BadModel where right answers cannot be counted, or correlated, with labels."""
    match says:
        case "scores":
            return
        case "texts" | "spans":
            raise BadModel(
                f"{model} answers {says}; the road test judges classes: give a classifier, or take "
                "`evaluate`"
            )
        case "embeddings":
            raise BadModel(
                f"{model} answers embeddings; `evaluate`, `noise` and --max-drop judge by labels "
                "and need a model that answers scores, which `adapt` makes of a backbone; "
                "`quantize --eval` compares with the float model"
            )
        case _:
            assert_never(says)


@dataclass(frozen=True)
class LoadedModel:
    """A module in eval mode.

    Args:
        module: images ``[b c h w]``, or token ids and masks ``[b r t]``, in, logits ``[b k]`` out.
        spec: what it was loaded from.
        preprocess: the model's own, None where it carries none.
        input_shape: channels, height, width of its images, None where unknown.
        texts: what makes its tokens, where it reads texts.
        vocabulary: rows of its table of tokens.
    """

    module: nn.Module
    spec: str
    preprocess: Preprocess | None = None
    input_shape: tuple[int, int, int] | None = None
    texts: TextInput | None = None
    vocabulary: int | None = None

    @property
    def stages(self) -> Stages | None:
        """What makes its inputs, of images or of texts."""
        return self.texts or self.preprocess

    @property
    def embeds(self) -> bool:
        """Whether it answers embeddings, which are compared by cosine and need no labels."""
        module = self.module
        headless = isinstance(module, MetaNet) and isinstance(module.classifier, nn.Identity)
        return headless or isinstance(module, HfEmbedding)

    @property
    def says(self) -> Says:
        """What it answers."""
        if self.embeds:
            return "embeddings"
        if isinstance(self.module, HfSpans):
            return "spans"
        return "scores" if self.answers is None else "texts"

    @property
    def meaning(self) -> dict[str, Any]:
        """What `evaluate` must know of its answers, in plain values."""
        bounds = {} if self.answers is None else {"answers": self.answers.bounds.to_dict()}
        return {"says": self.says, **bounds}

    def scoring(self) -> "LoadedModel":
        """This model; BadModel where labels cannot judge what it answers."""
        check_says(self.says, self.spec)
        return self

    def example(self, shape: Sequence[int]) -> Tensor:
        """One input of the right kind: an image of this shape, or a text."""
        if self.texts is None:
            return torch.zeros(1, *shape)
        text = self.texts(("a",))[None]
        return torch.cat([text[:, :2]] * 2, 1) if self.answers else text

    @property
    def answers(self) -> HfAnswers | None:
        """The model, where it answers texts by texts."""
        return self.module if isinstance(self.module, HfAnswers) else None

    def chosen(self, choice: str | None) -> Stages:
        """What ``--preprocess`` asks for, by default its own stages.

        Raises:
            BadPreprocess: it cannot be read, or its tokenizer makes ids that the model lacks.
        """
        stages = preprocess_of_any(choice, self.stages)
        if isinstance(stages, TextInput) and self.vocabulary is not None:
            check_vocabulary(stages, self.vocabulary)
        return stages


def load_model(model: str | nn.Module) -> LoadedModel:
    """The model that a spec names, or the given module, in eval mode with finite weights.

    >>> load_model("torchvision:resnet18@random").input_shape
    (3, 224, 224)

    Raises:
        BadModel: an unknown name (with the nearest known), a checkpoint that does not fit, a file
            that does not run, NaN weights.
    """
    if isinstance(model, nn.Module):
        return _loaded(model, type(model).__name__, metadata.of_module(model))
    module, own = _build(parse_model_spec(model))
    return _loaded(module, model, own)


def preprocess_for(model: LoadedModel, choice: str | None) -> Preprocess:
    """What ``--preprocess`` asks for; the model's own metadata where it says nothing."""
    return preprocess_from(choice, model.preprocess)


def check_onnx(path: Path) -> Path:
    """`path`, if it can be an ONNX file at all; BadModel where it is missing or empty."""
    if not path.is_file():
        raise BadModel(f"onnx file {path} not found; give the path of an .onnx file")
    if path.stat().st_size == 0:
        raise BadModel(f"onnx file {path} is empty (0 bytes); export it again")
    return path


def _loaded(module: nn.Module, spec: str, own: Stages | None) -> LoadedModel:
    if isinstance(module, ScriptModule):
        raise BadModel(f"{spec} is a TorchScript module; give the nn.Module that it was made from")
    _guarded(lambda: module.eval().requires_grad_(False), spec)
    check_finite(module, spec)
    if isinstance(own, TextInput):
        return LoadedModel(module, spec, texts=own, vocabulary=_vocabulary(module))
    size = own.output_size if own else None
    return LoadedModel(module, spec, own, (3, *size) if size else None)


def _vocabulary(module: nn.Module) -> int | None:
    """Rows of the table in which a Hugging Face model looks its tokens up."""
    inner: Any = getattr(module, "model", None)
    table = inner.get_input_embeddings() if hasattr(inner, "get_input_embeddings") else None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def _build(spec: ModelSpec) -> tuple[nn.Module, Stages | None]:
    match spec:
        case TimmSpec():
            return _timm(spec)
        case TorchvisionSpec():
            return _torchvision(spec)
        case MetaNetSpec():
            return _metanet(spec)
        case HfSpec():
            return load_hf(spec)
        case PySpec():
            return _py(spec)
        case OnnxSpec():
            check_onnx(spec.path)
            raise BadModel(
                f"onnx:{spec.path} is already a graph for a runtime, which `evaluate` runs; "
                "give the torch model it came from"
            )
        case _:
            assert_never(spec)


def _timm(spec: TimmSpec) -> tuple[nn.Module, Stages | None]:
    import timm

    if not timm.is_model(spec.name):
        raise BadModel(_unknown("timm", spec.name, timm.list_models()))
    if isinstance(spec.weights, Pretrained):
        module = _downloaded(spec.name, lambda: timm.create_model(spec.name, pretrained=True))
        return module, metadata.of_module(module)
    module = timm.create_model(spec.name, pretrained=False)
    if isinstance(spec.weights, Checkpoint):
        own = metadata.timm_classifier(module)
        module = _filled(
            module, own, spec.weights.path, lambda k: timm.create_model(spec.name, num_classes=k)
        )
    return module, metadata.of_module(module)


def _torchvision(spec: TorchvisionSpec) -> tuple[nn.Module, Preprocess | None]:
    from torchvision import models

    known = models.list_models(module=models)
    if spec.name not in known:
        raise BadModel(_unknown("torchvision", spec.name, known))
    entries: Any = models.get_model_weights(spec.name)
    if isinstance(spec.weights, Pretrained):
        entry = entries.DEFAULT
        module = _downloaded(spec.name, lambda: models.get_model(spec.name, weights=entry))
        return module, metadata.of_torchvision(entry)
    module: nn.Module = models.get_model(spec.name, weights=None)
    if isinstance(spec.weights, Checkpoint):
        path = spec.weights.path
        module = _filled(
            module,
            _last_linear(module),
            path,
            lambda k: models.get_model(spec.name, weights=None, num_classes=k),
        )
        return module, metadata.of_torchvision(metadata.torchvision_entry(entries, path))
    return module, metadata.of_torchvision(next(iter(entries)))


def _metanet(spec: MetaNetSpec) -> tuple[nn.Module, Stages | None]:
    config = named(spec.name)
    match spec.weights:
        case Pretrained():
            path = shipped(spec.name)
        case Random():
            return MetaNet(config, 1000), None
        case Checkpoint(path):
            pass
        case _:
            assert_never(spec.weights)
    weights = read_weights(path)
    module = MetaNet(config, class_count(weights, "classifier") or 0)
    load_strictly(module, weights, f"checkpoint {path}")
    return module, metadata.of_safetensors(path)


def shipped(name: str) -> Path:
    """The file of `SHIPPED` with the weights of a MetaNet; BadModel where there is none."""
    there = {path.stem: path for path in SHIPPED.glob("*.safetensors")}
    if name not in there:
        raise BadModel(
            f"metanet:{name} has no weights that come along ({', '.join(sorted(there)) or 'none'} "
            f"has); give a file of your own by metanet:{name}@weights.safetensors, or "
            f"metanet:{name}@random"
        )
    return there[name]


def _filled(
    module: nn.Module, classifier: str | None, path: Path, rebuild: Callable[[int], nn.Module]
) -> nn.Module:
    """`module`, rebuilt where the checkpoint has other classes, with the weights of `path`."""
    weights = read_weights(path)
    classes = class_count(weights, classifier) if classifier else None
    if classifier and classes and classes != module.state_dict()[f"{classifier}.weight"].shape[0]:
        module = rebuild(classes)
    load_strictly(module, weights, f"checkpoint {path}")
    return module


def _last_linear(module: nn.Module) -> str | None:
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else None


def _py(spec: PySpec) -> tuple[nn.Module, Stages | None]:
    source = _run_file(spec.path)
    build = getattr(source, spec.function, None)
    if not callable(build):
        own = (
            n for n, v in vars(source).items() if getattr(v, "__module__", "") == source.__name__
        )
        found = [n for n in own if not n.startswith("_")]
        raise BadModel(
            f"{spec.path} has no function {spec.function!r}; it has {', '.join(found) or 'none'}"
        )
    module = _guarded(build, f"{spec.path}:{spec.function}")
    if not isinstance(module, nn.Module):
        raise BadModel(
            f"{spec.path}:{spec.function} returned {type(module).__name__}; return an nn.Module"
        )
    if isinstance(spec.weights, Checkpoint):
        path = spec.weights.path
        load_strictly(module, read_weights(path), f"checkpoint {path}")
    stated = getattr(source, "PREPROCESS", None)
    return module, metadata.of_module(module) if stated is None else metadata.stated(stated)


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadModel(f"model file {path} not found; give py:FILE.py:FUNCTION")
    name = f"roadworthy_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadModel(f"model file {path} is no Python file; give py:FILE.py:FUNCTION")
    source = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up by name.
    sys.modules[name] = source
    loader = spec.loader
    _guarded(lambda: loader.exec_module(source), str(path))
    return source


def _guarded(call: Callable[[], Any], what: str) -> Any:
    try:
        return call()
    except SystemExit as error:
        raise BadModel(
            f"{what} ends the program; guard what only a script does by if __name__ == '__main__'"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadModel(f"{what} raised {type(error).__name__}: {reason}") from error


def _downloaded(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except (OSError, RuntimeError) as error:
        reason = brief(error, 160)
        raise BadModel(
            f"the pretrained weights of {name} cannot be fetched ({reason}); give a local file by "
            f"{name}@weights.pth, or {name}@random"
        ) from error


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name.partition(".")[0], known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"see {kind}'s list of models"
    return f"{kind} has no model {name!r}; {hint}"
