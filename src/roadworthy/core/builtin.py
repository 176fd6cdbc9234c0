"""Photos that lie inside installed packages: enough to calibrate on where there is nothing else."""

import os
from importlib.util import find_spec
from pathlib import Path

from roadworthy.core.sources import Files
from roadworthy.errors import BadData

# Natural photographs only: drawings, masks and microscope shots have other statistics.
_SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
_SKLEARN = ("china.jpg", "flower.jpg")


def open_builtin(name: str) -> Files:
    """``photos``: all there are, some with ImageNet class ids; ``imagenet20``: those with ids.

    Raises:
        BadData: an unknown name, or none of the packages is installed.
    """
    match name:
        case "photos":
            found = [*_imagenet20(), *_photos("skimage", "data", _SKIMAGE)]
            found += _photos("sklearn", "datasets/images", _SKLEARN)
        case "imagenet20":
            found = _imagenet20()
        case _:
            raise BadData(f"builtin:{name} given; builtin:photos, builtin:imagenet20 are allowed")
    if not found:
        raise BadData(f"builtin:{name} needs its packages: pip install 'roadworthy[demo]'")
    root = os.path.commonpath([path.parents[2] for path, _ in found])
    paths = [path.relative_to(root).as_posix() for path, _ in found]
    return Files(Path(root), tuple(paths), tuple(label for _, label in found))


def _folder(package: str, below: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent / below if spec and spec.origin else None


def _imagenet20() -> list[tuple[Path, int | None]]:
    folder = _folder("foolbox", "data")
    found = sorted(folder.glob("imagenet_*_*.jpg")) if folder else []
    return [(path, int(path.stem.rsplit("_", 1)[1])) for path in found]


def _photos(package: str, below: str, names: tuple[str, ...]) -> list[tuple[Path, int | None]]:
    folder = _folder(package, below)
    return [(folder / n, None) for n in names if (folder / n).is_file()] if folder else []
