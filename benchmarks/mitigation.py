"""What mix training, TENT and calibration under noise do to mean and spread over resizers.

CIFAR-10 images of 32x32 pixels, as JPEG files, are brought to --side pixels. The public ResNet-20
is tuned for that size, equally long, with one resizer (control) and with one drawn for each image
out of the paper's eleven, equal ones counted once (mix). All are judged on held-out test images by
every resizer that makes different images: those that the mix has seen, and others. The size was
chosen in trials on images of the test store, as one at which resizers matter; nothing else was
chosen by test images. Finished cells are kept in --out.

    OMP_NUM_THREADS=1 python benchmarks/mitigation.py --seeds 0 1
"""

import argparse
import json
import os
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from cifar_sets import normalised
from resnet_cifar import PREPROCESS, resnet20
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

from roadworthy.compress.methods import QDropPlus, with_iterations
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.metrics import accuracy
from roadworthy.core.predict import Predictor, TorchPredictor, predict
from roadworthy.core.progress import track
from roadworthy.core.resizers import find_resizer
from roadworthy.core.runs import write_atomically
from roadworthy.journey import quantize
from roadworthy.noise.deployed import as_deployed
from roadworthy.noise.mix import RandomPreprocess, different
from roadworthy.noise.tent import Tent

TRAINED = "pillow-bilinear"
SEEN = [
    *(f"pillow-{f}" for f in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")),
    *(f"opencv-{f}" for f in ("nearest", "linear", "area", "cubic", "lanczos4")),
]
PUBLIC, TENT, STATISTICS = "public weights", "control, TENT", "control, batch statistics"
SORTED = "control, TENT, one class after another"
CLEAN, NOISY = "control, W4A4 calibrated clean", "control, W4A4 calibrated under noise"
ROWS = [PUBLIC, "control", "mix", TENT, SORTED, STATISTICS, CLEAN, NOISY]
TOLERANCE = 1.0


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    cells = [(row, s) for row in given.rows for s in (given.seeds if row != PUBLIC else [0])]
    found: dict[str, list[dict]] = {row: [] for row in given.rows}
    for row, seed in track(cells, "cells"):
        found[row].append(bench.cell(row, seed))
    result = {"classes": bench.classes, "cells": found, "table": table(found, bench)}
    print(json.dumps(result) if given.json else result["table"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=16, help="pixels of the network's input")
    parser.add_argument("--epochs", type=int, default=2, help="of 25 000 images")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--test-images", type=int, default=3000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--out", type=Path, default=Path("out/mitigation"))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Bench:
    """The data, read once, and the cells that are finished."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        folder = Path(os.environ["ROADWORTHY_DATA"]) / "cifar10"
        self.train = load_data(f"npz:{folder}/train.npz")
        test = load_data(f"npz:{folder}/test.npz").subset(given.test_images, seed=0)
        # Subsets come class by class in turns; TENT is to meet them as they come in the field.
        self.order = np.random.default_rng(0).permutation(len(test))
        self.labels = torch.tensor([test.label(int(i)) for i in self.order])
        self.system = Preprocess(
            resize=TRAINED, geometry="squash", size=(given.side, given.side), **PREPROCESS
        )
        self.seen, self.unseen = self.resizers()
        self.classes = {"seen": self.seen, "unseen": self.unseen}
        pixels = [self.system.decoded(test.content(int(i)), test.name(int(i))) for i in self.order]
        self.rasters = {
            name: np.stack([find_resizer(name)(p, self.system.size) for p in pixels])
            for name in track([*self.seen, *self.unseen], "resizing")
        }

    def resizers(self) -> tuple[list[str], list[str]]:
        """One of each class on the training images: with one of the paper's eleven, and others."""
        names = different(self.train, self.system, "resize", TOLERANCE)
        return [n for n in names if n in SEEN], [n for n in names if n not in SEEN]

    def cell(self, row: str, seed: int) -> dict:
        given = self.given
        sign = f"{row}-{given.side}-{given.epochs}-{given.rate}-{given.test_images}-{seed}"
        path = given.out / f"{sign.replace(', ', '-').replace(' ', '_')}.json"
        if not path.is_file():
            cpu = time.process_time()
            top1 = self.measured(row, seed)
            with write_atomically(path) as temporary:
                found = {"top1": top1, "seconds": time.process_time() - cpu}
                temporary.write_text(json.dumps(found))
        return json.loads(path.read_text())

    def measured(self, row: str, seed: int) -> dict[str, float]:
        """Top-1 in percent by resizer."""
        if row == PUBLIC:
            predictor: Predictor = TorchPredictor(resnet20())
        elif row in ("control", "mix"):
            predictor = TorchPredictor(self.trained(row, seed))
        elif row in (TENT, SORTED, STATISTICS):
            rate = 0.0 if row == STATISTICS else 1e-3
            predictor = Tent(self.trained("control", seed), rate)
        else:
            predictor = TorchPredictor(self.quantized(row == NOISY, seed))
        order = self.labels.argsort(stable=True) if row == SORTED else slice(None)
        return {name: self.top1(predictor, name, order) for name in self.rasters}

    def top1(self, predictor: Predictor, resizer: str, order: Tensor | slice) -> float:
        if isinstance(predictor, Tent):
            predictor.reset()
        images = torch.from_numpy(normalised(self.rasters[resizer]))[order]
        return 100 * accuracy(predict(predictor, images.split(100)), self.labels[order])

    def trained(self, kind: str, seed: int) -> nn.Module:
        """The network tuned for the size, from --out where it was before."""
        given = self.given
        path = given.out / f"{kind}-{given.side}-{given.epochs}-{given.rate}-{seed}.pt"
        model = resnet20()
        if not path.is_file():
            resizers = [TRAINED] if kind == "control" else self.seen
            mix = RandomPreprocess(self.system, ["pillow"], resizers, ["rgb"])
            tune(model, self.train, mix, given.epochs, given.rate, seed)
            with write_atomically(path) as temporary:
                torch.save(model.state_dict(), temporary)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    def quantized(self, noise: bool, seed: int) -> nn.Module:
        """The control in W4A4, calibrated on 1024 training images by one resizer or all seen."""
        images, stages = self.train.subset(1024, seed), self.system
        if noise:
            mix = RandomPreprocess(stages, ["pillow"], self.seen, ["rgb"])
            images, stages = as_deployed(images, mix, seed)
        control = self.trained("control", seed)
        method = with_iterations(QDropPlus(4, 4), 250)
        return quantize(control, load_tensor(images, stages)[0], method, seed=seed).module


def tune(
    model: nn.Module, data: Dataset, mix: RandomPreprocess, epochs: int, rate: float, seed: int
) -> None:
    """SGD with one cycle of the rate; `mix` is one transform among others of a DataLoader."""
    torch.manual_seed(seed)
    side = mix.preprocess.size[0]
    transform = Compose([mix, RandomCrop(side, padding=side // 8), RandomHorizontalFlip()])
    loader = DataLoader(Labelled(data, transform), batch_size=125, shuffle=True)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.2)
    batches = (batch for _ in range(epochs) for batch in loader)
    for images, labels in track(batches, "training", steps):
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()


class Labelled(torch.utils.data.Dataset):
    """A torch data set of decoded images, as users have theirs."""

    def __init__(self, data: Dataset, transform: Any) -> None:
        self.pixels = [np.asarray(data.load(i)) for i in range(len(data))]
        self.labels = [data.label(i) for i in range(len(data))]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def table(found: dict[str, list[dict]], bench: Bench) -> str:
    lines = [
        f"ResNet-20, CIFAR-10 at {bench.given.side} px, {bench.given.test_images} test images, "
        f"seeds {bench.given.seeds}; top-1 over {len(bench.seen)} seen and "
        f"{len(bench.unseen)} unseen resizers; mean of seeds (sd of seeds)",
        "",
        f"| | {TRAINED} | seen: mean | sd | max - min | unseen: mean | sd | max - min |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, cells in found.items():
        numbers = [[cell["top1"][TRAINED] for cell in cells]]
        for names in (bench.seen, bench.unseen):
            values = [[cell["top1"][name] for name in names] for cell in cells]
            numbers += [list(map(f, values)) for f in (mean, stdev, span)]
        lines.append(f"| {row} | " + " | ".join(map(over_seeds, numbers)) + " |")
    return "\n".join(lines)


def span(values: list[float]) -> float:
    return max(values) - min(values)


def over_seeds(values: list[float]) -> str:
    spread = f" ({stdev(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
