"""A few images of all data sets of the benchmark: `layouts`, and boxes, masks and depths."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from layouts import IMAGES, Counts, cells, colour, images, mat, png, put
from PIL import Image


def _xml(objects: Iterable[tuple[str, Iterable[int], int]]) -> str:
    held = ""
    for name, corners, difficult in objects:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        held += f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        held += f"<bndbox>{box}</bndbox></object>"
    return f"<annotation><size><width>8</width><height>6</height></size>{held}</annotation>"


def voc0712(root: Path) -> Counts:
    folder = root / "VOCdevkit"
    sets = {
        "VOC2007": {"trainval": ["000005"], "test": ["000001"]},
        "VOC2012": {"trainval": ["2008_1"]},
    }
    for year, lists in sets.items():
        for name, listed in lists.items():
            put(folder / year / f"ImageSets/Main/{name}.txt", "\n".join(listed) + "\n")
            images(folder / year / "JPEGImages", [f"{each}.jpg" for each in listed])
            for each in listed:
                boxes = [("dog", (1, 1, 4, 6), 0), ("person", (3, 2, 8, 6), 1)]
                put(folder / year / f"Annotations/{each}.xml", _xml(boxes))
    return 2, 1


def widerface(root: Path) -> Counts:
    folder, event = root / "widerface", "0--Parade"
    faces = ["1 1 3 3 0 0 0 0 0 0", "0 0 0 4 2 0 0 0 2 0", "4 2 9 3 0 0 0 1 0 0"]
    for half in ("train", "val"):
        listed = [
            f"{event}/a_{half}.jpg",
            "3",
            *faces,
            f"{event}/b_{half}.jpg",
            "0",
            "0 " * 9 + "0",
        ]
        put(folder / f"wider_face_split/wider_face_{half}_bbx_gt.txt", "\n".join(listed) + "\n")
        names = [f"{event}/a_{half}.jpg", f"{event}/b_{half}.jpg"]
        images(folder / f"WIDER_{half}/images", names)
    truth = folder / "eval_tools/ground_truth"
    boxes = np.array([[float(x) for x in each.split()[:4]] for each in faces])
    mat(
        truth / "wider_face_val.mat",
        event_list=cells([event]),
        file_list=cells([cells(["a_val", "b_val"])]),
        face_bbx_list=cells([cells([boxes, np.zeros((0, 4))])]),
    )
    none = np.zeros((0, 1))
    for ease, wanted in (("easy", [[1]]), ("medium", [[1]]), ("hard", [[1], [3]])):
        mat(truth / f"wider_{ease}_val.mat", gt_list=cells([cells([np.array(wanted), none])]))
    return 2, 2


PERSONS = [
    {"label": "pedestrian", "bbox": [10, 10, 41, 100], "bboxVis": [10, 10, 41, 80]},
    {"label": "pedestrian", "bbox": [60, 10, 41, 100], "bboxVis": [60, 10, 41, 40]},
    {"label": "pedestrian", "bbox": [100, 10, 16, 40], "bboxVis": [100, 10, 16, 40]},
    {"label": "rider", "bbox": [130, 10, 41, 100], "bboxVis": [130, 10, 41, 100]},
    {"label": "ignore", "bbox": [190, 0, 60, 30], "bboxVis": [190, 0, 60, 30]},
]


def citypersons(root: Path) -> Counts:
    folder = root / "cityscapes"
    for half, city in (("train", "aachen"), ("val", "frankfurt")):
        stem = f"{city}/{city}_000000_000019"
        put(folder / f"leftImg8bit/{half}/{stem}_leftImg8bit.png", png(colour(3, 256, 128)))
        said = json.dumps({"imgHeight": 128, "imgWidth": 256, "objects": PERSONS})
        put(folder / f"gtBboxCityPersons/{half}/{stem}_gtBboxCityPersons.json", said)
    return 1, 1


def voc2012(root: Path) -> Counts:
    folder = root / "VOCdevkit/VOC2012"
    for half, name, value in (("train", "2007_000032", 1), ("val", "2007_000033", 20)):
        put(folder / f"ImageSets/Segmentation/{half}.txt", f"{name}\n")
        images(folder / "JPEGImages", [f"{name}.jpg"], value)
        mask = Image.fromarray(np.array([[0] * 8] * 3 + [[value] * 7 + [255]] * 3, np.uint8), "P")
        mask.putpalette([each * 5 % 256 for each in range(768)])
        put(folder / f"SegmentationClass/{name}.png", png(mask))
    return 1, 1


def kitti(root: Path) -> Counts:
    folder, date = root / "kitti", "2011_09_26"
    for half, number in (("train", 5), ("test", 7)):
        drive = f"{date}_drive_000{number}_sync"
        listed = [f"{date}/{drive}/image_02/data/000000000{i}.png" for i in (1, 2)]
        put(folder / f"eigen_{half}_files.txt", "".join(f"{each} None 721.5\n" for each in listed))
        images(folder / "raw", listed, number)
        depth = Image.fromarray(np.array([[0] * 8] * 3 + [[2560] * 8] * 3, np.uint16))
        tail = f"{drive}/proj_depth/groundtruth/image_02/0000000001.png"
        put(folder / "depth" / ("train" if half == "train" else "val") / tail, png(depth))
    return 1, 1


def nyuv2(root: Path) -> Counts:
    import h5py

    (root / "nyuv2").mkdir(parents=True)
    pixels = np.stack([np.asarray(colour(i)).transpose(2, 1, 0) for i in range(3)])
    depths = np.stack([np.full((8, 6), 1.5 + i, np.float32) for i in range(3)])
    with h5py.File(root / "nyuv2/nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = pixels, depths
        file["rawDepths"] = np.where(np.arange(6) < 2, 0, depths + 0.25).astype(np.float32)
    mat(root / "nyuv2/splits.mat", trainNdxs=[[3], [1]], testNdxs=[[2]])
    return 2, 1


WRITERS: dict[str, Callable[[Path], Counts]] = IMAGES | {
    each.__name__: each for each in (voc0712, widerface, citypersons, voc2012, kitti, nyuv2)
}
