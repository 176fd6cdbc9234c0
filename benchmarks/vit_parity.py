"""Deployed against simulated on a transformer: timm's vit_tiny, trained for CIFAR-10 right here.

The network is small enough to train on one core in minutes (32 px, patches of 8) and right on about
half of the test images: its logits have margins as those of a model in use, which random weights do
not give. Its checkpoint stays in --out. Agreement is over the 3017 images of tests A and B.

    python benchmarks/vit_parity.py --bits w8a8 w4a4 w3a3 w2a2
"""

import argparse
import tempfile
import time
from pathlib import Path

import cifar_sets
import numpy as np
import timm
import torch
from torch import nn

from roadworthy.compress.methods import QDrop, with_iterations
from roadworthy.core.predict import predict
from roadworthy.core.progress import track
from roadworthy.core.runs import write_atomically
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.parity import compare
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.journey import quantize
from roadworthy.requests import parse_bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w4a4", "w3a3", "w2a2"])
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--training-steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/vit"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    model = trained(given.out / f"vit-{given.training_steps}.pth", given.training_steps)
    images, labels = (
        torch.from_numpy(np.concatenate(pair))
        for pair in zip(cifar_sets.test_a(), cifar_sets.test_b(), strict=True)
    )
    calibration = torch.from_numpy(cifar_sets.calibration()[0])
    right = 100 * score(model, images, labels)
    print(f"float: {right:.1f} % right")
    print("| bits | right | agreement | mean diff | max diff | s |\n|---|---|---|---|---|---|")
    for bits in given.bits:
        start = time.perf_counter()
        method = with_iterations(QDrop(*parse_bits(bits)), given.iterations)
        done = quantize(model, calibration, method)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            done.export(path)
            deployed = OrtPredictor(path)
            found = compare(
                predict(IntegerPredictor(done.module), images.split(64)),
                predict(deployed, images.split(64)),
            )
            right = 100 * score(deployed, images, labels)
        print(
            f"| {bits} | {right:.1f} | {found.agreement:.4f} | {found.mean_abs:.1e} | "
            f"{found.max_abs:.1e} | {time.perf_counter() - start:.0f} |",
            flush=True,
        )


def trained(path: Path, steps: int) -> nn.Module:
    """The network, from `path` or trained and left there."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=10, drop_path_rate=0.0
    )
    if not path.is_file():
        train(model, steps)
        with write_atomically(path) as temporary:
            torch.save(model.state_dict(), temporary)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def train(model: nn.Module, steps: int) -> None:
    """AdamW with a warm-up and cosine decay, batches of 128, mirrored and shifted images."""
    images, labels = (torch.from_numpy(part) for part in cifar_sets.training())
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for _ in track(range(steps), "training"):
        index = torch.randint(len(images), (128,))
        x = images[index]
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        shift = torch.randint(-3, 4, (2,)).tolist()
        loss = nn.functional.cross_entropy(model(x.roll(shift, (2, 3))), labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def score(model: object, images: torch.Tensor, labels: torch.Tensor) -> float:
    answers = torch.cat([model(part).argmax(1) for part in images.split(250)])
    return float((answers == labels).double().mean())


if __name__ == "__main__":
    main()
