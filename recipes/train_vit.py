"""Train a small vision transformer on 32-pixel images: weights for a `py:` spec.

    python recipes/train_vit.py --data "npz:$ROADWORTHY_DATA/cifar10/train.npz" \
        --out out/vit-cifar10
    roadworthy evaluate py:recipes/train_vit.py:network@out/vit-cifar10/model.safetensors \
        --data "npz:$ROADWORTHY_DATA/cifar10/test.npz"

Patches come out of two convolutions, with which few epochs suffice, and half of them are left out
at random but for the last fifth of the steps, which halves the time. A tenth of the images, drawn
by seed, is held out: what is right there is told and chooses nothing.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.progress import track
from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput

PREPROCESS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SIDE, REACH = 32, 4
WHOLE = 0.8
"""Share of the steps after which every patch is seen."""


class Stem(PatchEmbed):
    """Patches of four pixels by two convolutions of stride two."""

    def __init__(self, *args: Any, embed_dim: int, **options: Any) -> None:
        super().__init__(*args, embed_dim=embed_dim, **options)
        self.proj = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(64, embed_dim, 3, stride=2, padding=1),
        )


def network() -> nn.Module:
    """A ViT of six blocks and 192 channels with random weights."""
    return VisionTransformer(
        img_size=SIDE,
        patch_size=4,
        embed_dim=192,
        depth=6,
        num_heads=3,
        num_classes=10,
        patch_drop_rate=0.5,
        embed_layer=Stem,
    )


def parts(spec: str, seed: int) -> tuple[Dataset, Dataset]:
    """Images to learn from, and a tenth of all that judges."""
    data = load_data(spec).labelled()
    drawn = data.subset(len(data), seed, stratified=False)
    few = max(1, len(data) // 10)
    return replace(drawn, indices=drawn.indices[few:]), drawn.head(few)


def varied(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image mirrored or not, and shifted by a few pixels."""
    size = len(images)
    mirrored = torch.rand(size, 1, 1, 1, generator=random) < 0.5
    images = torch.where(mirrored, images.flip(-1), images)
    padded = nn.functional.pad(images, [REACH] * 4, mode="reflect")
    windows = padded.unfold(2, SIDE, 1).unfold(3, SIDE, 1)
    y, x = torch.randint(0, 2 * REACH + 1, (2, size), generator=random)
    return windows[torch.arange(size), :, y, x]


@torch.inference_mode()
def judge(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross entropy."""
    logits = torch.cat([model(part) for part in images.split(250)])
    loss = nn.functional.cross_entropy(logits, labels)
    return float((logits.argmax(1) == labels).double().mean()), float(loss)


def train(model: nn.Module, data: tuple[Tensor, Tensor], given: argparse.Namespace) -> None:
    """Learn, a warm-up of one twentieth, then linearly to nothing."""
    images, labels = data
    random = torch.Generator().manual_seed(given.seed)
    steps, warm = given.steps, given.steps / 20
    optimiser = torch.optim.AdamW(model.parameters(), given.lr, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / (steps - warm))
    )
    start, seen = time.process_time(), 0.0
    for step in track(range(steps), "training"):
        if step >= WHOLE * steps:
            model.patch_drop = nn.Identity()
        rows = torch.randint(len(images), (given.batch_size,), generator=random)
        loss = nn.functional.cross_entropy(
            model(varied(images[rows], random)), labels[rows], label_smoothing=0.05
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        seen = 0.95 * seen + 0.05 * float(loss.detach())
        if step % 20 == 19:
            minutes = (time.process_time() - start) / 60
            told = f"step {step + 1} of {steps}, {minutes:.1f} CPU minutes, loss {seen:.3f}"
            print(told, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help="labelled images")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.safetensors")
    parser.add_argument("--steps", type=int, default=500, help="(500)")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step (128)")
    parser.add_argument("--lr", type=float, default=1e-3, help="(0.001)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train and save."""
    given = arguments()
    torch.manual_seed(given.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    look = Preprocess(mean=tuple(PREPROCESS["mean"]), std=tuple(PREPROCESS["std"]))
    learned, held = (load_tensor(each, look) for each in parts(given.data, given.seed))
    model = network()
    train(model.train(), learned, given)
    right, loss = judge(model.eval(), *held)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "model.safetensors"
    with write_atomically(path) as temporary:
        save_file(model.state_dict(), temporary)
    print(f"{100 * right:.2f} % of {len(held[1])} held-out images right, loss {loss:.3f}; {path}")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"train_vit: {error}")
