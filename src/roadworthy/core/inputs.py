"""Who makes what a model is fed: images by `Preprocess`, texts by `TextInput`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from roadworthy.core import images
from roadworthy.core.images import Preprocess
from roadworthy.core.resizers import Pixels
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadPreprocess

Stages = Preprocess | TextInput


def stages_from(values: Mapping[str, Any], own: Stages | None = None) -> Stages:
    """Stages out of plain values, as a YAML file holds them.

    Those of a text may name its changes only; the rest is as in the model's `own`.

    >>> stages_from({"files": "folder", "length": 64}).length
    64

    Raises:
        BadPreprocess: an unknown stage or option, naming the nearest known one.
    """
    if isinstance(own, TextInput):
        return TextInput.from_dict(own.to_dict() | dict(values))
    return TextInput.from_dict(values) if "files" in values else Preprocess.from_dict(values)


def preprocess_from(choice: str | None, own: Stages | None) -> Stages:
    """What ``--preprocess`` asks for: by name, by file, or the model's `own`.

    Raises:
        BadPreprocess: nothing was chosen and the model carries no metadata, or the file cannot be
            read, or names what is not known.
    """
    if choice is None or Path(choice).suffix.lower() not in (".yaml", ".yml", ".json"):
        if isinstance(own, TextInput):
            if choice is None:
                return own
            raise BadPreprocess(f"preprocess {choice!r} given to a text model; FILE.yaml is needed")
        return images.preprocess_from(choice, own)
    path = Path(choice)
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        values = None
    if isinstance(values, dict) and (isinstance(own, TextInput) or "files" in values):
        try:
            return stages_from({str(k): v for k, v in values.items()}, own)
        except BadPreprocess as error:
            raise BadPreprocess(f"preprocess file {path}: {error}") from error
    return Preprocess.from_yaml(path)


def tensor_of(stages: Stages, content: bytes | Pixels, name: str) -> Tensor:
    """The tensor of what a data set holds; BadData names what cannot be read."""
    match stages:
        case Preprocess():
            return stages(stages.decoded(content, name))
        case TextInput():
            return stages(stages.decoded(content, name))
