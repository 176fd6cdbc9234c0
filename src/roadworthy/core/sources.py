"""Where images come from, files, a store of JPEGs, an array, and how they are decoded."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from roadworthy.errors import BadData

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)

Pixels = NDArray[np.uint8]


@runtime_checkable
class Source(Protocol):
    """An indexed store of images, still encoded or already pixels ``[h w c]``."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, index: int) -> bytes | Pixels:
        """Content as stored."""
        ...

    def label(self, index: int) -> int | None:
        """Class id, None where there is none."""
        ...

    def name(self, index: int) -> str:
        """What to call the image when it is to blame."""
        ...

    def key(self, index: int) -> str:
        """Name that is the same on every machine, for hashing."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files below `root`."""

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """File content; BadData where the file is missing or empty."""
        path = self.root / self.paths[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadData(f"image {path} cannot be read: {error.strerror}") from error
        if not content:
            raise BadData(f"image {path} is empty (0 bytes)")
        return content

    def label(self, index: int) -> int | None:
        """Class id of the folder or the label file."""
        return self.labels[index]

    def name(self, index: int) -> str:
        """Full path."""
        return str(self.root / self.paths[index])

    def key(self, index: int) -> str:
        """Path below the root."""
        return self.paths[index]


@dataclass(frozen=True, eq=False)
class JpegStore:
    """Encoded images one after the other: image i is ``jpeg[offset[i]:offset[i + 1]]``."""

    path: Path
    jpeg: NDArray[Any]
    offset: NDArray[Any]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        consistent = (
            self.jpeg.dtype == np.uint8
            and self.offset.dtype.kind in "iu"
            and self.labels.dtype.kind in "iu"
            and len(self.offset) == len(self.labels) + 1
            and bool(np.all(np.diff(self.offset) >= 0))
            and self.offset[0] >= 0
            and self.offset[-1] <= len(self.jpeg)
        )
        if not consistent:
            raise BadData(
                f"{self.path}: {len(self.labels)} labels and {len(self.offset)} offsets into "
                f"{len(self.jpeg)} {self.jpeg.dtype} do not go together; n integer labels "
                "need n + 1 rising integer offsets into uint8"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """Encoded bytes of one image."""
        content = self.jpeg[self.offset[index] : self.offset[index + 1]].tobytes()
        if not content:
            raise BadData(f"image {self.name(index)} is empty (0 bytes)")
        return content

    def label(self, index: int) -> int:
        """Class id."""
        return int(self.labels[index])

    def name(self, index: int) -> str:
        """File and position."""
        return f"{self.path}[{index}]"

    def key(self, index: int) -> str:
        """Position."""
        return str(index)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pixels ``[n h w c]`` or ``[n h w]``, 8 bit, and class ids ``[n]``."""

    path: Path
    images: NDArray[Any]
    labels: NDArray[Any] | None

    def __post_init__(self) -> None:
        x, y = self.images, self.labels
        plain = x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))
        if x.dtype != np.uint8 or not plain:
            raise BadData(
                f"{self.path}: images are {x.dtype} {list(x.shape)}; uint8 [n, h, w, 3], "
                "[n, h, w, 1] or [n, h, w] are allowed"
            )
        if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
            raise BadData(
                f"{self.path}: labels are {y.dtype} {list(y.shape)} for {len(x)} images; one "
                "integer each is needed"
            )

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Pixels of one image."""
        return self.images[index]

    def label(self, index: int) -> int | None:
        """Class id."""
        return None if self.labels is None else int(self.labels[index])

    def name(self, index: int) -> str:
        """File and position."""
        return f"{self.path}[{index}]"

    def key(self, index: int) -> str:
        """Position."""
        return str(index)


def decode(content: bytes | Pixels, name: str) -> Image.Image:
    """8-bit RGB image, turned upright by its EXIF tag; gray and CMYK are converted.

    Raises:
        BadData: the content is no image or a damaged one; names it.
    """
    if isinstance(content, np.ndarray):
        squeezed = content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content
        return Image.fromarray(np.ascontiguousarray(squeezed)).convert("RGB")
    # Damaged files make Pillow's plugins raise nearly anything: OSError, SyntaxError, struct.error.
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:
        raise BadData(f"image {name} is corrupt or no image: {_reason(error)}") from error
    return _rgb(upright, name)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    match image.mode:
        case "RGB":
            return image
        case "I;16" | "I;16B" | "I;16L" | "I;16N" | "I":
            # Pillow clips 16-bit gray to white on conversion; keep the upper byte instead.
            deep = np.asarray(image.convert("I")).clip(0, 65535)
            return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
        case "F":
            raise BadData(f"image {name} holds floating-point pixels; 8 or 16 bits are allowed")
        case _:
            return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is in no known image format"
    return " ".join(str(error).split()) or type(error).__name__


def image_paths(folder: Path) -> list[Path]:
    """Image files in and below `folder`, sorted; hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not _hidden(p.relative_to(folder)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def open_folder(root: Path) -> tuple[Files, tuple[str, ...]]:
    """Images in class sub-folders, or a flat folder of unlabelled ones, and the class names.

    Raises:
        BadData: no folder, no images, or images beside the class folders.
    """
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "not there"
        raise BadData(f"imagefolder:{root} is {what}; give a folder of images or class folders")
    paths = [p.relative_to(root) for p in image_paths(root)]
    if not paths:
        raise BadData(
            f"imagefolder:{root} holds no images; {', '.join(sorted(SUFFIXES))} are looked for"
        )
    loose = [p for p in paths if len(p.parts) == 1]
    if len(loose) == len(paths):
        return Files(root, tuple(map(str, paths)), (None,) * len(paths)), ()
    if loose:
        raise BadData(
            f"imagefolder:{root} holds {len(loose)} images beside its class folders, e.g. "
            f"{loose[0]}; move them into a class folder or out of {root}"
        )
    classes = sorted({p.parts[0] for p in paths})
    ids = {name: i for i, name in enumerate(classes)}
    return Files(
        root, tuple(p.as_posix() for p in paths), tuple(ids[p.parts[0]] for p in paths)
    ), tuple(classes)


def open_listed(root: Path, listing: Path) -> Files:
    """Images that a file of ``file<TAB>class id`` lines names, relative to `root`."""
    if not root.is_dir():
        raise BadData(f"imagefolder:{root} is no folder; give the folder that holds the images")
    if not (root / listing).is_file() and not listing.is_file():
        raise BadData(f"label file {listing} is neither in {root} nor in the working folder")
    path = root / listing if (root / listing).is_file() else listing
    rows = [_row(path, i, text) for i, text in enumerate(_lines(path), 1) if text.strip()]
    if not rows:
        raise BadData(f"label file {path} is empty; lines of file<TAB>class id are needed")
    return Files(root, tuple(name for name, _ in rows), tuple(label for _, label in rows))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"label file {path} cannot be read as text: {error}") from error


def _row(path: Path, number: int, text: str) -> tuple[str, int]:
    name, _, label = text.rpartition("\t")
    if not name or not label.strip().isdigit():
        raise BadData(f"{path}, line {number}: {text!r} given; file<TAB>class id from 0 is needed")
    return name, int(label)


def open_npz(path: Path, keys: dict[str, str]) -> JpegStore | Arrays:
    """A jpeg/offset/label store, or the arrays that `keys` ``x`` and ``y`` name."""
    needed = [keys["x"], *([keys["y"]] if "y" in keys else [])] if "x" in keys else []
    arrays = _read_npz(path, needed or ["jpeg", "offset", "label"])
    if not needed:
        return JpegStore(path, arrays["jpeg"], arrays["offset"], arrays["label"])
    return Arrays(path, arrays[keys["x"]], arrays[keys["y"]] if "y" in keys else None)


def _read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise BadData(f"npz:{path} is not a file; give the path of an .npz file")
    # Damaged archives raise OSError, ValueError, BadZipFile, zlib.error ...
    try:
        with np.load(path, allow_pickle=False) as store:
            held = list(store.files)
            missing = [name for name in names if name not in held]
            arrays = {} if missing else {name: store[name] for name in names}
    except Exception as error:
        raise BadData(f"npz:{path} is no readable .npz file: {_reason(error)}") from error
    if missing:
        raise BadData(
            f"npz:{path} has no {', '.join(missing)}; it holds {', '.join(held)}; choose with "
            f"npz:{path}?x=IMAGES&y=LABELS"
        )
    return arrays
