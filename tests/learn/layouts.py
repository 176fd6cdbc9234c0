"""A few images of each data set of classes of the benchmark, as its official release lies on disk.

Each image has a colour of its own; files named .jpg hold a PNG, which every reader takes and which
loses nothing. What is written returns how many training and test images there are.
"""

import csv
import io
import json
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Counts = tuple[int, int]


def colour(number: int, width: int = 8, height: int = 6) -> Image.Image:
    return Image.new("RGB", (width, height), (number * 37 % 256, number % 256, number * 11 % 256))


def png(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def images(folder: Path, names: Iterable[str], first: int = 0) -> int:
    """Files of these names; how many numbers are used up."""
    count = first
    for name in names:
        put(folder / name, png(colour(count)))
        count += 1
    return count


def mat(path: Path, **values: Any) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)


def cells(values: Iterable[Any]) -> np.ndarray:
    """A MATLAB cell array of one column."""
    held = list(values)
    column = np.empty((len(held), 1), object)
    for i, each in enumerate(held):
        column[i, 0] = each
    return column


def rows(path: Path, *lines: Iterable[Any], delimiter: str = ",") -> None:
    held = io.StringIO()
    csv.writer(held, delimiter=delimiter).writerows(lines)
    put(path, held.getvalue())


def _pickled(path: Path, **values: Any) -> None:
    put(path, pickle.dumps(values, protocol=2))


def _flat(first: int, count: int) -> np.ndarray:
    """Images as CIFAR has them: 3 x 32 x 32 numbers in a row."""
    held = [np.asarray(colour(first + i, 32, 32)).transpose(2, 0, 1).ravel() for i in range(count)]
    return np.stack(held)


def cifar10(root: Path) -> Counts:
    folder = root / "cifar-10-batches-py"
    for i in range(5):
        name = folder / f"data_batch_{i + 1}"
        _pickled(name, data=_flat(2 * i, 2), labels=[i % 3, 2])
    _pickled(folder / "test_batch", data=_flat(20, 3), labels=[2, 0, 1])
    _pickled(folder / "batches.meta", label_names=["airplane", "automobile", "bird"])
    return 10, 3


def cifar100(root: Path) -> Counts:
    folder = root / "cifar-100-python"
    _pickled(folder / "train", data=_flat(0, 3), fine_labels=[0, 1, 2], coarse_labels=[0, 0, 1])
    _pickled(folder / "test", data=_flat(5, 2), fine_labels=[2, 0], coarse_labels=[1, 0])
    _pickled(folder / "meta", fine_label_names=["apple", "baby", "bear"])
    return 3, 2


def food101(root: Path) -> Counts:
    train = {
        "waffles": ["waffles/1", "waffles/2"],
        "apple_pie": ["apple_pie/3"],
        "beet": ["beet/4"],
    }
    test = {name: [f"{name}/{50 + i}"] for i, name in enumerate(train)}
    for half, listed in (("train", train), ("test", test)):
        put(root / "food-101/meta" / f"{half}.json", json.dumps(listed))
        names = [f"{each}.jpg" for group in listed.values() for each in group]
        images(root / "food-101/images", names, 60 if half == "test" else 0)
    return 4, 3


def pets(root: Path) -> Counts:
    folder = root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", "Bengal"]
    for half, first in (("trainval", 1), ("test", 5)):
        lines = [f"{breed}_{first} {i + 1} 1 1" for i, breed in enumerate(breeds)]
        put(folder / "annotations" / f"{half}.txt", "\n".join(lines) + "\n")
        images(folder / "images", [f"{breed}_{first}.jpg" for breed in breeds], first)
    return 3, 3


def flowers102(root: Path) -> Counts:
    folder = root / "flowers-102"
    images(folder / "jpg", [f"image_{i:05d}.jpg" for i in range(1, 8)])
    mat(folder / "imagelabels.mat", labels=np.array([[1, 2, 3, 3, 2, 1, 1]]))
    mat(folder / "setid.mat", trnid=[[5, 3]], valid=[[1]], tstid=[[7, 2, 4, 6]])
    return 3, 4


