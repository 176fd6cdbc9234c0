"""Depth from one photo: the network of camvid.py with a single map, trained on rgbd_7scenes.

The 200 frames are one walk through one scene, so they are split by blocks: the first 140 train, 20
choose the epoch, the last 40 are the test. --train links them into folders of --out.

    python benchmarks/depth_7scenes.py --train
    roadworthy noise py:benchmarks/depth_7scenes.py:build@out/depth_7scenes/model.pth \
        --data "depth:out/depth_7scenes/test?images=.&depth=.&suffix=.depth.png" \
        --out out/road/depth
"""

import argparse
import copy
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# A py: model is run by its path alone, which does not make its neighbours importable.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from camvid import Net, pretrained

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.dense import Depth
from roadworthy.core.images import Preprocess, placement

SIZE = (192, 256)
PREPROCESS = {
    "resize": "pillow-bilinear",
    "geometry": "squash",
    "size": list(SIZE),
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
BLOCKS = {"train": (0, 140), "val": (140, 160), "test": (160, 200)}
TYPICAL = 1.9
"""Metres that the network starts from."""


def build() -> nn.Module:
    """The network in eval mode; it answers metres ``[b 1 h w]``."""
    return Net(1).eval()


def parts(out: Path) -> dict[str, Dataset]:
    """The blocks of frames, each a folder of links."""
    folder = Path(os.environ["ROADWORTHY_DATA"]) / "rgbd_7scenes"
    frames = sorted(folder.glob("*.jpg"))
    for name, (first, last) in BLOCKS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for frame in frames[first:last]:
            for file in (frame, frame.with_suffix(".depth.png")):
                link = out / name / file.name
                link.unlink(missing_ok=True)
                link.symlink_to(file.resolve())
    return {n: load_data(f"depth:{out / n}?images=.&depth=.&suffix=.depth.png") for n in BLOCKS}


def train(given: argparse.Namespace) -> None:
    torch.manual_seed(given.seed)
    stages, generator = Preprocess.from_dict(PREPROCESS), torch.Generator().manual_seed(given.seed)
    data = parts(given.out)
    images = load_tensor(data["train"], stages)[0]
    depths = torch.from_numpy(np.stack([cells(truth) for truth in truths(data["train"])]))
    net = pretrained(1).to(memory_format=torch.channels_last)
    nn.init.constant_(net.head[-1].bias, TYPICAL)
    optimizer = torch.optim.AdamW(net.parameters(), given.rate, weight_decay=0.01)
    count = len(images) // given.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, given.rate, given.epochs * count)
    best, kept, begun = float("inf"), net.state_dict(), time.process_time()
    for epoch in range(given.epochs):
        net.train()
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(given.batch)[:count]:
            x, y = augmented(images[chosen], depths[chosen], generator)
            said = net(x.contiguous(memory_format=torch.channels_last))
            errors = (said[:, 0] - y)[y.isfinite()]
            loss = nn.functional.smooth_l1_loss(errors, torch.zeros_like(errors), beta=0.3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        found = rmse(net, data["val"], stages)
        if found < best:
            best, kept = found, copy.deepcopy(net.state_dict())
        spent = time.process_time() - begun
        print(
            f"epoch {epoch}: loss {np.mean(losses):.3f}, val RMSE {found:.3f} m, {spent:.0f} CPU s",
            flush=True,
        )
    torch.save(kept, given.out / "model.pth")
    print(f"kept the epoch with val RMSE {best:.3f} m")


def truths(data: Dataset) -> list[np.ndarray]:
    return [data.truth(i) for i in range(len(data))]


def cells(truth: np.ndarray) -> np.ndarray:
    """The depth at the middle of each cell of the network's answer."""
    rows, columns = (
        ((np.arange(side // 2) + 0.5) * own * 2 / side).astype(int)
        for side, own in zip(SIZE, truth.shape, strict=True)
    )
    return truth[rows][:, columns]


def augmented(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored or not, and in another light."""
    gain = 0.8 + 0.4 * torch.rand(len(x), 3, 1, 1, generator=generator)
    x = x * gain + 0.3 * torch.randn(len(x), 1, 1, 1, generator=generator)
    flip = bool(torch.rand((), generator=generator) < 0.5)
    return (x.flip(3), y.flip(2)) if flip else (x, y)


def rmse(net: nn.Module, data: Dataset, stages: Preprocess) -> float:
    """Metres on the pixels of the files."""
    net.eval()
    task, known = Depth(SIZE), truths(data)
    places = [placement(stages, truth.shape) for truth in known]
    with torch.inference_mode():
        said = task.answers(net(load_tensor(data, stages)[0]), places, "as-trained")
    once = np.ones((1, len(known)), np.int64)
    return float(task.values(task.evidence(said, known), once)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", required=True)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/depth_7scenes"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    train(given)


if __name__ == "__main__":
    main()
