"""Rendered, synthetic scenes as an imagefolder: what a stage's classifier is compressed with.

    python benchmarks/scene_folder.py out/streets 0-2000
    python benchmarks/scene_folder.py out/held 1000000-1000200
    roadworthy learn classifier out/small-0/distilled --out out/streets.safetensors
    roadworthy quantize metanet:mn_xs@out/streets.safetensors --data imagefolder:out/streets \\
        --eval imagefolder:out/held --bits w4a4 --out out/w4a4
    roadworthy noise metanet:mn_xs@out/streets.safetensors --data imagefolder:out/held \\
        --out out/road

Images are PNG files of --size pixels a side in a folder for each class.
"""

import argparse
from pathlib import Path

from roadworthy.learn.scenes import scenes
from roadworthy.learn.sources import number_range


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("numbers", type=number_range, metavar="FROM-TO")
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    for scene in scenes(given.numbers, given.size):
        folder = given.out / scene.labels[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{scene.name}.png").write_bytes(scene.image)
    print(f"{len(given.numbers)} scenes in {given.out}")


if __name__ == "__main__":
    main()