def sun397(root: Path) -> Counts:
    folder = root / "SUN397"
    names = ["/a/abbey", "/a/apartment_building/outdoor", "/z/zoo"]
    put(folder / "ClassName.txt", "\n".join(names) + "\n")
    for half, first in (("Training", 0), ("Testing", 7)):
        listed = [f"{name}/sun_{first}.jpg" for name in names]
        put(folder / "Partitions" / f"{half}_01.txt", "\n".join(listed) + "\n")
        images(folder, [each[1:] for each in listed], first)
    return 3, 3


def cars(root: Path) -> Counts:
    folder = root / "stanford_cars"
    mat(folder / "devkit/cars_meta.mat", class_names=cells(["AM General", "Acura RL", "BMW M3"]).T)
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for half, path in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        names = [f"{i:05d}.jpg" for i in range(1, 4)]
        held = np.array([(3, i % 3 + 1, name) for i, name in enumerate(names)], kind)
        mat(folder / path, annotations=held[None])
        images(folder / f"cars_{half}", names, 40 if half == "test" else 0)
    return 3, 3


def dtd(root: Path) -> Counts:
    folder = root / "dtd/dtd"
    for i, half in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{i:04d}.jpg" for name in ("banded", "dotted", "zigzagged")]
        put(folder / "labels" / f"{half}1.txt", "\n".join(names) + "\n")
        images(folder / "images", names, 10 * i)
    return 6, 3


def caltech101(root: Path) -> Counts:
    folder = root / "caltech101/101_ObjectCategories"
    for k, name in enumerate(("accordion", "airplanes", "BACKGROUND_Google")):
        images(folder / name, [f"image_{i + 1:04d}.jpg" for i in range(32)], 40 * k)
    return 60, 4


def aircraft(root: Path) -> Counts:
    folder = root / "fgvc-aircraft-2013b/data"
    variants = ["707-320", "727 200", "A300B4"]
    put(folder / "variants.txt", "\n".join(variants) + "\n")
    for half, first in (("trainval", 10), ("test", 20)):
        listed = [f"{first + i:07d} {name}" for i, name in enumerate(variants)]
        put(folder / f"images_variant_{half}.txt", "\n".join(listed) + "\n")
        images(folder / "images", [f"{first + i:07d}.jpg" for i in range(3)], first)
    return 3, 3


def svhn(root: Path) -> Counts:
    for half, labels in (("train", [[i] for i in range(1, 11)]), ("test", [[2], [10]])):
        pixels = [np.asarray(colour(i + 3, 32, 32)) for i in range(len(labels))]
        mat(root / "svhn" / f"{half}_32x32.mat", X=np.stack(pixels, -1), y=np.array(labels))
    return 10, 2


def _folders(folder: Path, names: Iterable[str], count: int) -> None:
    for k, name in enumerate(names):
        images(folder / name, [f"{name}_{i + 1}.jpg" for i in range(count)], 20 * k)


def eurosat(root: Path) -> Counts:
    _folders(root / "eurosat/2750", ("AnnualCrop", "Forest", "River"), 5)
    return 12, 3


def resisc45(root: Path) -> Counts:
    _folders(root / "NWPU-RESISC45", ("airplane", "lake", "wetland"), 5)
    return 12, 3


def retinopathy(root: Path) -> Counts:
    folder = root / "diabetic-retinopathy-detection"
    names = [f"{10 + i}_{side}" for i in range(3) for side in ("left", "right")][:5]
    rows(folder / "trainLabels.csv", ["image", "level"], *zip(names, range(5), strict=True))
    solution = [[name, 0, "Private"] for name in names[:2]]
    rows(folder / "retinopathy_solution.csv", ["image", "level", "Usage"], *solution)
    images(folder / "train", [f"{name}.jpeg" for name in names])
    images(folder / "test", [f"{name}.jpeg" for name in names[:2]], 30)
    return 5, 2


