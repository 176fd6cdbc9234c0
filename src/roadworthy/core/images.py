"""Preprocess: decode -> resize -> crop -> colour -> normalise, each stage named, none implied.

Between the stages an image is 8-bit RGB, so that every resizer starts and ends on the same grid.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

import numpy as np
import torch
import yaml
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from roadworthy.errors import BadPreprocess

Decode = Literal["pillow"]
Resize = Literal[
    "pillow-nearest",
    "pillow-box",
    "pillow-bilinear",
    "pillow-hamming",
    "pillow-bicubic",
    "pillow-lanczos",
    "torch-bilinear",
    "torch-bilinear-antialias",
]
Geometry = Literal["short-side", "squash", "letterbox"]
Colour = Literal["rgb", "bgr"]
Size = tuple[int, int]

# No classifier comes near it, and Pillow takes 9460 pixels square for an attack.
_MAX_SIDE = 8192
_EXAMPLE = "resize: pillow-bilinear, geometry: short-side, size: 256"


def _check_sides(name: str, pair: Size | None) -> None:
    if pair is not None and not all(1 <= side <= _MAX_SIDE for side in pair):
        raise BadPreprocess(f"{name} {pair} given; 1 to {_MAX_SIDE} pixels are allowed")


def _check_colour(name: str, values: tuple[float, ...] | None) -> None:
    if values is not None and not (len(values) == 3 and all(map(math.isfinite, values))):
        raise BadPreprocess(f"{name} {values} given; three numbers are needed, R G B")


def _check_levels(fill: tuple[float, ...]) -> None:
    if not all(level in range(256) for level in fill):
        raise BadPreprocess(f"fill {fill} given; whole numbers from 0 to 255 are allowed, R G B")


@dataclass(frozen=True)
class Preprocess:
    """From an image to the tensor a model eats; an absent stage is the identity.

    Args:
        decode: who turns file bytes into pixels.
        resize: library and filter; goes with `geometry` and `size`.
        geometry: ``short-side`` scales until both sides cover `size`, ``squash`` ignores the aspect
            ratio, ``letterbox`` fits inside `size` and fills the rest with `fill`.
        size: height and width in pixels.
        crop: height and width of the centre crop; smaller images are padded with black.
        colour: channel order of the tensor.
        mean, std: per channel, on the scale where white is 1.
        fill: 8-bit RGB of the letterbox.

    >>> IMAGENET(Image.new("RGB", (300, 400))).shape
    torch.Size([3, 224, 224])
    """

    decode: Decode = "pillow"
    resize: Resize | None = None
    geometry: Geometry | None = None
    size: Size | None = None
    crop: Size | None = None
    colour: Colour = "rgb"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: tuple[int, int, int] = (114, 114, 114)

    def __post_init__(self) -> None:
        stages = (self.resize, self.geometry, self.size)
        if any(stages) and not all(stages):
            given = [n for n in ("resize", "geometry", "size") if getattr(self, n)]
            raise BadPreprocess(
                f"{', '.join(given)} given alone; resize, geometry and size come together or not "
                f"at all, e.g. {_EXAMPLE}"
            )
        _check_sides("size", self.size)
        _check_sides("crop", self.crop)
        for name, values in (("mean", self.mean), ("std", self.std), ("fill", self.fill)):
            _check_colour(name, values)
        if self.std is not None and min(self.std) <= 0:
            raise BadPreprocess(f"std {self.std} given; numbers above 0 are allowed")
        _check_levels(self.fill)

    @property
    def output_size(self) -> Size | None:
        """Height and width of every tensor, or None where it depends on the image."""
        return self.crop or (None if self.geometry == "short-side" else self.size)

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        """The tensor of an RGB image."""
        if self.resize and self.geometry and self.size:
            image = _fit(image, self.resize, self.geometry, self.size, self.fill)
        if self.crop:
            image = centre_crop(image, self.crop)
        return torch.from_numpy(_normalised(image, self.colour, self.mean, self.std))

    def to_dict(self) -> dict[str, Any]:
        """Stages as plain values; absent ones are left out.

        >>> Preprocess.from_dict(IMAGENET.to_dict()) == IMAGENET
        True
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.geometry != "letterbox":
            del values["fill"]
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {k: v for k, v in plain.items() if v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Stages out of plain values, as a YAML file holds them; a single size is a square.

        Raises:
            BadPreprocess: an unknown stage or option, naming the nearest known one.
        """
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise BadPreprocess(f"stage {name!r} given{_near(name, known)}; {_list(known)}")
        return cls(**{name: _stage(name, value) for name, value in values.items()})

    @classmethod
    def from_yaml(cls, path: Path) -> "Preprocess":
        """Stages out of a YAML or JSON file; BadPreprocess names the file."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise BadPreprocess(f"preprocess file {path} cannot be read: {reason}") from error
        if not isinstance(values, dict):
            raise BadPreprocess(
                f"preprocess file {path} holds no stages; write some, e.g. {{{_EXAMPLE}}}"
            )
        try:
            return cls.from_dict({str(k): v for k, v in values.items()})
        except BadPreprocess as error:
            raise BadPreprocess(f"preprocess file {path}: {error}") from error


IMAGENET = Preprocess(
    resize="pillow-bilinear",
    geometry="short-side",
    size=(256, 256),
    crop=(224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def preprocess_from(choice: str | None, own: Preprocess | None) -> Preprocess:
    """The preprocessing that ``--preprocess`` asks for: by name, by file, or the model's `own`.

    Raises:
        BadPreprocess: nothing was chosen and the model carries no metadata.
    """
    if choice == "imagenet":
        return IMAGENET
    if choice is not None and Path(choice).suffix.lower() in (".yaml", ".yml", ".json"):
        return Preprocess.from_yaml(Path(choice))
    if choice is not None:
        raise BadPreprocess(f"preprocess {choice!r} given; imagenet, FILE.yaml or FILE.json")
    if own is None:
        raise BadPreprocess(
            "the model carries no preprocessing of its own; give --preprocess imagenet or a YAML "
            "file, or define PREPROCESS = {...} beside a py: model"
        )
    return own


def resized(image: Image.Image, resize: Resize, size: Size) -> Image.Image:
    """`image` at exactly `size` (height, width)."""
    height, width = size
    match resize:
        case "torch-bilinear" | "torch-bilinear-antialias":
            return _torch_resized(image, size, antialias=resize.endswith("antialias"))
        case "pillow-nearest":
            return image.resize((width, height), Image.Resampling.NEAREST)
        case "pillow-box":
            return image.resize((width, height), Image.Resampling.BOX)
        case "pillow-bilinear":
            return image.resize((width, height), Image.Resampling.BILINEAR)
        case "pillow-hamming":
            return image.resize((width, height), Image.Resampling.HAMMING)
        case "pillow-bicubic":
            return image.resize((width, height), Image.Resampling.BICUBIC)
        case "pillow-lanczos":
            return image.resize((width, height), Image.Resampling.LANCZOS)
        case _:
            assert_never(resize)


def centre_crop(image: Image.Image, crop: Size) -> Image.Image:
    """The middle `crop` (height, width), rounded as torchvision rounds; black where it overhangs.

    >>> centre_crop(Image.new("RGB", (5, 2)), (4, 4)).size
    (4, 4)
    """
    height, width = crop
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _fit(
    image: Image.Image, resize: Resize, geometry: Geometry, size: Size, fill: tuple[int, int, int]
) -> Image.Image:
    match geometry:
        case "squash":
            return resized(image, resize, size)
        case "short-side":
            return resized(image, resize, _covering(image, size))
        case "letterbox":
            inner = resized(image, resize, _inside(image, size))
            canvas = Image.new("RGB", (size[1], size[0]), fill)
            corner = (size[1] - inner.width) // 2, (size[0] - inner.height) // 2
            canvas.paste(inner, corner)
            return canvas
        case _:
            assert_never(geometry)


def _covering(image: Image.Image, size: Size) -> Size:
    # The short side is met exactly and the long one truncated, as torchvision's Resize does.
    height, width = size
    if image.height * width <= image.width * height:
        return height, max(width, int(height * image.width / image.height))
    return max(height, int(width * image.height / image.width)), width


def _inside(image: Image.Image, size: Size) -> Size:
    scale = min(size[0] / image.height, size[1] / image.width)
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _torch_resized(image: Image.Image, size: Size, antialias: bool) -> Image.Image:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    x = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=antialias)
    return Image.fromarray(x[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


# numpy, since images are prepared on many threads and each would start torch's own pool.
def _normalised(
    image: Image.Image,
    colour: Colour,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> NDArray[np.float32]:
    x = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
    match colour:
        case "rgb":
            pass
        case "bgr":
            x = np.ascontiguousarray(x[::-1])
        case _:
            assert_never(colour)
    if mean is not None:
        x = x - np.array(mean, np.float32)[:, None, None]
    return x if std is None else x / np.array(std, np.float32)[:, None, None]


def _stage(name: str, value: Any) -> Any:
    match name:
        case "decode":
            return _option(name, value, get_args(Decode))
        case "resize":
            return _option(name, value, get_args(Resize))
        case "geometry":
            return _option(name, value, get_args(Geometry))
        case "colour":
            return _option(name, value, get_args(Colour))
        case "size" | "crop":
            return _pixels(name, value)
        case "fill":
            levels = _numbers(name, value)
            _check_levels(levels)
            return tuple(map(int, levels))
        case _:
            return _numbers(name, value)


def _option(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadPreprocess(f"{name} {value!r} given{_near(str(value), allowed)}; {_list(allowed)}")
    return value


def _pixels(name: str, value: Any) -> Size:
    match value:
        case bool():
            pass
        case int():
            return value, value
        case [int() as height, int() as width]:
            return height, width
        case _:
            pass
    raise BadPreprocess(f"{name} {value!r} given; one number of pixels or [height, width]")


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        # The characters of "123" are three numbers too, and the keys of a dict may be.
        found = () if isinstance(value, str | bytes | Mapping | Set) else tuple(map(float, value))
        _check_colour(name, found)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadPreprocess(f"{name} {value!r} given; three numbers are needed, R G B") from error
    return found


def _near(given: str, known: tuple[str, ...] | list[str]) -> str:
    near = get_close_matches(given, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _list(known: tuple[str, ...] | list[str]) -> str:
    return f"{', '.join(known)} are allowed"
