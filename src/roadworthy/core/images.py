"""Preprocess: decode -> resize -> crop -> colour -> normalise, each stage named, none implied.

Between the stages an image is 8-bit RGB; only the resizers that end in ``-float`` hand on unrounded
values.
"""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, assert_never, cast, get_args

import numpy as np
import torch
import yaml
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from roadworthy.core.colours import find_colour
from roadworthy.core.decoders import find_decoder
from roadworthy.core.resizers import Pixels, Raster, find_resizer
from roadworthy.errors import BadPreprocess

Geometry = Literal[
    "short-side", "short-side-round", "short-side-floor", "short-side-round-floor", "squash",
    "letterbox",
]  # fmt: skip
Precision = Literal["float32", "float16"]
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


def _check_present(name: str, missing: str | None) -> None:
    if missing is not None:
        raise BadPreprocess(f"{name} given, which cannot run here: {missing}")


@dataclass(frozen=True)
class Preprocess:
    """From an image to the tensor a model eats; an absent stage is the identity.

    Args:
        decode: who turns file bytes into pixels (`roadworthy.core.decoders`).
        resize: library and filter (`roadworthy.core.resizers`); goes with `geometry` and `size`.
        geometry: ``short-side`` scales until both sides cover `size`, the long side truncated as
            torchvision does it (``-round``: rounded; ``-floor``: the corner of the crop rounded
            down; ``-round-floor``: both), ``squash`` ignores the aspect ratio, ``letterbox`` fits
            inside `size` and fills the rest with `fill`.
        size: height and width in pixels.
        crop: height and width of the centre crop; smaller images are padded with black.
        colour: channel order, and the way through YUV (`roadworthy.core.colours`).
        mean, std: per channel, on the scale where white is 1.
        fill: 8-bit RGB of the letterbox.
        precision: of the numbers that the model is handed.

    >>> IMAGENET(Image.new("RGB", (300, 400))).shape
    torch.Size([3, 224, 224])
    """

    decode: str = "pillow"
    resize: str | None = None
    geometry: Geometry | None = None
    size: Size | None = None
    crop: Size | None = None
    colour: str = "rgb"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: tuple[int, int, int] = (114, 114, 114)
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for part in (find_decoder(self.decode), find_colour(self.colour)):
            _check_present(part.name, part.missing())
        if self.resize is not None:
            _check_present(self.resize, find_resizer(self.resize).missing())
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
        squeezed = self.geometry in ("squash", "letterbox")
        return self.crop or (self.size if squeezed else None)

    def decoded(self, content: bytes | Pixels, name: str) -> Pixels:
        """Pixels ``[h w 3]`` of a file, or of an image that never was one; BadData names it."""
        if isinstance(content, np.ndarray):
            return np.broadcast_to(
                content if content.ndim == 3 else content[..., None], (*content.shape[:2], 3)
            )
        return find_decoder(self.decode)(content, name)

    def fitted(self, pixels: Pixels) -> Raster:
        """Resized and cropped ``[h w 3]``."""
        raster: Raster = pixels
        if self.resize and self.geometry and self.size:
            raster = _fit(pixels, self.resize, self.geometry, self.size, self.fill)
        if self.crop is None:
            return raster
        return centre_crop(raster, self.crop, down=_floors(self.geometry))

    def coloured(self, raster: Raster) -> Raster:
        """In the channel order and with the losses of its colour path ``[h w 3]``."""
        return find_colour(self.colour)(raster)

    def normalised(self, raster: Raster) -> Float[Tensor, "c h w"]:
        """On the scale that the model wants."""
        x = torch.from_numpy(_normalised(raster, self.mean, self.std))
        return x.half().float() if self.precision == "float16" else x

    def __call__(self, image: Image.Image | Pixels) -> Float[Tensor, "c h w"]:
        """The tensor of an RGB image."""
        return self.normalised(self.coloured(self.fitted(np.asarray(image))))

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


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the model's input: input = image * scale + offset, y before x.

    Args:
        scale: of the resizer, per axis.
        offset: of the letterbox or, negative, of the crop, in input pixels.
        size: height and width of the image.
    """

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: Size


def placement(stages: Preprocess, size: Size) -> Placement:
    """Where `stages` put an image of `size` (height, width).

    >>> half = Preprocess(resize="pillow-box", geometry="letterbox", size=(8, 8))
    >>> placement(half, (8, 16))
    Placement(scale=(0.5, 0.5), offset=(2, 0), size=(8, 16))
    """
    inner, top, left = size, 0, 0
    if stages.geometry and stages.size:
        inner = _resized_to(stages.geometry, size, stages.size)
        if stages.geometry == "letterbox":
            top, left = ((o - i) // 2 for o, i in zip(stages.size, inner, strict=True))
            outer = stages.size
        else:
            outer = inner
    else:
        outer = size
    if stages.crop:
        down = _floors(stages.geometry)
        spare = [o - c for o, c in zip(outer, stages.crop, strict=True)]
        cut = [s // 2 if down else round(s / 2) for s in spare]
        top, left = top - cut[0], left - cut[1]
    return Placement((inner[0] / size[0], inner[1] / size[1]), (top, left), size)


def centre_crop(raster: Raster, crop: Size, down: bool = False) -> Raster:
    """The middle `crop` (height, width), black where it overhangs.

    Its corner is rounded as torchvision rounds, or `down`.

    >>> centre_crop(np.zeros((2, 5, 3), np.uint8), (4, 4)).shape
    (4, 4, 3)
    """
    height, width = crop
    spare = raster.shape[0] - height, raster.shape[1] - width
    top, left = (s // 2 if down else round(s / 2) for s in spare)
    if min(spare) < 0:
        edges = max(0, -top), max(0, height + top - raster.shape[0])
        sides = max(0, -left), max(0, width + left - raster.shape[1])
        raster = cast(Raster, np.pad(raster, (edges, sides, (0, 0))))
        top, left = max(0, top), max(0, left)
    return raster[top : top + height, left : left + width]


def _fit(
    pixels: Pixels, resize: str, geometry: Geometry, size: Size, fill: tuple[int, int, int]
) -> Raster:
    inner = find_resizer(resize)(pixels, _resized_to(geometry, pixels.shape[:2], size))
    if geometry != "letterbox":
        return inner
    canvas = cast(Raster, np.empty((*size, 3), inner.dtype))
    canvas[:] = fill
    top, left = (size[0] - inner.shape[0]) // 2, (size[1] - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def _floors(geometry: Geometry | None) -> bool:
    """Whether the corner of a crop is rounded down."""
    return geometry in ("short-side-floor", "short-side-round-floor")


def _resized_to(geometry: Geometry, own: Size, size: Size) -> Size:
    """Height and width that an image of `own` is resized to."""
    match geometry:
        case "squash":
            return size
        case "short-side" | "short-side-floor":
            return _covering(own, size, math.floor)
        case "short-side-round" | "short-side-round-floor":
            return _covering(own, size, round)
        case "letterbox":
            scale = min(size[0] / own[0], size[1] / own[1])
            return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))
        case _:
            assert_never(geometry)


def _covering(own: Size, size: Size, whole: Callable[[float], int]) -> Size:
    # The short side is met exactly and the long one made whole; torchvision's Resize truncates it.
    (height, width), (own_height, own_width) = size, own
    if own_height * width <= own_width * height:
        return height, max(width, whole(height * own_width / own_height))
    return max(height, whole(width * own_height / own_width)), width


# numpy, since images are prepared on many threads and each would start torch's own pool.
def _normalised(
    raster: Raster, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> NDArray[np.float32]:
    # One array, written in place: five times as fast as an array for each step.
    x = np.empty((3, *raster.shape[:2]), np.float32)
    np.divide(raster.transpose(2, 0, 1), np.float32(255), out=x)
    if mean is not None:
        x -= np.array(mean, np.float32)[:, None, None]
    if std is not None:
        x /= np.array(std, np.float32)[:, None, None]
    return x


def _stage(name: str, value: Any) -> Any:
    match name:
        case "decode":
            return find_decoder(_text(name, value)).name
        case "resize":
            return find_resizer(_text(name, value)).name
        case "colour":
            return find_colour(_text(name, value)).name
        case "geometry":
            return _option(name, value, get_args(Geometry))
        case "precision":
            return _option(name, value, get_args(Precision))
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


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadPreprocess(f"{name} {value!r} given; the name of one is needed")
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
