"""Mix training: every image through a decoder, resizer and colour path drawn at random.

SysNoise (arXiv 2307.00280, section 4): a model that has met them all hardly minds which one the
field uses. The drop-in transform is `RandomPreprocess`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from roadworthy.core.colours import COLOURS, find_colour
from roadworthy.core.data import Dataset
from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Preprocess
from roadworthy.core.resizers import RESIZERS, Pixels
from roadworthy.errors import BadData, BadPreprocess
from roadworthy.noise.classes import group
from roadworthy.noise.photo import usable

Mixed = Literal["decode", "resize", "colour"]
Augment = Callable[[Pixels], Pixels]

# One of each class that docs/noise.md found, out of what needs no extra. jpegli, which refuses
# CMYK, would stop a training on ImageNet.
_DIFFERENT: Mapping[Mixed, tuple[str, ...]] = {
    "decode": (
        *("pillow", "ffmpeg", "simplejpeg-fastdct", "simplejpeg-fastupsample"),
        "simplejpeg-fastdct-fastupsample",
    ),
    "resize": (
        *("pillow-nearest", "pillow-box", "pillow-bilinear", "pillow-hamming", "pillow-bicubic"),
        *("pillow-lanczos", "opencv-nearest", "opencv-linear", "opencv-area", "opencv-cubic"),
        *("opencv-lanczos4", "torch-bilinear-align-corners", "swscale-fast-bilinear"),
    ),
    "colour": (
        *("rgb", "yuv444-601-limited", "i420-opencv", "nv12-601-limited", "nv12-601-full"),
        *("nv12-709-limited", "nv12-709-full", "nv12-601-limited-fast"),
    ),
}


class RandomPreprocess:
    """`Preprocess` with decoder, resizer and colour path drawn anew for every image.

    A transform for any torch or torchvision data set. It draws from torch's own random numbers, so
    the workers of a DataLoader differ and ``torch.manual_seed`` fixes them all.

    Args:
        preprocess: of the training system; its geometry and normalisation hold for every draw.
        decoders, resizers, colours: what is drawn from. None: the preprocessing's own and one of
            each class that makes truly different images; no resizers where it resizes nothing.
        augment: done to the decoded pixels ``[h w 3]`` before they are resized, as `RandomArea`.

    Raises:
        BadPreprocess: a name that is unknown or cannot run here; resizers for a preprocessing that
            has no size; nothing to draw from.

    >>> system = Preprocess(resize="pillow-bilinear", geometry="squash", size=(8, 8))
    >>> RandomPreprocess(system, colours=["rgb"])(Image.new("RGB", (20, 10))).shape
    torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        preprocess: Preprocess,
        decoders: Sequence[str] | None = None,
        resizers: Sequence[str] | None = None,
        colours: Sequence[str] | None = None,
        augment: Augment | None = None,
    ) -> None:
        if resizers is not None and preprocess.resize is None:
            raise BadPreprocess(
                f"resizers {', '.join(resizers)} given for a preprocessing that does not resize; "
                "give it resize, geometry and size"
            )
        self.preprocess, self.augment = preprocess, augment
        self.choices: dict[Mixed, tuple[str, ...]] = {
            "decode": _checked(preprocess, "decode", decoders),
            "resize": _checked(preprocess, "resize", resizers),
            "colour": _checked(preprocess, "colour", colours),
        }
        """What each stage is drawn from."""

    def draw(self, generator: torch.Generator | None = None) -> Preprocess:
        """One system; from torch's own random numbers without `generator`."""
        picked = {
            stage: names[int(torch.randint(len(names), (), generator=generator))]
            for stage, names in self.choices.items()
            if names
        }
        return replace(self.preprocess, **picked)

    def __call__(
        self, image: bytes | str | Path | Image.Image | NDArray[Any]
    ) -> Float[Tensor, "c h w"]:
        """The tensor of a file, by its bytes or its path, or of an image decoded before.

        Raises:
            BadData: the file cannot be read; names it.
        """
        stages = self.draw()
        content, name = _content(image)
        pixels = stages.decoded(content, name)
        return stages(pixels if self.augment is None else self.augment(pixels))


