"""The image decoders that a deployment may use: real libraries behind one face.

The same for all of them:

- The content decides what a file is, not its name. Pillow reads the header, and an image of more
  than twice ``PIL.Image.MAX_IMAGE_PIXELS`` pixels is refused before any are allocated.
- JPEG, and PNG and still WebP where the library reads them, are decoded by the library. Any other
  file (GIF, BMP, TIFF, the first frame of an animation) is decoded by Pillow for every decoder.
- Truncated files are refused: a JPEG needs its end-of-image marker, a PNG its last chunk, and
  Pillow opens no WebP cut short. Left to themselves, some libraries fill the rest with gray.
- The EXIF orientation is undone, but for ``pillow-ignore-exif``; OpenCV does it itself.
- Gray is repeated, alpha dropped, of 16 bits the upper 8 are kept. CMYK becomes RGB as in Pillow,
  up to the rounding of libraries that convert it themselves; where a library refuses it (jpegli;
  simplejpeg where its chroma is subsampled), Pillow decodes it.
"""

import io
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from roadworthy.core import codecs
from roadworthy.core.libraries import Implementation, find
from roadworthy.core.sources import (
    Pixels,
    decode,
    keep_pillow_quiet,
    reason,
)
from roadworthy.errors import BadData, BadPreprocess


@dataclass(frozen=True)
class Decoder(Implementation):
    """Turns file content into upright 8-bit RGB pixels ``[h w 3]``.

    Args:
        flags: what is switched on, or which of the decoders in the library is used.

    >>> png = io.BytesIO()
    >>> Image.new("RGB", (4, 2), (255, 0, 0)).save(png, "PNG")
    >>> find_decoder("opencv")(png.getvalue(), "red.png")[0, 0]
    array([255,   0,   0], dtype=uint8)
    """

    def __call__(self, content: bytes, name: str) -> Pixels:
        """Pixels of the image `name`.

        Raises:
            BadData: no image, a damaged, a truncated or a far too large one; names it.
            BadPreprocess: the library is missing; says how to install it.
        """
        header = _header(content, name)
        if not _complete(content, header.kind):
            raise BadData(f"image {name} is truncated; copy or download it again")
        try:
            pixels = _decoded(self, content, header, name)
        except BadData:
            raise
        except ImportError as error:
            why = self.missing() or f"{self.library} cannot be imported: {reason(error)}"
            raise BadPreprocess(f"decoder {self.name}: {why}") from error
        except Exception as error:
            if header.mode == "CMYK":
                return np.array(decode(content, name))
            why = reason(error)
            raise BadData(f"image {name} cannot be decoded by {self.name}: {why}") from error
        return np.require(pixels, requirements=("C", "W"))


DECODERS: tuple[Decoder, ...] = (
    Decoder("pillow", "pillow"),
    Decoder("pillow-ignore-exif", "pillow", ("ignore-exif",)),
    Decoder("opencv", "opencv-python-headless"),
    Decoder("ffmpeg", "av"),
    Decoder("simplejpeg", "simplejpeg"),
    Decoder("simplejpeg-fastdct", "simplejpeg", ("fastdct",)),
    Decoder("simplejpeg-fastupsample", "simplejpeg", ("fastupsample",)),
    Decoder("simplejpeg-fastdct-fastupsample", "simplejpeg", ("fastdct", "fastupsample")),
    Decoder("jpegli", "pyjpegli"),
    Decoder("torchvision", "torchvision"),
    Decoder("jpeglib-6b", "jpeglib", ("6b",), "jpeglib"),
    Decoder("jpeglib-7", "jpeglib", ("7",), "jpeglib"),
    Decoder("jpeglib-8", "jpeglib", ("8d",), "jpeglib"),
    Decoder("jpeglib-9", "jpeglib", ("9f",), "jpeglib"),
    Decoder("jpeglib-turbo", "jpeglib", ("turbo210",), "jpeglib"),
    Decoder("jpeglib-mozjpeg", "jpeglib", ("mozjpeg403",), "jpeglib"),
    Decoder("pyvips", "pyvips-binary", (), "pyvips"),
    Decoder("mnn", "mnn", (), "mnn"),
)
"""Every decoder, installed or not; Pillow, the reference, comes first."""


