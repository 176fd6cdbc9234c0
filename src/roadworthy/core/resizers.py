"""Resizers as deployments run them, each library by its own code behind one face.

Whether a filter widens as the image shrinks (antialiasing) sets them apart more than who wrote it:
Pillow, swscale, libvips and torch's antialias do, OpenCV, ncnn, MNN and plain torch do not.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.libraries import Implementation, find, load
from roadworthy.core.sources import Pixels
from roadworthy.errors import BadPreprocess

Raster = NDArray[np.uint8] | NDArray[np.float32]
Size = tuple[int, int]
_MNN = Lock()


@dataclass(frozen=True)
class Resizer(Implementation):
    """One way to bring an image to a size.

    Args:
        flags: the filter by the library's own name, then how it is used.
    """

    def __call__(self, pixels: Pixels, size: Size) -> Raster:
        """RGB ``[h w 3]`` at `size` (height, width): 8 bit, or float32 not rounded, 0 to 255.

        Raises:
            BadPreprocess: its library is missing.

        >>> find_resizer("opencv-area")(np.full((4, 6, 3), 7, np.uint8), (2, 3)).shape
        (2, 3, 3)
        """
        if reason := self.missing():
            raise BadPreprocess(f"resizer {self.name}: {reason}")
        return _resized(self, np.ascontiguousarray(pixels), size)


RESIZERS: tuple[Resizer, ...] = (
    Resizer("pillow-nearest", "pillow", ("NEAREST",)),
    Resizer("pillow-box", "pillow", ("BOX",)),
    Resizer("pillow-bilinear", "pillow", ("BILINEAR",)),
    Resizer("pillow-hamming", "pillow", ("HAMMING",)),
    Resizer("pillow-bicubic", "pillow", ("BICUBIC",)),
    Resizer("pillow-lanczos", "pillow", ("LANCZOS",)),
    Resizer("opencv-nearest", "opencv-python-headless", ("INTER_NEAREST",)),
    Resizer("opencv-nearest-exact", "opencv-python-headless", ("INTER_NEAREST_EXACT",)),
    Resizer("opencv-linear", "opencv-python-headless", ("INTER_LINEAR",)),
    Resizer("opencv-linear-exact", "opencv-python-headless", ("INTER_LINEAR_EXACT",)),
    Resizer("opencv-area", "opencv-python-headless", ("INTER_AREA",)),
    Resizer("opencv-cubic", "opencv-python-headless", ("INTER_CUBIC",)),
    Resizer("opencv-lanczos4", "opencv-python-headless", ("INTER_LANCZOS4",)),
    Resizer("torch-nearest", "torch", ("nearest",)),
    Resizer("torch-bilinear", "torch", ("bilinear",)),
    Resizer("torch-bilinear-antialias", "torch", ("bilinear", "antialias")),
    Resizer("torch-bicubic", "torch", ("bicubic",)),
    Resizer("torch-bicubic-antialias", "torch", ("bicubic", "antialias")),
    Resizer("torch-bilinear-float", "torch", ("bilinear", "float")),
    Resizer("torch-bilinear-antialias-float", "torch", ("bilinear", "antialias", "float")),
    Resizer("torch-bilinear-align-corners", "torch", ("bilinear", "align-corners")),
    # This one goes through YUV and spreads colour over the neighbours; the others work on RGB.
    Resizer("swscale-fast-bilinear", "av", ("FAST_BILINEAR",)),
    Resizer("swscale-bilinear", "av", ("BILINEAR",)),
    Resizer("swscale-bicubic", "av", ("BICUBIC",)),
    Resizer("swscale-area", "av", ("AREA",)),
    Resizer("swscale-lanczos", "av", ("LANCZOS",)),
    Resizer("mnn-nearest", "mnn", ("INTER_NEAREST",), extra="mnn"),
    Resizer("mnn-bilinear", "mnn", ("INTER_LINEAR",), extra="mnn"),
    # MNN 3.6 takes the flag and answers with the nearest pixel: whoever asks for it deploys that.
    Resizer("mnn-bicubic", "mnn", ("INTER_CUBIC",), extra="mnn"),
    # The distribution that brings libvips, whose version is what matters.
    Resizer("pyvips-linear", "pyvips-binary", ("linear",), extra="pyvips"),
    Resizer("pyvips-cubic", "pyvips-binary", ("cubic",), extra="pyvips"),
    Resizer("pyvips-lanczos3", "pyvips-binary", ("lanczos3",), extra="pyvips"),
    Resizer("ncnn-bilinear", "ncnn", extra="ncnn"),
)


def find_resizer(name: str) -> Resizer:
    """The resizer of that name; BadPreprocess says which names are allowed and which come near.

    >>> find_resizer("pillow-box").library
    'pillow'
    """
    return find("resize", name, RESIZERS)


def _resized(resizer: Resizer, pixels: Pixels, size: Size) -> Raster:
    height, width = size
    match resizer.library, resizer.flags:
        case "pillow", (name,):
            image = Image.fromarray(pixels)
            return np.array(image.resize((width, height), Image.Resampling[name]))
        case "opencv-python-headless", (name,):
            return _opencv_resized(pixels, size, name)
        case "torch", (mode, *ways):
            return _torch_resized(pixels, size, mode, ways)
        case "av", (name,):
            return _swscaled(pixels, size, name)
        case "mnn", (name,):
            return _mnn_resized(pixels, size, name)
        case "pyvips-binary", (kernel,):
            image = load("pyvips").Image.new_from_array(pixels)
            across, down = width / image.width, height / image.height
            return image.resize(across, vscale=down, kernel=kernel).numpy()
        case "ncnn", ():
            mat, (old_height, old_width) = load("ncnn").Mat, pixels.shape[:2]
            kind = mat.PixelType.PIXEL_RGB
            planes = mat.from_pixels_resize(pixels, kind, old_width, old_height, width, height)
            # Whole numbers: ncnn resizes 8-bit pixels and turns them into float32 planes after it.
            return np.array(planes).transpose(1, 2, 0).astype(np.uint8, order="C")
        case library, flags:
            raise BadPreprocess(f"resizer of {library} {flags} given; take one of RESIZERS")


def _opencv_resized(pixels: Pixels, size: Size, name: str) -> Raster:
    import cv2

    filtered = cv2.resize(pixels, (size[1], size[0]), interpolation=getattr(cv2, name))
    return np.ascontiguousarray(filtered, np.uint8)


def _torch_resized(pixels: Pixels, size: Size, mode: str, ways: list[str]) -> Raster:
    """As torchvision treats 8-bit tensors: compute in float, then round, unless told to keep it."""
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    corners = None if mode == "nearest" else "align-corners" in ways
    antialias = "antialias" in ways
    y = F.interpolate(x, size, mode=mode, align_corners=corners, antialias=antialias)[0]
    y = y if "float" in ways else y.round().clamp(0, 255).byte()
    return np.ascontiguousarray(y.permute(1, 2, 0).numpy())


def _swscaled(pixels: Pixels, size: Size, name: str) -> Raster:
    from av import VideoFrame
    from av.video.reformatter import Interpolation

    frame = VideoFrame.from_ndarray(pixels, format="rgb24")
    # One thread: images are prepared on many.
    filtered = frame.reformat(
        width=size[1], height=size[0], interpolation=Interpolation[name], threads=1
    )
    return np.ascontiguousarray(filtered.to_ndarray(), np.uint8)


def _mnn_resized(pixels: Pixels, size: Size, name: str) -> Raster:
    # Of the same size MNN hands back its input, and what is read of it is freed memory.
    if pixels.shape[:2] == size:
        return pixels.copy()
    cv, expr = load("MNN.cv"), load("MNN.expr")
    # Threads share one executor and would spoil each other's pixels. Its memory goes with `image`.
    with _MNN:
        image = expr.const(pixels, list(pixels.shape), expr.NHWC, expr.uint8)
        return cv.resize(image, (size[1], size[0]), interpolation=getattr(cv, name)).read().copy()
