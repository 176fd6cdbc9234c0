"""Model specs: what a string such as ``timm:mobilenetv2_100@weights.pth`` names."""

import re
from dataclasses import dataclass
from pathlib import Path

from roadworthy.errors import BadModel


@dataclass(frozen=True)
class Pretrained:
    """Weights that the library itself downloads, or that come along with this one."""


@dataclass(frozen=True)
class Random:
    """No weights: as initialised."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a local file."""

    path: Path


Weights = Pretrained | Random | Checkpoint


@dataclass(frozen=True)
class TimmSpec:
    """``timm:NAME``."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class TorchvisionSpec:
    """``torchvision:NAME``."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class MetaNetSpec:
    """``metanet:NAME`` or ``metanet:FILE.json``."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class HfSpec:
    """``hf:ID_OR_DIR``."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class PySpec:
    """``py:FILE.py:FUNCTION``; the function's own weights stay unless a checkpoint is given."""

    path: Path
    function: str
    weights: Weights


@dataclass(frozen=True)
class OnnxSpec:
    """``onnx:FILE``."""

    path: Path


# Both the path and that of the weights may hold an @; the function between them holds none.
_PY = re.compile(r"(?P<path>.+?):(?P<function>[^@:/\\]+)(@(?P<source>.*))?")
_SUFFIXES = frozenset((".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar", ".pkl"))

ModelSpec = TimmSpec | TorchvisionSpec | MetaNetSpec | HfSpec | PySpec | OnnxSpec


def parse_model_spec(spec: str) -> ModelSpec:
    """What a model spec names; nothing is opened yet.

    >>> parse_model_spec("timm:mobilenetv2_100@random")
    TimmSpec(name='mobilenetv2_100', weights=Random())

    Raises:
        BadModel: an unknown kind of model.
    """
    kind, _, rest = spec.partition(":")
    if kind == "onnx" and rest:
        return OnnxSpec(Path(rest))
    name, _, source = rest.partition("@")
    match kind:
        case "timm" if name:
            return TimmSpec(name, _weights(source))
        case "torchvision" if name:
            return TorchvisionSpec(name, _weights(source))
        case "metanet" if name:
            return MetaNetSpec(name, _weights(source))
        case "hf" if name:
            name, source = _split(rest)
            return HfSpec(name, _weights(source))
        case "py" if parts := _PY.fullmatch(rest):
            return PySpec(Path(parts["path"]), parts["function"], _weights(parts["source"] or ""))
        case _:
            if is_hf_folder(spec):
                raise BadModel(f"model {spec!r} given, a Hugging Face folder; say hf:{spec}")
            raise BadModel(
                f"model {spec!r} given; timm:NAME, torchvision:NAME, metanet:NAME, hf:DIR_OR_ID, "
                "py:FILE.py:FUNCTION (each with @weights.pth or @random) and onnx:FILE are allowed"
            )


def onnx_file(model: str) -> Path | None:
    """The ONNX file that a spec, or a folder that `quantize` wrote, names.

    >>> onnx_file("onnx:net.onnx").name
    'net.onnx'
    """
    folder = Path(model)
    if folder.is_dir() and not is_hf_folder(model):
        return folder / "model.onnx"
    spec = parse_model_spec(model)
    return spec.path if isinstance(spec, OnnxSpec) else None


def is_hf_folder(path: str) -> bool:
    """Whether it is a folder that transformers wrote."""
    config = Path(path) / "config.json"
    return config.is_file() and b'"model_type"' in config.read_bytes()


def _split(rest: str) -> tuple[str, str]:
    """Name and weights: a folder may hold an @ itself, so only `random` or a file follows ours."""
    for name, _, source in (rest.partition("@"), rest.rpartition("@")):
        if name and (source == "random" or Path(source).is_file()):
            return name, source
    name, _, source = rest.rpartition("@")
    return (name, source) if name and Path(source).suffix.lower() in _SUFFIXES else (rest, "")


def _weights(source: str) -> Weights:
    if not source:
        return Pretrained()
    return Random() if source == "random" else Checkpoint(Path(source))