@dataclass(frozen=True)
class RandomArea:
    """A random part of the image: RandomResizedCrop without the resizing, which is mixed.

    Goes with ``geometry: squash``.

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width over height.

    >>> RandomArea(scale=(0.25, 0.25), ratio=(1.0, 1.0))(np.zeros((8, 8, 3), np.uint8)).shape
    (4, 4, 3)
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, pixels: Pixels) -> Pixels:
        """The part ``[h w 3]``, drawn from torch's own random numbers."""
        from torchvision.transforms import RandomResizedCrop

        planes = torch.empty(1, 1, 1).expand(3, *pixels.shape[:2])
        top, left, height, width = RandomResizedCrop.get_params(
            planes, list(self.scale), list(self.ratio)
        )
        return pixels[top : top + height, left : left + width]


def different(
    dataset: Dataset, preprocess: Preprocess, stage: Mixed, tolerance: float = 0.4
) -> tuple[str, ...]:
    """Options of `stage` that can run here, one for each that makes other images of `dataset`.

    Colour paths that mistake one convention for another or swap channels are errors to mend, not
    noise to train on, and left out.

    Args:
        dataset: the user's images, of which up to 64 are looked at.
        preprocess: of the training system; its own option comes first.
        stage: which options.
        tolerance: mean levels of 255 by which images of one class may differ, on each image.

    >>> from roadworthy.core.data import load_data
    >>> photos = load_data("builtin:photos").head(2)
    >>> different(photos, Preprocess(), "colour", tolerance=3)
    ('rgb',)
    """
    own = getattr(preprocess, stage)
    if own is None:
        return ()
    names = list(dict.fromkeys((own, *_candidates(preprocess, stage))))
    grouping = group(dataset, [replace(preprocess, **{stage: n}) for n in names], tolerance)
    return tuple(names[head] for head in sorted(set(grouping.members)))


def _checked(preprocess: Preprocess, stage: Mixed, names: Sequence[str] | None) -> tuple[str, ...]:
    """What `stage` is drawn from, each known to run here."""
    own = getattr(preprocess, stage)
    if names is None:
        names = () if own is None else tuple(dict.fromkeys((own, *_defaults(preprocess, stage))))
    elif not names:
        raise BadPreprocess(f"no {stage} given to draw from; name one or more, or leave it out")
    for name in names:
        replace(preprocess, **{stage: name})
    return tuple(names)


def _defaults(preprocess: Preprocess, stage: Mixed) -> tuple[str, ...]:
    names = _DIFFERENT[stage]
    if stage == "colour" and find_colour(preprocess.colour).blue_first:
        return tuple("bgr" if name == "rgb" else f"{name}-bgr" for name in names)
    return names


def _candidates(preprocess: Preprocess, stage: Mixed) -> list[str]:
    match stage:
        case "decode":
            return usable(DECODERS)
        case "resize":
            return usable(RESIZERS)
        case "colour":
            blue_first = find_colour(preprocess.colour).blue_first
            alike = (path for path in COLOURS if path.blue_first == blue_first)
            return usable(path for path in alike if "-as-" not in path.name)


def _content(image: bytes | str | Path | Image.Image | NDArray[Any]) -> tuple[bytes | Pixels, str]:
    match image:
        case bytes():
            return image, "in memory"
        case str() | Path():
            try:
                return Path(image).read_bytes(), str(image)
            except OSError as error:
                raise BadData(f"image {image} cannot be read: {error.strerror}") from error
        case Image.Image():
            return np.asarray(image.convert("RGB")), "in memory"
        case _ if image.dtype != np.uint8:
            raise BadData(f"image of {image.dtype} given; uint8 [h w 3] or [h w] is allowed")
        case _:
            return image, "in memory"
