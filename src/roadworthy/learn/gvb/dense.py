"""Data sets of masks and depths: VOC 2012, KITTI by Eigen's split, NYUv2."""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from roadworthy.core.dense_data import VOID
from roadworthy.core.sources import png, reason
from roadworthy.errors import BadData
from roadworthy.learn.gvb.detection import VOC
from roadworthy.learn.gvb.files import from_hdf5, from_mat, lines
from roadworthy.learn.gvb.part import (
    Half,
    Part,
    array,
    check_files,
    damaged,
    few,
)
from roadworthy.learn.readers import Origin, opened
from roadworthy.learn.sample import Sample

VOC_MASKS = ("background", *VOC)


def voc_masks(folder: Path, half: Half, origin: Origin) -> Part:
    """``ImageSets/Segmentation/{train,val}.txt`` and ``SegmentationClass/``; ``val`` tests."""
    path = folder / "ImageSets" / "Segmentation" / f"{'train' if half == 'train' else 'val'}.txt"
    images = [name for (name,) in lines(path, "an image", 1)]
    names = tuple(f"JPEGImages/{name}.jpg" for name in images)
    masks = [f"SegmentationClass/{name}.png" for name in images]
    check_files(folder, [*names, *masks])

    def read(number: int) -> Sample:
        where = folder / masks[number]
        mask = _values(where).astype(np.uint8)
        if ((mask >= len(VOC_MASKS)) & (mask != VOID)).any():
            raise damaged(where, "ids beyond the classes", f"0 to {len(VOC)} and {VOID}")
        file = opened(folder / names[number], origin)
        return Sample(*file, mask=mask, mask_labels=VOC_MASKS)

    return Part(origin, "segmentation", VOC_MASKS, names, read)


def _values(path: Path) -> np.ndarray:
    """Values of a map of one channel, as they are stored."""
    try:
        with Image.open(path) as image:
            found = np.asarray(image)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise BadData(f"map {path} cannot be read: {reason(error)}") from error
    if found.ndim != 2:
        raise damaged(path, f"{found.shape[2]} channels", "a map of one value for each pixel")
    return found


def kitti(folder: Path, half: Half, origin: Origin) -> Part:
    """Eigen's split of the raw recordings, with the improved depth maps.

    ``eigen_{train,test}_files.txt`` lists images in its first column, which lie below ``raw/``, as
    PNG where the list names a JPEG that is not there; depths are
    ``depth/{train,val}/DRIVE/proj_depth/groundtruth/CAMERA/NUMBER.png``, as the archive of the
    annotated depths has it. Images without a map, 45 of the 697 to test, are left out and told.
    """
    path = folder / f"eigen_{half}_files.txt"
    needed = "an image DATE/DRIVE/CAMERA/data/NUMBER.png"
    listed = [words[0] for words in lines(path, needed)]
    wrong = [name for name in listed if len(name.split("/")) != 5]
    if wrong:
        raise damaged(path, f"{wrong[0]!r}", needed)
    listed = [_recorded(folder / "raw", name) for name in listed]
    maps = {name: _kitti_map(folder, name) for name in listed}
    names = tuple(name for name in listed if maps[name] is not None)
    absent = [name for name in listed if maps[name] is None]
    if not names:
        raise BadData(f"{folder / 'depth'} holds no map of the images of {path}: {few(absent)}")
    check_files(folder / "raw", names)

    def read(number: int) -> Sample:
        where = maps[names[number]]
        assert where is not None
        units = _values(where).astype(np.float32)
        depth = np.where(units > 0, units / 256, np.nan).astype(np.float32)
        return Sample(*opened(folder / "raw" / names[number], origin), depth=depth)

    part = Part(origin, "depth", (), names, read)
    return part.tell(f"{few(absent)} without a depth map" if absent else "")


def _recorded(raw: Path, name: str) -> str:
    """The image as it lies in `raw`: some lists are of recordings that were made JPEG files."""
    return name if (raw / name).is_file() else str(PurePosixPath(name).with_suffix(".png"))


def _kitti_map(folder: Path, name: str) -> Path | None:
    """Where the depths of an image lie; None where nobody measured them."""
    _, drive, camera, _, image = name.split("/")
    tail = Path(drive, "proj_depth", "groundtruth", camera, image).with_suffix(".png")
    found = (folder / "depth" / each / tail for each in ("train", "val"))
    return next((path for path in found if path.is_file()), None)


def nyu(folder: Path, half: Half, origin: Origin) -> Part:
    """``nyu_depth_v2_labeled.mat`` and ``splits.mat``; images stay on disk.

    ``depths``, whose holes were painted in, are learned from; what was measured judges,
    ``rawDepths``, which are 0 in a hole.
    """
    path = folder / "nyu_depth_v2_labeled.mat"
    images = from_hdf5(path, "images")
    depths = from_hdf5(path, "depths" if half == "train" else "rawDepths")
    name = "trainNdxs" if half == "train" else "testNdxs"
    numbers = [int(i) - 1 for i in array(from_mat(folder / "splits.mat", name)[0])]
    if max(numbers) >= min(len(images), len(depths)):
        raise damaged(path, f"{len(images)} images and {len(depths)} depths", f"{max(numbers) + 1}")

    def read(number: int) -> Sample:
        at = numbers[number]
        metres = np.asarray(depths[at], np.float32).T
        depth = np.where(metres > 0, metres, np.nan).astype(np.float32)
        said = f"{path}, image {at}", origin.source, origin.licence, origin.split
        pixels = np.ascontiguousarray(np.asarray(images[at]).transpose(2, 1, 0))
        return Sample(png(Image.fromarray(pixels)), *said, depth=depth)

    return Part(origin, "depth", (), tuple(f"{i:04d}" for i in numbers), read)
