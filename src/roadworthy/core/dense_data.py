"""Images with a value for every pixel: masks of class ids, maps of distances.

A map is a file beside its image, with the same stem; an image without one is unlabelled. Maps are
read when they are asked for.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from roadworthy.core.boxes_data import names_beside, upright_size
from roadworthy.core.sources import Annotated, Files, image_paths, reason
from roadworthy.errors import BadData

VOID = 255
"""Class id of pixels that nobody judges; models know at most that many classes."""
_NO_DEPTH = (0, 65535)


@dataclass(frozen=True)
class Classes:
    """How a mask is read: pixel values are class ids, `VOID` and `ignore` are not judged."""

    ignore: int = VOID
    kind = "mask"

    def __call__(self, pixels: NDArray[Any], name: str) -> UInt8[NDArray[np.uint8], "h w"]:
        """Class ids; BadData where a value cannot be one.

        >>> Classes(ignore=11)(np.array([[3, 11]]), "mask.png").tolist()
        [[3, 255]]
        """
        ids = np.where(pixels == self.ignore, VOID, pixels)
        if ids.dtype.kind not in "iu" or int(ids.min()) < 0 or int(ids.max()) > VOID:
            raise BadData(
                f"mask {name} has values from {ids.min()} to {ids.max()}; class ids from 0 to "
                f"{VOID - 1} are allowed, and {VOID} where nothing is to be judged"
            )
        return ids.astype(np.uint8)


@dataclass(frozen=True)
class Metres:
    """How a depth map is read: `scale` units are a metre; 0 and 65535 say that none was seen."""

    scale: float = 1000.0
    kind = "depth map"

    def __call__(self, pixels: NDArray[Any], name: str) -> Float[NDArray[np.float32], "h w"]:
        """Metres, NaN where none was seen.

        >>> Metres()(np.array([[1500, 0]]), "depth.png").tolist()
        [[1.5, nan]]
        """
        seen = np.isfinite(pixels) & (pixels > 0) & ~np.isin(pixels, _NO_DEPTH)
        return np.where(seen, pixels / self.scale, np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Maps(Annotated):
    """Image files and a map for each.

    Args:
        files: the images.
        paths: of the maps, None where there is none.
        meaning: of their pixels.
    """

    paths: tuple[Path | None, ...]
    meaning: Classes | Metres

    def key(self, index: int) -> str:
        """Path of the image, a hash of its map and what that means."""
        path = self.paths[index]
        held = "unknown" if path is None else hashlib.sha256(_content(path)).hexdigest()
        return f"{self.files.key(index)} {held} {self.meaning}"

    def known(self, index: int) -> bool:
        """Whether image `index` has a map."""
        return self.paths[index] is not None

    def truth(self, index: int) -> NDArray[Any] | None:
        """The map of image `index` ``[h w]``, None where it has none.

        Raises:
            BadData: it is missing by now, damaged, in colour or of another size than its image.
        """
        path = self.paths[index]
        if path is None:
            return None
        pixels = _pixels(_content(path), self.meaning.kind, path)
        width, height = upright_size(self.read(index), self.name(index))
        if pixels.shape != (height, width):
            raise BadData(
                f"{self.meaning.kind} {path} is {pixels.shape[1]}x{pixels.shape[0]} and its image "
                f"{self.name(index)} {width}x{height}; one value for each pixel is needed"
            )
        return self.meaning(pixels, str(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}") from error


def _pixels(content: bytes, kind: str, path: Path) -> NDArray[Any]:
    """One value per pixel ``[h w]``, the number of its colour where there is a palette."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:
        raise BadData(f"{kind} {path} is corrupt or no image: {reason(error)}") from error
    if pixels.ndim != 2:
        raise BadData(
            f"{kind} {path} holds colours (mode {mode}); one number for each pixel is needed, as "
            "8-bit or 16-bit gray or with a palette"
        )
    return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels


def open_masks(where: str) -> tuple[Maps, tuple[str, ...]]:
    """Images and masks of ``DIR?images=images&masks=masks&suffix=.png&ignore=255``, the defaults,
    and the names of their ids: those of ``names=FILE``, one a line, or of ``classes.yaml`` in
    ``DIR``, which names boxes or outlines where ``DIR`` has those too.

    Raises:
        BadData: no images, or no mask for any of them; names that are none.
    """
    root, chosen = query_of("masks", where, {"images", "masks", "suffix", "ignore", "names"})
    ignore = _number("masks", where, "ignore", chosen.get("ignore", str(VOID)))
    held = _open("masks", root, chosen, Classes(int(ignore)))
    if "names" not in chosen and any((root / each).is_dir() for each in ("labels", "instances")):
        return held, ()
    return held, names_beside(root, chosen.get("names"))


def open_depth(where: str) -> Maps:
    """Images and depths of ``DIR?images=images&depth=depth&suffix=.png&scale=1000``, the defaults.

    Raises:
        BadData: no images, or no depth map for any of them.
    """
    root, chosen = query_of("depth", where, {"images", "depth", "suffix", "scale"})
    scale = _number("depth", where, "scale", chosen.get("scale", "1000"))
    if not 1e-9 <= scale <= 1e9:
        raise BadData(f"scale={scale:g} given in depth:{where}; 1e-9 to 1e9 units per metre")
    return _open("depth", root, chosen, Metres(scale))


def _open(kind: str, root: Path, chosen: dict[str, str], meaning: Classes | Metres) -> Maps:
    folder, maps = root / chosen.get("images", "images"), root / chosen.get(kind, kind)
    suffix = chosen.get("suffix", ".png")
    found = image_paths(folder) if folder.is_dir() else []
    inside = [path.relative_to(folder) for path in found]
    listed = [maps / f"{path.with_suffix('').as_posix()}{suffix}" for path in inside]
    held = {path for path in listed if path.is_file()}
    pairs = [
        (path, own if own in held else None)
        for path, own in zip(inside, listed, strict=True)
        if folder / path not in held
    ]
    if not pairs:
        raise BadData(
            f"{kind}:{root} has no images in {folder}; name the folders by {kind}:DIR?images=NAME&"
            f"{kind}=NAME, and by suffix=END how files of the second end"
        )
    if not held and (maps.is_dir() or kind in chosen):
        raise BadData(
            f"{kind}:{root} has no {meaning.kind} for any of {len(pairs)} images, e.g. "
            f"{maps / pairs[0][0].with_suffix('')}{suffix}; the same stem is needed, and "
            "suffix=END names another end"
        )
    files = Files(folder, tuple(path.as_posix() for path, _ in pairs), (None,) * len(pairs))
    return Maps(files, tuple(own for _, own in pairs), meaning)


def query_of(kind: str, where: str, allowed: set[str]) -> tuple[Path, dict[str, str]]:
    """Folder and options of ``DIR?a=b&c=d``; BadData where an option is not among `allowed`."""
    root, _, query = where.partition("?")
    chosen = dict(parse_qsl(query, keep_blank_values=True))
    wrong = sorted(set(chosen) - allowed)
    if wrong or not root or (query and not chosen):
        given = f"{wrong[0]}= given in {kind}:{where}" if wrong else f"{kind}:{where} given"
        raise BadData(
            f"{given}; {kind}:DIR is allowed, with ? and any of {', '.join(sorted(allowed))}"
        )
    return Path(root), chosen


def _number(kind: str, where: str, name: str, text: str) -> float:
    whole = name == "ignore"
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadData(
            f"{name}={text} given in {kind}:{where}; a {'whole ' if whole else ''}number is needed"
        )
    return value
