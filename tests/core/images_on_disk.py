"""Small image files for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (24, 32)) -> Image.Image:
    """A smooth colour image of `size` (height, width), so that JPEG and resizing keep it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def class_folders(root: Path, classes: int = 3, each: int = 4) -> Path:
    """`classes` folders of `each` PNGs."""
    for c in range(classes):
        for i in range(each):
            save(root / f"class{c}" / f"{i}.png", picture(seed=100 * c + i))
    return root


def jpeg_store(path: Path, count: int = 6) -> Path:
    blobs = []
    for i in range(count):
        file = io.BytesIO()
        picture(i).save(file, "JPEG")
        blobs.append(file.getvalue())
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(blobs), np.uint8),
        offset=np.cumsum([0, *map(len, blobs)]),
        label=np.arange(count, dtype=np.int16) % 2,
    )
    return path
