"""CIFAR ResNet-20 and -56 from their native 32 pixels to resized images, by every resizer.

    OMP_NUM_THREADS=1 python benchmarks/resnet_road.py --model resnet20 --out out/road/resnet20

The images are the undamaged test images (cifar_sets.py, test A). Equal resizers count once.
Losses are in points against the native size, with 95 % bootstrap intervals.
"""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from roadworthy.core.images import Preprocess
from roadworthy.core.resizers import RESIZERS
from roadworthy.core.runs import output_folder, write_atomically
from roadworthy.noise.classes import group
from roadworthy.noise.statistics import estimate
from roadworthy.noise.study import measure
from roadworthy.noise.systems import System
from roadworthy.requests import RoadChoice
from roadworthy.roadtest import open_road

SIZES = (24, 28, 40, 48)
HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("resnet20", "resnet56"), default="resnet20")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    out = output_folder(given.out)
    store = Path(os.environ["ROADWORTHY_DATA"]) / "cifar10" / "lossless.npz"
    road = RoadChoice(f"npz:{store}?x=xte&y=yte", batch_size=64)
    spec = f"py:{HERE / 'resnet_cifar.py'}:{given.model}"
    fleet, bench = open_road(spec, road, out / ".unfinished")
    native = fleet.preprocess
    resized = {size: different(bench.dataset, native, size) for size in given.sizes}
    base = System(native)
    systems = [System(each) for size in given.sizes for each in resized[size]]
    found = measure(bench, base, systems, given.seed, given.model)
    print(f"{given.model}, {len(found.findings.indices)} images, native {found.value(base):.1%}\n")
    print("| pixels | resizers | mean loss | sd | least | most |\n|---|---|---|---|---|---|")
    cells = {}
    for size in given.sizes:
        losses = {s.resize: estimate(found.loss(System(s))) for s in resized[size]}
        values = np.array([loss.value for loss in losses.values()])
        least, most = (min(losses, key=key) for key in (_of(losses, 1), _of(losses, -1)))
        ends = [f"`{n}` {_shown(losses[n])}" for n in (least, most)]
        row = (size, len(values), f"{values.mean():.2f}", f"{values.std(ddof=1):.2f}", *ends)
        print("| " + " | ".join(map(str, row)) + " |")
        cells[size] = {str(name): asdict(loss) for name, loss in losses.items()}
    with write_atomically(out / "resized.json") as temporary:
        temporary.write_text(json.dumps(cells, indent=1))


def different(dataset, native: Preprocess, size: int) -> list[Preprocess]:
    """One preprocessing for each class of resizers."""
    present = [each.name for each in RESIZERS if each.missing() is None]
    stages = [
        replace(native, resize=name, geometry="squash", size=(size, size)) for name in present
    ]
    members = group(dataset, stages, 0.0).members
    return [stages[head] for head in dict.fromkeys(members)]


def _of(losses, sign: int):
    return lambda name: sign * losses[name].value


def _shown(loss) -> str:
    return f"{loss.value:.1f} ({loss.low:.1f} to {loss.high:.1f})"


if __name__ == "__main__":
    main()
