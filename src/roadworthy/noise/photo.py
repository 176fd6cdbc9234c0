"""One photo as every usable decoder sees it, and what becomes of it from there."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Preprocess, Size
from roadworthy.core.resizers import Raster
from roadworthy.core.sources import Pixels
from roadworthy.errors import BadData, BadInput, BadPreprocess

_HOLDS = ("pillow", "pillow-ignore-exif")


def usable(table: Iterable[Any]) -> list[str]:
    """Names of the entries that can run here."""
    return [entry.name for entry in table if entry.missing() is None]


class Photo:
    """A file as every decoder here sees it, those that see the same held once.

    Args:
        content: the file.
        name: of the file, for messages.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.alike: dict[str, list[str]] = {}
        """Decoders by the first one that makes the same pixels."""
        self._pixels: dict[str, Pixels] = {}
        refusals: list[BadInput] = []
        for decoder in usable(DECODERS):
            try:
                self._take(decoder, Preprocess(decode=decoder).decoded(content, name))
            except (BadData, BadPreprocess) as error:
                refusals.append(error)
        if not self._pixels:
            raise refusals[0]

    def _take(self, decoder: str, pixels: Pixels) -> None:
        for first, known in self._pixels.items():
            if np.array_equal(known, pixels):
                self.alike[first].append(decoder)
                return
        self._pixels[decoder] = pixels
        self.alike[decoder] = [decoder]

    def views(self) -> list[str]:
        """Decoders that may hold the image in different ways: by its EXIF tag or not."""
        return [name for name in _HOLDS if name in self.alike] or list(self.alike)[:1]

    def size(self, decoder: str) -> Size:
        """Height and width."""
        height, width = self._pixels[decoder].shape[:2]
        return height, width

    def luma(self, decoder: str) -> NDArray[np.float64]:
        """Brightness of every pixel ``[h w]``."""
        return np.asarray(self._pixels[decoder] @ np.array([0.299, 0.587, 0.114]), np.float64)

    def fitted(self, stages: Preprocess) -> Raster:
        """Resized and cropped ``[h w 3]``."""
        return stages.fitted(self._pixels[stages.decode])

    def raster(self, stages: Preprocess) -> Raster:
        """What is normalised ``[h w 3]``."""
        return stages.coloured(self.fitted(stages))
