"""Where images come from, files, a store of JPEGs, an array, and how they are decoded."""

import io
import re
import warnings
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

# One name is kept for every class up to the highest id: a stray large id must not eat the memory.
MAX_CLASS_ID = 1_000_000

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
class Annotated:
    """Image files of which other things than a class are said."""

    files: Files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """File content of the image."""
        return self.files.read(index)

    def label(self, index: int) -> None:
        """None: there is no one class."""

    def name(self, index: int) -> str:
        """Full path of the image."""
        return self.files.name(index)


@dataclass(frozen=True, eq=False)
class JpegStore:
    """Encoded images one after the other: image i is ``jpeg[offset[i]:offset[i + 1]]``."""

    path: Path
    jpeg: NDArray[Any]
    offset: NDArray[Any]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        consistent = (
            self.jpeg.ndim == self.offset.ndim == self.labels.ndim == 1
            and self.jpeg.dtype == np.uint8
            and self.offset.dtype.kind in "iu"
            and self.labels.dtype.kind in "iu"
            and len(self.offset) == len(self.labels) + 1
            and bool(np.all(self.offset[1:] >= self.offset[:-1]))
            and self.offset[0] >= 0
            and self.offset[-1] <= len(self.jpeg)
        )
        if not consistent:
            raise BadData(
                f"{self.path}: label {_shape(self.labels)}, offset {_shape(self.offset)} and jpeg "
                f"{_shape(self.jpeg)} do not go together; integer label [n] needs n + 1 rising "
                "integers in offset, which cut up the uint8 of jpeg; all have one axis"
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
        if x.dtype != np.uint8 or not plain or 0 in x.shape[1:]:
            raise BadData(
                f"{self.path}: images are {_shape(x)}; uint8 [n, h, w, 3], [n, h, w, 1] or "
                "[n, h, w] are allowed, h and w from 1 on"
            )
        if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
            raise BadData(
                f"{self.path}: labels are {_shape(y)} for {len(x)} images; one integer each is "
                "needed"
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


def _shape(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def decode(content: bytes | Pixels, name: str) -> Image.Image:
    """8-bit RGB image, turned upright by its EXIF tag; gray and CMYK are converted.

    Raises:
        BadData: the content is no image or a damaged one; names it.
    """
    if isinstance(content, np.ndarray):
        squeezed = content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content
        return Image.fromarray(np.ascontiguousarray(squeezed)).convert("RGB")
    keep_pillow_quiet()
    # Damaged files make Pillow's plugins raise nearly anything: OSError, SyntaxError, struct.error.
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Exception as error:
        raise BadData(f"image {name} is corrupt or no image: {reason(error)}") from error
    return _rgb(upright, name)


_PILLOW = re.compile(r"PIL\.")


def keep_pillow_quiet() -> None:
    """No warning of images that are large but allowed, or whose metadata are damaged."""
    # Images are decoded on threads, where `catch_warnings` would put back the filters of others.
    if not any(entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


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
        case "P":
            # Pillow warns where it has to drop the transparency of single palette entries.
            return image.convert("RGBA").convert("RGB")
        case _:
            return image.convert("RGB")


def png(image: Image.Image) -> bytes:
    """An image as a file."""
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def reason(error: Exception) -> str:
    """Why something could not be read, in one line."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is in no known image format"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def image_paths(folder: Path) -> list[Path]:
    """Image files in and below `folder`, sorted; hidden ones are left out, broken links are not."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and _file_or_link(p))
    return sorted(p for p in found if not _hidden(p.relative_to(folder)))


def _file_or_link(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


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
    labels: dict[str, int] = {}
    for number, text in enumerate(text_lines(path), 1):
        if text.strip():
            name, label = _row(path, number, text)
            if name in labels:
                raise BadData(f"{path}, line {number}: {name} is listed twice; keep one of the two")
            labels[name] = label
    if not labels:
        raise BadData(f"label file {path} is empty; lines of file<TAB>class id are needed")
    return Files(root, tuple(labels), tuple(labels.values()))


def text_lines(path: Path) -> list[str]:
    """Lines of a file about labels; BadData where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"label file {path} cannot be read as text: {error}") from error


def _row(path: Path, number: int, text: str) -> tuple[str, int]:
    name, _, label = text.rpartition("\t")
    if not name or not label.strip().isdecimal():
        raise BadData(f"{path}, line {number}: {text!r} given; file<TAB>class id from 0 is needed")
    # int() refuses thousands of digits, so what cannot be an id is told by its length.
    if len(label.strip()) > 100 or int(label) > MAX_CLASS_ID:
        raise BadData(
            f"{path}, line {number}: class id {label.strip()[:20]} given; 0 to {MAX_CLASS_ID} are "
            "allowed, number the classes from 0"
        )
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
    _check_archive(path)
    # Damaged archives raise OSError, ValueError, BadZipFile, zlib.error ...
    try:
        with np.load(path, allow_pickle=False) as store:
            held = list(store.files)
            missing = [name for name in names if name not in held]
            arrays = {} if missing else {name: np.asarray(store[name]) for name in names}
    except Exception as error:
        raise BadData(_no_archive(path, reason(error))) from error
    if missing:
        raise BadData(
            f"npz:{path} has no {', '.join(missing)}; it holds {', '.join(held)}; choose with "
            f"npz:{path}?x=IMAGES&y=LABELS"
        )
    return arrays


def _check_archive(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(6)
    match head:
        case b"":
            raise BadData(_no_archive(path, "it is empty (0 bytes)"))
        case b"\x93NUMPY":
            raise BadData(_no_archive(path, "it is a single array, as an .npy file holds it"))
        case _ if not head.startswith(b"PK"):
            raise BadData(_no_archive(path, "it is no zip archive"))
        case _:
            pass


def _no_archive(path: Path, reason: str) -> str:
    return (
        f"npz:{path} is no readable .npz file: {reason}; make one by numpy.savez(FILE, x=images, "
        "y=labels)"
    )