def _faces(usages: Iterable[str]) -> list[list[str]]:
    return [[str(i % 7), " ".join([str(i * 9)] * 2304), usage] for i, usage in enumerate(usages)]


def fer2013(root: Path) -> Counts:
    usages = ["Training"] * 7 + ["PublicTest", "PrivateTest"]
    rows(root / "fer2013/fer2013.csv", ["emotion", "pixels", "Usage"], *_faces(usages))
    return 7, 2


def video(path: Path, first: int, frames: int = 6) -> None:
    """Frames that grow brighter, one a second."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(frames):
            pixels = np.full((32, 32, 3), first + 30 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def ucf101(root: Path) -> Counts:
    folder, names = root / "ucf101", ["ApplyEyeMakeup", "Biking", "YoYo"]
    listings = folder / "ucfTrainTestlist"
    put(listings / "classInd.txt", "".join(f"{i + 1} {n}\n" for i, n in enumerate(names)))
    train = [f"{name}/v_{name}_g08_c01.avi" for name in names]
    test = [f"{names[1]}/v_{names[1]}_g01_c01.avi"]
    put(listings / "trainlist01.txt", "".join(f"{n} {i + 1}\n" for i, n in enumerate(train)))
    put(listings / "testlist01.txt", "".join(f"{name}\n" for name in test))
    for i, name in enumerate([*train, *test]):
        video(folder / "UCF-101" / name, 5 * i)
    return 3, 1


def gtsrb(root: Path) -> Counts:
    folder = root / "gtsrb"
    for k in range(3):
        images(folder / f"GTSRB/Training/{k:05d}", [f"00000_0000{i}.ppm" for i in range(2)], 9 * k)
    images(folder / "GTSRB/Final_Test/Images", ["00000.ppm", "00001.ppm"], 50)
    head = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    listed = [[f"0000{i}.ppm", 8, 6, 0, 0, 8, 6, 2 - i] for i in range(2)]
    rows(folder / "GT-final_test.csv", head, *listed, delimiter=";")
    return 6, 2


def pcam(root: Path) -> Counts:
    import h5py

    (root / "pcam").mkdir(parents=True)
    for half, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
        stem = root / f"pcam/camelyonpatch_level_2_split_{half}"
        pixels = np.stack([np.asarray(colour(i + 2, 96, 96)) for i in range(len(labels))])
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = pixels
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = np.array(labels, np.uint8).reshape(-1, 1, 1, 1)
    return 3, 2


def imagenet(root: Path) -> Counts:
    for k, name in enumerate(("n01440764", "n01443537", "n15075141")):
        images(root / "imagenet/train" / name, [f"{name}_{i}.JPEG" for i in range(2)], 5 * k)
        images(root / "imagenet/val" / name, [f"ILSVRC2012_val_{k:08d}.JPEG"], 40 + k)
    return 6, 3


def kinetics700(root: Path) -> Counts:
    folder, head = root / "kinetics700", ["label", "youtube_id", "time_start", "time_end", "split"]
    names = ["abseiling", "massaging person's head", "using a wrench (tool)"]
    places = ["abseiling", "massaging_persons_head", "using_a_wrench_tool"]
    video(folder / "clip.mp4", 0)
    for half in ("train", "val"):
        listed = [[name, f"id{i}", 10, 20, half] for i, name in enumerate(names)]
        rows(folder / f"annotations/{half}.csv", head, *listed, [names[0], "gone", 3, 13, half])
        for i, place in enumerate(places):
            path = folder / half / place / f"id{i}_000010_000020.mp4"
            path.parent.mkdir(parents=True)
            os.link(folder / "clip.mp4", path)
    return 3, 3


IMAGES: dict[str, Callable[[Path], Counts]] = {
    each.__name__: each
    for each in (
        cifar10, cifar100, food101, pets, flowers102, sun397, cars, dtd, caltech101, aircraft, svhn,
        eurosat, resisc45, retinopathy, fer2013, ucf101, gtsrb, pcam, imagenet, kinetics700,
    )
}  # fmt: skip
