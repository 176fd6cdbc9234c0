"""The preprocessing that a model states about itself: timm, torchvision, Hugging Face, by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from roadworthy.core.images import Geometry, Preprocess, Size
from roadworthy.core.inputs import Stages, stages_from
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadPreprocess

_PILLOW: dict[str, str] = {
    "nearest": "pillow-nearest",
    "nearest-exact": "pillow-nearest",
    "box": "pillow-box",
    "bilinear": "pillow-bilinear",
    "hamming": "pillow-hamming",
    "bicubic": "pillow-bicubic",
    "lanczos": "pillow-lanczos",
}
# Pillow's own numbers, which Hugging Face writes into preprocessor_config.json.
_PILLOW_NUMBERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def stated(value: Any) -> Stages:
    """A Preprocess or a TextInput, or the dict of one, that a model file gives by hand."""
    match value:
        case Preprocess() | TextInput():
            return value
        case Mapping():
            return stages_from({str(k): v for k, v in value.items()})
        case _:
            raise BadPreprocess(f"PREPROCESS is {type(value).__name__}; a dict of stages is needed")


def of_module(module: nn.Module) -> Stages | None:
    """What a module carries: an attribute ``preprocess``, or timm's ``pretrained_cfg``."""
    own: Any = getattr(module, "preprocess", None)
    if isinstance(own, Mapping | Preprocess | TextInput):
        return stated(own)
    config: Any = getattr(module, "pretrained_cfg", None)
    return of_timm(config) if isinstance(config, Mapping) and config.get("input_size") else None


def of_timm(config: Mapping[str, Any]) -> Preprocess:
    """timm's evaluation transform: resize to input size / crop_pct, then crop.

    >>> of_timm({"input_size": (3, 224, 224), "crop_pct": 0.9}).size
    (248, 248)
    """
    crop: Size = (int(config["input_size"][1]), int(config["input_size"][2]))
    mean = tuple(float(v) for v in config.get("mean") or (0.485, 0.456, 0.406))
    fraction = float(config.get("crop_pct") or 0.875)
    scaled: Size = (math.floor(crop[0] / fraction), math.floor(crop[1] / fraction))
    geometry: Geometry = "short-side"
    match config.get("crop_mode"):
        case "squash":
            geometry = "squash"
        case "border":
            geometry = "letterbox"
        case _:
            pass
    return Preprocess(
        resize=_PILLOW[config.get("interpolation") or "bilinear"],
        geometry=geometry,
        size=scaled,
        crop=crop,
        mean=mean,
        std=tuple(float(v) for v in config.get("std") or (0.229, 0.224, 0.225)),
        fill=(round(255 * mean[0]), round(255 * mean[1]), round(255 * mean[2])),
    )


def for_safetensors(stages: Stages) -> dict[str, str]:
    """Metadata of a ``.safetensors`` file by which `of_safetensors` finds `stages` again."""
    return {"preprocess": json.dumps(stages.to_dict())}


def of_safetensors(path: Path) -> Stages | None:
    """What the file's own metadata hold under ``preprocess``, as JSON; None where nothing."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("preprocess")
    if text is None:
        return None
    try:
        return stated(json.loads(text))
    except ValueError as error:
        raise BadPreprocess(f"the metadata of {path}, preprocess: {error}") from error


def timm_classifier(module: nn.Module) -> str | None:
    """Name of a timm model's last layer."""
    config: Any = getattr(module, "pretrained_cfg", {})
    name = config.get("classifier")
    return name if isinstance(name, str) and f"{name}.weight" in module.state_dict() else None


def of_torchvision(entry: Any) -> Preprocess:
    """The transforms of one entry of torchvision's weights."""
    transforms = entry.transforms()
    resize, crop = transforms.resize_size[0], transforms.crop_size[0]
    return Preprocess(
        resize=_PILLOW[transforms.interpolation.value],
        geometry="short-side",
        size=(resize, resize),
        crop=(crop, crop),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def torchvision_entry(entries: Any, path: Path) -> Any:
    """The entry whose file `path` is by its name, else the first (the plain ImageNet recipe)."""
    named = (entry for entry in entries if entry.url.rsplit("/", 1)[-1] == path.name)
    return next(named, next(iter(entries)))


def of_hf(name: str) -> Preprocess | None:
    """The image processor that lies beside a Hugging Face model, None where there is none."""
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return None
    return from_processor(processor.to_dict())


def from_processor(config: Mapping[str, Any]) -> Preprocess:
    """Stages of a Hugging Face image processor's dict.

    >>> from_processor({"do_resize": True, "size": {"height": 8, "width": 9}, "resample": 3}).size
    (8, 9)
    """
    geometry, size = _hf_size(config) if config.get("do_resize") else (None, None)
    normal = bool(config.get("do_normalize"))
    return Preprocess(
        resize=_PILLOW[_PILLOW_NUMBERS[int(config.get("resample") or 2)]] if size else None,
        geometry=geometry,
        size=size,
        crop=_edges(config["crop_size"]) if config.get("do_center_crop") else None,
        mean=_three(config.get("image_mean")) if normal else None,
        std=_three(config.get("image_std")) if normal else None,
    )


def _hf_size(config: Mapping[str, Any]) -> tuple[Geometry, Size]:
    size = config["size"]
    if isinstance(size, Mapping) and size.get("shortest_edge"):
        edge = int(size["shortest_edge"])
        return "short-side", (edge, edge)
    return "squash", _edges(size)


def _edges(size: Any) -> Size:
    match size:
        case int():
            return size, size
        case {"height": int() as height, "width": int() as width}:
            return height, width
        case {"shortest_edge": int() as edge}:
            return edge, edge
        case _:
            raise BadPreprocess(f"image processor size {size!r} is unknown; give --preprocess FILE")


def _three(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