def find_decoder(name: str) -> Decoder:
    """The decoder of that name.

    Raises:
        BadPreprocess: there is none; names the nearest ones and all.

    >>> find_decoder("simplejpeg-fastdct").flags
    ('fastdct',)
    """
    return find("decode", name, DECODERS)


_Kind = codecs.Kind | Literal["other"]


@dataclass(frozen=True)
class _Header:
    kind: _Kind
    mode: str
    orientation: Any


def _header(content: bytes, name: str) -> _Header:
    keep_pillow_quiet()
    # As in `decode`, damaged files make Pillow raise nearly anything.
    try:
        with Image.open(io.BytesIO(content)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            return _Header(_kind(image), image.mode, orientation)
    except Exception as error:
        raise BadData(f"image {name} is corrupt or no image: {reason(error)}") from error


def _kind(image: Image.Image) -> _Kind:
    match image.format:
        case "JPEG" | "MPO":
            return "JPEG"
        case "PNG" | "WEBP" as kind if getattr(image, "n_frames", 1) == 1:
            return kind
        case _:
            return "other"


# Starts a segment, fill bytes included; a stuffed 0, a restart and the start of image do not.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd8\xff]")
_LAST_PNG_CHUNK = b"IEND\xaeB`\x82"


def _complete(content: bytes, kind: _Kind) -> bool:
    match kind:
        case "JPEG":
            return _has_end_of_image(content)
        case "PNG":
            return _LAST_PNG_CHUNK in content
        case "WEBP" | "other":
            return True


def _has_end_of_image(jpeg: bytes) -> bool:
    # Up to the first scan segments are skipped by length: a thumbnail has an end of its own.
    place = 0
    while (found := _MARKER.search(jpeg, place)) and not found[0].endswith(b"\xda"):
        place = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2], "big")
    return found is not None and jpeg.find(b"\xff\xd9", found.end()) >= 0


def _decoded(decoder: Decoder, content: bytes, header: _Header, name: str) -> Pixels:
    """Pixels, upright; the one place that knows which library reads what and what it leaves."""
    kind, orientation = header.kind, header.orientation
    match decoder.library, kind:
        case "pillow", _ if decoder.flags == ("ignore-exif",):
            # The two quarter turns undo each other, any other orientation undoes itself.
            back = {6: 8, 8: 6}.get(orientation, orientation)
            return _turned(np.asarray(decode(content, name)), back)
        case "opencv-python-headless", "JPEG" | "PNG" | "WEBP":
            return codecs.opencv(content)
        case "av", "JPEG" | "PNG" | "WEBP":
            return _turned(codecs.ffmpeg(content, kind), orientation)
        case "torchvision", "JPEG" | "PNG" | "WEBP":
            return _turned(codecs.torchvision(content), orientation)
        case "pyvips-binary", "JPEG" | "PNG" | "WEBP":
            return _turned(codecs.pyvips(content), orientation)
        case "mnn", "JPEG" | "PNG":
            return _turned(codecs.mnn(content), orientation)
        case "simplejpeg", "JPEG":
            return _turned(codecs.simplejpeg(content, decoder.flags), orientation)
        case "pyjpegli", "JPEG":
            return _turned(codecs.jpegli(content), orientation)
        case "jpeglib", "JPEG":
            return _turned(codecs.jpeglib(content, *decoder.flags), orientation)
        case _:
            return np.asarray(decode(content, name))


def _turned(stored: Pixels, orientation: Any) -> Pixels:
    """Upright from `stored`; an orientation that EXIF does not define changes nothing."""
    if orientation not in range(2, 9):
        return stored
    # From 5 on the axes are swapped first; the flips that follow go round in fours.
    pixels = stored.swapaxes(0, 1) if orientation > 4 else stored
    turn = (orientation - 1) % 4
    return pixels[:: -1 if turn in (2, 3) else 1, :: -1 if turn in (1, 2) else 1]
