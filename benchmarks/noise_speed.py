"""A sweep against `evaluate` once per option, and against the bare model, in one run.

OMP_NUM_THREADS=1 python benchmarks/noise_speed.py --images 64
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
import yaml

from roadworthy.core.images import IMAGENET
from roadworthy.demo import find_weights
from roadworthy.evaluate import evaluate, open_predictor
from roadworthy.noise.options import options
from roadworthy.noise.systems import System
from roadworthy.requests import EvaluateRequest, NoiseRequest, RoadChoice

STAGES = ("decode", "resize", "geometry", "colour", "normalise")
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    given = parser.parse_args()
    folder = Path(os.environ["ROADWORTHY_DATA"]) / "imagenet_sample"
    data = f"imagefolder:{folder}@{folder / 'labels.tsv'}"
    model = f"torchvision:mobilenet_v2@{find_weights()}"
    with tempfile.TemporaryDirectory() as scratch:
        swept, classes = sweep(model, data, given.images, Path(scratch))
        single, count = one_by_one(model, data, given.images, Path(scratch))
    bare = bare_model(model, given.images) * classes
    print(f"{count} options, {classes} systems run, {given.images} images")
    print(f"evaluate per option  {single:7.1f} s")
    print(f"sweep                {swept:7.1f} s, {single / swept:.2f} times as fast")
    print(f"bare model           {bare:7.1f} s, {100 * bare / swept:.0f} % of the sweep")


def sweep(model: str, data: str, images: int, scratch: Path) -> tuple[float, int]:
    """Seconds of a sweep, and how many systems it ran, base and ladder included."""
    from roadworthy.roadtest import noise_to_dir

    request = NoiseRequest(model, RoadChoice(data, limit=images), scratch / "road", STAGES)
    start = time.perf_counter()
    record = noise_to_dir(request).to_dict()
    heads = {(r["stage"], r["class"]) for r in record["rows"] if r["class"] == r["option"]}
    return time.perf_counter() - start, 2 + len(heads) + len(record["ladder"]) - 1


def one_by_one(model: str, data: str, images: int, scratch: Path) -> tuple[float, int]:
    """Seconds of `evaluate` for the training system and for every option that runs here."""
    offered = options(System(IMAGENET), STAGES)
    stages = [IMAGENET, *(o.system.preprocess for o in offered if o.missing is None)]
    start = time.perf_counter()
    for number, each in enumerate(stages):
        path = scratch / f"{number}.yaml"
        path.write_text(yaml.safe_dump(each.to_dict()))
        evaluate(EvaluateRequest(model, data, str(path), BATCH, limit=images))
    return time.perf_counter() - start, len(stages) - 1


def bare_model(model: str, images: int) -> float:
    """Seconds of the model alone on so many images of noise."""
    predictor, _ = open_predictor(model, None)
    x = torch.randn(BATCH, 3, 224, 224)
    predictor(x)
    start = time.perf_counter()
    for _ in range(-(-images // BATCH)):
        predictor(x)
    return (time.perf_counter() - start) * images / (-(-images // BATCH) * BATCH)


if __name__ == "__main__":
    main()
