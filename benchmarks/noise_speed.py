"""A sweep against `evaluate` once per option, as commands and in one process, and the bare model.

    OMP_NUM_THREADS=1 python benchmarks/noise_speed.py --images 64
    OMP_NUM_THREADS=1 python benchmarks/noise_speed.py --images 16 --megapixels 12

`evaluate` runs for `--sample` options, spread over all, and is counted for all of them. Images are
those of imagenet_sample; `--megapixels` enlarges them to what a phone takes. Seconds are wall
time, those of CPU time in brackets.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from PIL import Image

from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.demo import find_weights
from roadworthy.evaluate import evaluate
from roadworthy.noise import study
from roadworthy.noise.options import options
from roadworthy.noise.systems import System
from roadworthy.requests import EvaluateRequest, RoadChoice
from roadworthy.roadtest import open_road

STAGES = ("decode", "resize", "geometry", "colour", "normalise")
BATCH = 32
Seconds = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="default: MobileNetV2 with real weights")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--megapixels", type=float)
    given = parser.parse_args()
    model = given.model or f"torchvision:mobilenet_v2@{find_weights()}"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = photos(scratch / "photos", given.images, given.megapixels)
        road = RoadChoice(data, "imagenet", limit=given.images, batch_size=BATCH)
        fleet, bench = open_road(model, road, None)
        base = System(IMAGENET)
        offered = [o for o in options(base, STAGES) if o.missing is None]
        everyone = [IMAGENET, *(o.system.preprocess for o in offered)]
        grouping, rows = timed(lambda: study.classes(bench, base, offered, 0.0))
        chosen = [option.system for option in study.heads(rows, offered)]
        running, _ = timed(lambda: study.measure(bench, base, chosen, 0, "sweep"))
        sweep = added(grouping, running)
        few = everyone[:: max(1, len(everyone) // given.sample)]
        requests = stored(scratch, few, model, data, given.images)
        share = len(everyone) / len(few)
        single = times(timed(lambda: [evaluate(request) for request in requests])[0], share)
        apart = times(timed(lambda: [command(request) for request in requests])[0], share)
        bare = bare_model(fleet(base), len(bench.dataset), len(chosen) + 1)
    print(f"{len(everyone)} systems, {len(chosen) + 1} different ones, {given.images} images")
    print(f"roadworthy evaluate  {shown(apart)}, {apart[0] / sweep[0]:.2f} sweeps")
    print(f"evaluate, in process {shown(single)}, {single[0] / sweep[0]:.2f} sweeps")
    print(f"sweep                {shown(sweep)}, of it {shown(grouping)} to find the classes")
    print(
        f"bare model           {shown(bare)}, {running[1] / bare[1]:.2f} of it is the sweep's CPU"
    )


def photos(folder: Path, count: int, megapixels: float | None) -> str:
    """Data spec of the photos, enlarged copies of the first `count` where a size is given."""
    store = Path(os.environ["ROADWORTHY_DATA"]) / "imagenet_sample"
    if megapixels is None:
        return f"imagefolder:{store}@{store / 'labels.tsv'}"
    folder.mkdir()
    lines = (store / "labels.tsv").read_text().splitlines()[:count]
    for line in lines:
        name = line.split("\t")[0]
        image = Image.open(store / name).convert("RGB")
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        image.resize(size, Image.Resampling.BICUBIC).save(folder / Path(name).name, quality=90)
    listing = [f"{Path(name).name}\t{label}" for name, label in (x.split("\t")[:2] for x in lines)]
    (folder / "labels.tsv").write_text("\n".join(listing) + "\n")
    return f"imagefolder:{folder}@{folder / 'labels.tsv'}"


def stored(
    scratch: Path, systems: Sequence[Preprocess], model: str, data: str, images: int
) -> list[EvaluateRequest]:
    """A request for each, its preprocessing in a file."""
    requests = []
    for number, each in enumerate(systems):
        path = scratch / f"{number}.yaml"
        path.write_text(yaml.safe_dump(each.to_dict()))
        requests.append(EvaluateRequest(model, data, str(path), BATCH, images))
    return requests


def command(request: EvaluateRequest) -> None:
    """The same on the command line."""
    line = [sys.executable, "-m", "roadworthy", "evaluate", request.model, "--data", request.data]
    line += ["--preprocess", str(request.preprocess), "--batch-size", str(request.batch_size)]
    line += ["--limit", str(request.limit)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(call: Callable[[], object]) -> tuple[Seconds, object]:
    """Wall and CPU seconds of a call, processes that it starts included."""
    wall, cpu = time.perf_counter(), _cpu()
    answer = call()
    return (time.perf_counter() - wall, _cpu() - cpu), answer


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def added(a: Seconds, b: Seconds) -> Seconds:
    """The sum of two."""
    return a[0] + b[0], a[1] + b[1]


def times(seconds: Seconds, factor: float) -> Seconds:
    """A multiple."""
    return seconds[0] * factor, seconds[1] * factor


def shown(seconds: Seconds) -> str:
    """Wall seconds, and CPU seconds in brackets."""
    return f"{seconds[0]:7.1f} s ({seconds[1]:.1f})"


def bare_model(predictor: Callable[[torch.Tensor], object], images: int, systems: int) -> Seconds:
    """The model alone on so many images of noise for each of `systems`."""
    x = torch.randn(BATCH, 3, 224, 224)
    predictor(x)
    seconds, _ = timed(lambda: [predictor(x) for _ in range(4)])
    return times(seconds, images * systems / (4 * BATCH))


if __name__ == "__main__":
    main()
