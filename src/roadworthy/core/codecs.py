"""Each image library called its own way: from a file to 8-bit RGB ``[h w 3]``, as stored.

What they raise on files that they dislike is theirs; `roadworthy.core.decoders` puts it into words.
"""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.sources import Pixels

Kind = Literal["JPEG", "PNG", "WEBP"]


def opencv(content: bytes) -> Pixels:
    """OpenCV; the one library that also undoes the EXIF orientation."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise ValueError("imdecode found no image")
    return np.asarray(pixels, np.uint8)


def ffmpeg(content: bytes, kind: Kind) -> Pixels:
    """FFmpeg through PyAV, with swscale's default conversion to RGB."""
    import av

    # The codec is given the file at once: FFmpeg's guess at the container may go wrong.
    codec: Any = av.CodecContext.create("mjpeg" if kind == "JPEG" else kind.lower(), "r")
    frame = [*codec.decode(av.Packet(content)), *codec.decode(None)][0]
    if frame.format.components[0].bits > 8:
        return _upper_byte(frame.to_ndarray(format="rgb48le"))
    return frame.to_ndarray(format="rgb24")


def simplejpeg(content: bytes, flags: tuple[str, ...]) -> Pixels:
    """libjpeg-turbo, on request with its fast inverse DCT and its fast chroma upsampling."""
    from simplejpeg import decode_jpeg

    # Lenient as the other libraries, which take stray bytes between segments for harmless.
    return decode_jpeg(
        content,
        fastdct="fastdct" in flags,
        fastupsample="fastupsample" in flags,
        strict=False,
    )


def jpegli(content: bytes) -> Pixels:
    """The JPEG decoder of the JPEG XL project; gray and RGB only."""
    import pyjpegli

    # How many pixels are too many is for the caller to say.
    rgb, width, height = pyjpegli.decode(content, max_pixels=None)
    return np.frombuffer(rgb, np.uint8).reshape(height, width, 3)


def torchvision(content: bytes) -> Pixels:
    """What `torchvision.io` decodes on the CPU."""
    import torch
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
    return _upper_byte(decode_image(encoded, ImageReadMode.RGB).permute(1, 2, 0).numpy())


_JPEGLIB_VERSION = Lock()


def jpeglib(content: bytes, version: str) -> Pixels:
    """One of the versions of libjpeg, libjpeg-turbo and mozjpeg that jpeglib brings."""
    library: Any = import_module("jpeglib")
    # The version is one for the whole process, and pixels are decoded when first asked for.
    with TemporaryDirectory() as folder, _JPEGLIB_VERSION, library.version(version):
        path = Path(folder) / "image.jpg"
        path.write_bytes(content)
        pixels: Pixels = library.read_spatial(str(path)).spatial
    match pixels.shape[2]:
        case 1:
            return pixels.repeat(3, axis=2)
        case 4:
            # Adobe stores CMYK inverted, and libjpeg hands it out as stored.
            return _from_cmyk(255 - pixels)
        case _:
            return pixels


def pyvips(content: bytes) -> Pixels:
    """libvips, but for CMYK, which it would convert by a colour profile."""
    library: Any = import_module("pyvips")
    image = library.Image.new_from_buffer(content, "")
    if image.interpretation == "cmyk":
        return _from_cmyk(image.numpy())
    opaque = image[: image.bands - 1] if image.hasalpha() else image
    return opaque.colourspace("srgb").numpy()


def mnn(content: bytes) -> Pixels:
    """MNN's own decoder, in another process: files that it dislikes crash it."""
    # A forked process may not share the pipes of its parent.
    return _mnn_process(os.getpid())(content)


class _MnnProcess:
    """Started by the first image, and anew by the next one after a crash."""

    def __init__(self) -> None:
        self.turn = Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, content: bytes) -> Pixels:
        with self.turn:
            try:
                reply = self._ask(content)
            except BaseException as error:
                # After an interrupt, too: a late reply must not answer the next call.
                self._stop()
                if isinstance(error, EOFError | OSError | pickle.UnpicklingError):
                    raise RuntimeError("MNN crashed") from error
                raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _ask(self, content: bytes) -> Any:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve_mnn; serve_mnn()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump(content, self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            with suppress(OSError):
                self.process.communicate()
            self.process = None


@cache
def _mnn_process(owner: int) -> _MnnProcess:
    return _MnnProcess()


def serve_mnn() -> None:
    """Answer files on stdin with pixels or an exception on stdout, pickled, until stdin ends."""
    # MNN talks on stdout.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(EOFError):
        while True:
            content = pickle.load(sys.stdin.buffer)
            try:
                reply = _mnn_here(content)
            except Exception as error:
                reply = error
            pickle.dump(reply, replies)
            replies.flush()


def _mnn_here(content: bytes) -> Pixels:
    cv: Any = import_module("MNN.cv")
    bgr = cv.imdecode(np.frombuffer(content, np.uint8), cv.IMREAD_COLOR).read()
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def _upper_byte(pixels: NDArray[Any]) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _from_cmyk(pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    return np.asarray(Image.frombytes("CMYK", (width, height), pixels.tobytes()).convert("RGB"))
