"""Twelve timm architectures through quantize, export and parity; random weights suffice.

python benchmarks/architectures.py --bits w8a8 w4a8
"""

import argparse
import tempfile
import time
from pathlib import Path

import timm
import torch

from roadworthy.compress.methods import Mse
from roadworthy.journey import quantize
from roadworthy.requests import parse_bits

NAMES = (
    "resnet18",
    "resnet50",
    "mobilenetv2_100",
    "mnasnet_100",
    "efficientnet_lite0",
    "regnetx_002",
    "regnety_002",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", nargs="+", default=["w8a8"])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--names", nargs="+", default=NAMES)
    given = parser.parse_args()
    print("| architecture | bits | agreement | mean diff | max diff | MB | s |")
    print("|---|---|---|---|---|---|---|")
    for name in given.names:
        for bits in given.bits:
            print(row(name, bits, given.images), flush=True)


def row(name: str, bits: str, count: int) -> str:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    settle_norms(model)
    images = torch.randn(count, 3, 224, 224)
    start = time.perf_counter()
    try:
        done = quantize(model, images, Mse(*parse_bits(bits)))
        with tempfile.TemporaryDirectory() as folder:
            facts = done.export(Path(folder) / "model.onnx")
    except Exception as error:
        return f"| {name} | {bits} | failed: {str(error)[:120]} | | | | |"
    parity, size = facts["parity"], facts["bytes"] / 2**20
    return (
        f"| {name} | {bits} | {parity['agreement']:.4f} | {parity['mean_abs']:.1e} | "
        f"{parity['max_abs']:.1e} | {size:.1f} | {time.perf_counter() - start:.0f} |"
    )


def settle_norms(model: torch.nn.Module) -> None:
    """Give BatchNorm the statistics of random images: untrained ones let activations fade out."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        torch.nn.init.ones_(norm.weight)
    if norms:
        model.train()
        with torch.no_grad():
            model(torch.randn(16, 3, 224, 224))
        model.eval()


if __name__ == "__main__":
    main()
