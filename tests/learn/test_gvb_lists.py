"""The shipped lists are what anyone draws from the official names, written here as empty files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts import mat

from roadworthy.learn.gvb.entries import ENTRIES, entry
from roadworthy.learn.gvb.subsets import draw, shipped

SHIPPED = ("caltech101", "eurosat", "resisc45", "voc2012", "nyuv2")

EUROSAT = {
    "AnnualCrop": 3000, "Forest": 3000, "HerbaceousVegetation": 3000, "Highway": 2500,
    "Industrial": 2500, "Pasture": 2000, "PermanentCrop": 2500, "Residential": 3000,
    "River": 2500, "SeaLake": 3000,
}  # fmt: skip

RESISC45 = (
    "airplane airport baseball_diamond basketball_court beach bridge chaparral church "
    "circular_farmland cloud commercial_area dense_residential desert forest freeway golf_course "
    "ground_track_field harbor industrial_area intersection island lake meadow medium_residential "
    "mobile_home_park mountain overpass palace parking_lot railway railway_station "
    "rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium "
    "storage_tank tennis_court terrace thermal_power_station wetland"
)

CALTECH101 = (
    "Faces 435 Faces_easy 435 Leopards 200 Motorbikes 798 accordion 55 airplanes 800 anchor 42 "
    "ant 42 barrel 47 bass 54 beaver 46 binocular 33 bonsai 128 brain 98 brontosaurus 43 buddha 85 "
    "butterfly 91 camera 50 cannon 43 car_side 123 ceiling_fan 47 cellphone 59 chair 62 "
    "chandelier 107 cougar_body 47 cougar_face 69 crab 73 crayfish 70 crocodile 50 "
    "crocodile_head 51 cup 57 dalmatian 67 dollar_bill 52 dolphin 65 dragonfly 68 "
    "electric_guitar 75 elephant 64 emu 53 euphonium 64 ewer 85 ferry 67 flamingo 67 "
    "flamingo_head 45 garfield 34 gerenuk 34 gramophone 51 grand_piano 99 hawksbill 100 "
    "headphone 42 hedgehog 54 helicopter 88 ibis 80 inline_skate 31 joshua_tree 64 kangaroo 86 "
    "ketch 114 lamp 61 laptop 81 llama 78 lobster 41 lotus 66 mandolin 43 mayfly 40 menorah 87 "
    "metronome 32 minaret 76 nautilus 55 octopus 35 okapi 39 pagoda 47 panda 38 pigeon 45 pizza 53 "
    "platypus 34 pyramid 57 revolver 82 rhino 59 rooster 49 saxophone 40 schooner 63 scissors 39 "
    "scorpion 84 sea_horse 57 snoopy 35 soccer_ball 64 stapler 45 starfish 86 stegosaurus 59 "
    "stop_sign 64 strawberry 35 sunflower 85 tick 49 trilobite 86 umbrella 75 watch 239 "
    "water_lilly 37 wheelchair 59 wild_cat 34 windsor_chair 56 wrench 39 yin_yang 60"
)

NYU_TRAIN = (
    "3-8 10-13 19-20 22-27 44-45 48-55 58 64-75 80-83 92-116 120-124 130 135-136 138-152 156-166 "
    "170 177-179 203-206 213-219 223-249 251-263 265-270 274-278 286-295 303-309 313-314 318-324 "
    "336-350 353-354 365-383 391-394 398-410 415-429 436-440 449-461 467-468 478-507 514 527-530 "
    "534-536 540-548 552-554 572-578 584-590 595-602 608-611 614-616 622-632 639-643 646-649 "
    "652-655 659-662 665-667 674-675 682-685 691-692 695-696 700-705 714-716 719-723 729-730 "
    "735-742 745-758 788-799 805-809 815-820 824-832 847-849 853-856 863-868 872-905 909-916 "
    "920-925 929-931 936-944 948-958 963-964 968-969 978-990 996-1000 1005-1009 1013-1020 "
    "1024-1031 1035-1037 1040-1047 1050-1051 1054-1056 1059-1074 1085-1087 1097 1105 1110-1116 "
    "1120-1122 1132-1134 1137-1143 1159-1161 1168-1169 1172-1173 1177-1178 1185-1191 1197-1200 "
    "1213-1215 1221-1225 1231-1232 1236-1246 1251-1253 1266-1274 1281-1284 1296 1300-1301 "
    "1309-1313 1316-1328 1333-1334 1341-1346 1350-1352 1357-1363 1366-1367 1370-1383 1392-1393 "
    "1402-1406 1415-1420 1425-1429 1434-1440"
)
"""Numbers from 1, as trainNdxs of splits.mat has them."""


def touch(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def eurosat(root: Path) -> None:
    for name, count in EUROSAT.items():
        touch(root / "eurosat/2750" / name, [f"{name}_{i + 1}.jpg" for i in range(count)])


def resisc45(root: Path) -> None:
    for name in RESISC45.split():
        touch(root / "NWPU-RESISC45" / name, [f"{name}_{i + 1:03d}.jpg" for i in range(700)])


def caltech101(root: Path) -> None:
    words = CALTECH101.split()
    for name, count in zip(words[::2], map(int, words[1::2]), strict=True):
        folder = root / "caltech101/101_ObjectCategories" / name
        touch(folder, [f"image_{i + 1:04d}.jpg" for i in range(count)])


def nyuv2(root: Path) -> None:
    (root / "nyuv2").mkdir()
    ends = [list(map(int, each.split("-"))) for each in NYU_TRAIN.split()]
    numbers = [i for each in ends for i in range(each[0], each[-1] + 1)]
    mat(root / "nyuv2/splits.mat", trainNdxs=np.array(numbers)[:, None])
    with h5py.File(root / "nyuv2/nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = np.zeros((1449, 3, 1, 1)), np.zeros((1449, 1, 1))


@pytest.mark.parametrize("write", [caltech101, eurosat, resisc45, nyuv2])
def test_a_shipped_list_is_drawn_from_the_official_names(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    part = entry(write.__name__).open(tmp_path, "train")
    assert len(part) == entry(write.__name__).sizes[0]
    assert part.told == ()
    assert draw(part, 0.1, seed=0) == shipped(write.__name__)


def test_names_of_other_files_are_told(tmp_path: Path) -> None:
    caltech101(tmp_path)
    folder = tmp_path / "caltech101/101_ObjectCategories/emu"
    (folder / "image_0001.jpg").rename(folder / "image_0101.jpg")
    (told,) = entry("caltech101").open(tmp_path, "train").told
    assert "are not those of the shipped list" in told


def test_lists_are_tenths_of_the_official_number_of_images() -> None:
    lists = {each.name: shipped(each.name) for each in ENTRIES}
    assert sorted(name for name, held in lists.items() if held) == sorted(SHIPPED)
    for name in SHIPPED:
        held = lists[name]
        assert held is not None
        assert (held.dataset, held.half, held.seed, held.fraction) == (name, "train", 0, 0.1)
        assert held.of == entry(name).sizes[0]
        assert len(held.images) == len(set(held.images)) == round(held.of / 10)
        assert list(held.images) == sorted(held.images)
