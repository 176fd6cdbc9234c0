"""Draws the tenth of seed 0 of every data set of the benchmark below ROOT, and ships the lists.

    python benchmarks/ship_lists.py ROOT

ROOT is laid out as `roadworthy benchmark --list` says; names and classes count, no image is read.
A set that has another number of training images than its official release is told, not shipped.
"""

import argparse
from pathlib import Path

from roadworthy.learn.gvb import subsets
from roadworthy.learn.gvb.entries import ENTRIES


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    root = parser.parse_args().root
    for entry in (each for each in ENTRIES if each.there(root)):
        part = entry.open(root, "train")
        if len(part) != entry.sizes[0]:
            print(f"{entry.name}: {part.told[-1]}; not shipped")
            continue
        drawn = subsets.draw(part, 0.1, seed=0)
        subsets.write_subset(drawn, subsets.LISTS / f"{entry.name}.json")
        print(f"{entry.name}: {len(drawn.images)} of {drawn.of}, {drawn.sha256}")


if __name__ == "__main__":
    main()
