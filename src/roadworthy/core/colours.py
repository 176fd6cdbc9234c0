"""Colour paths as deployments run them: what an RGB image is by the time the model gets it.

Cameras and video hand over YUV, mostly NV12: 8 bit, colour at half the resolution, by the matrix of
BT.601 or BT.709, in the limited range (luma 16 to 235) or the full one. Nothing in the pixels says
which, and whoever decodes by another convention than was encoded by shifts every colour.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.libraries import Implementation, find
from roadworthy.core.resizers import Raster
from roadworthy.core.sources import Pixels
from roadworthy.errors import BadPreprocess

# SysNoise (arXiv 2307.00280): BT.601, limited range, colour at full resolution.
_TO_YUV = np.array(
    [
        [0.256788, 0.504129, 0.097906],
        [-0.148223, -0.290993, 0.439216],
        [0.439216, -0.367788, -0.071427],
    ]
)
_TO_RGB = np.array(
    [[1.164383, 0.0, 1.596027], [1.164383, -0.391762, -0.812968], [1.164383, 2.017232, 0.0]]
)
_ZERO = np.array([16, 128, 128])


@dataclass(frozen=True)
class Colour(Implementation):
    """One way from RGB to what the model gets.

    Args:
        flags: of NV12 the conventions of the encoder and the decoder, then how it is decoded.
    """

    @property
    def blue_first(self) -> bool:
        """Whether channels come out as B G R."""
        return "swap" in self.flags

    def __call__(self, raster: Raster) -> Raster:
        """RGB ``[h w 3]``, 0 to 255, as the model gets it; float is rounded on the way to YUV.

        Raises:
            BadPreprocess: its library is missing.

        >>> find_colour("bgr")(np.array([[[1, 2, 3]]], np.uint8)).tolist()
        [[[3, 2, 1]]]
        """
        if reason := self.missing():
            raise BadPreprocess(f"colour {self.name}: {reason}")
        return _converted(self, raster)


def _nv12(encoded: str, decoded: str) -> Colour:
    name = f"nv12-{encoded}" + (f"-as-{decoded}" if decoded != encoded else "")
    return Colour(name, "av", (encoded, decoded))


def _in_bgr(path: Colour) -> Colour:
    """The same path for a model that takes blue first."""
    name = "bgr" if path.name == "rgb" else f"{path.name}-bgr"
    return Colour(name, path.library, (*path.flags, "swap"), path.extra)


_IN_RGB: tuple[Colour, ...] = (
    Colour("rgb", "numpy"),
    Colour("yuv444-601-limited", "numpy", ("yuv444",)),
    Colour("i420-opencv", "opencv-python-headless"),
    _nv12("601-limited", "601-limited"),
    _nv12("601-full", "601-full"),
    _nv12("709-limited", "709-limited"),
    _nv12("709-full", "709-full"),
    _nv12("601-limited", "709-limited"),
    _nv12("709-limited", "601-limited"),
    _nv12("601-limited", "601-full"),
    _nv12("601-full", "601-limited"),
    # What PyAV's to_ndarray does unless told otherwise: swscale's tables, some levels too dark.
    Colour("nv12-601-limited-fast", "av", ("601-limited", "601-limited", "fast")),
)
COLOURS: tuple[Colour, ...] = (*_IN_RGB, *map(_in_bgr, _IN_RGB))


def find_colour(name: str) -> Colour:
    """The colour path of that name; BadPreprocess says which are allowed and which come near.

    >>> find_colour("nv12-601-limited-as-709-limited").flags
    ('601-limited', '709-limited')
    """
    return find("colour", name, COLOURS)


def _converted(colour: Colour, raster: Raster) -> Raster:
    match colour.library, colour.flags:
        case library, (*flags, "swap"):
            rgb = _converted(Colour(colour.name, library, tuple(flags)), raster)
            return rgb[..., ::-1].copy()
        case "numpy", ():
            return raster
        case "numpy", ("yuv444",):
            return _yuv444(_rounded(raster))
        case "opencv-python-headless", ():
            return _i420(_rounded(raster))
        case "av", (encoded, decoded, *ways):
            return _through_nv12(_rounded(raster), encoded, decoded, fast="fast" in ways)
        case library, flags:
            raise BadPreprocess(f"colour path of {library} {flags} given; take one of COLOURS")


def _rounded(raster: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(np.rint(raster).clip(0, 255), np.uint8)


def _yuv444(pixels: Pixels) -> Pixels:
    yuv = np.rint(pixels @ _TO_YUV.T) + _ZERO
    return _rounded((yuv - _ZERO) @ _TO_RGB.T)


def _i420(pixels: Pixels) -> Pixels:
    import cv2

    height, width = pixels.shape[:2]
    planes = cv2.cvtColor(_even(pixels), cv2.COLOR_RGB2YUV_I420)
    rgb = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)
    return _cut(rgb, height, width)


def _through_nv12(pixels: Pixels, encoded: str, decoded: str, fast: bool) -> Pixels:
    from av import VideoFrame
    from av.video.reformatter import Interpolation

    height, width = pixels.shape[:2]
    (matrix, levels), (new_matrix, new_levels) = _convention(encoded), _convention(decoded)
    # Without it swscale decodes by tables that are up to 4 levels off, and repeats the colours
    # where it else interpolates them.
    exact = Interpolation(0) if fast else Interpolation.FULL_CHR_H_INT
    frame = VideoFrame.from_ndarray(_even(pixels), format="rgb24")
    yuv = frame.reformat(format="nv12", dst_colorspace=matrix, dst_color_range=levels, threads=1)
    rgb = yuv.reformat(
        format="rgb24",
        src_colorspace=new_matrix,
        src_color_range=new_levels,
        interpolation=Interpolation.BILINEAR | exact,
        threads=1,
    )
    return _cut(rgb.to_ndarray(), height, width)


def _convention(name: str) -> tuple[int, int]:
    """Matrix and range by PyAV's numbers."""
    from av.video.reformatter import ColorRange, Colorspace

    matrix, levels = name.split("-")
    return (
        {"601": Colorspace.ITU601, "709": Colorspace.ITU709}[matrix],
        {"limited": ColorRange.MPEG, "full": ColorRange.JPEG}[levels],
    )


def _even(pixels: Pixels) -> Pixels:
    """The edge repeated where a side is odd, for colours shared by two pixels each way."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _cut(pixels: NDArray[Any], height: int, width: int) -> Pixels:
    return np.ascontiguousarray(pixels[:height, :width], np.uint8)
