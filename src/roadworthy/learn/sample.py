"""One image and everything that its source says of it."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from roadworthy.core.boxes_data import upright_size
from roadworthy.errors import BadData


@dataclass(frozen=True, eq=False)
class Sample:
    """An encoded image with its annotations; None and () mean that nobody says.

    Args:
        image: content of an image file.
        name: its file, to be blamed in messages.
        source: which data set it is from.
        licence: its terms, as the source words them.
        split: part of the source, such as train or test.
        captions: sentences about the whole image, none of them empty.
        labels: names of the classes of the whole image.
        boxes: x1 y1 x2 y2 in pixels of the upright image, each inside it and with an area.
        box_labels: class name of each box.
        mask: an id for each pixel, 255 where nobody says.
        mask_labels: the class name of each id of `mask`; () where ids have no names.
        depth: metres along the optical axis, NaN where none was measured.

    Raises:
        BadData: annotations that do not fit the image or one another; names image and fault.
    """

    image: bytes
    name: str
    source: str
    licence: str = "unknown"
    split: str = "all"
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    boxes: Float[NDArray[np.floating[Any]], "n 4"] | None = None
    box_labels: tuple[str, ...] = ()
    mask: UInt8[NDArray[np.uint8], "h w"] | None = None
    mask_labels: tuple[str, ...] = ()
    depth: Float[NDArray[np.float32], "h w"] | None = None

    def __post_init__(self) -> None:
        if not all(each.strip() for each in self.captions):
            raise BadData(f"image {self.name} has an empty caption; remove it or write one")
        width, height = upright_size(self.image, self.name)
        for what, pixels in (("mask", self.mask), ("depth map", self.depth)):
            if pixels is not None and pixels.shape != (height, width):
                raise BadData(
                    f"image {self.name} is {width}x{height} and its {what} "
                    f"{pixels.shape[1]}x{pixels.shape[0]}; one value for each pixel is needed"
                )
        self._check_boxes(width, height)

    def _check_boxes(self, width: int, height: int) -> None:
        boxes = np.zeros((0, 4)) if self.boxes is None else self.boxes
        if len(boxes) != len(self.box_labels):
            raise BadData(
                f"image {self.name} has {len(boxes)} boxes and {len(self.box_labels)} class names "
                "for them; one each is needed"
            )
        inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= [width, height]).all(1)
        wrong = ~(inside & (boxes[:, 2:] > boxes[:, :2]).all(1))
        if wrong.any():
            raise BadData(
                f"image {self.name}, box {boxes[wrong][0].tolist()}: x1 < x2 and y1 < y2 inside "
                f"{width}x{height} are needed; correct or remove it"
            )

    @property
    def annotated(self) -> bool:
        """Whether anything is said of the image; no box in it is something."""
        maps = (self.boxes, self.mask, self.depth)
        return bool(self.captions or self.labels) or any(each is not None for each in maps)

    @property
    def sha256(self) -> str:
        """Hash of the file's content."""
        return hashlib.sha256(self.image).hexdigest()
