"""How often `roadworthy noise identify` names the pipeline that made a tensor, and in what time.

Random pipelines out of all the known ones, each on a random photo: decoder, resizer, geometry,
colour path, normalisation and precision. One is named right where the first match makes the same
raster of that photo and normalises it the same way. Strangers are tensors that no known
pipeline makes of that photo: there, right is to say so.

    OMP_NUM_THREADS=1 python benchmarks/identify.py --count 200 --strangers 40 --seed 0
"""

import argparse
import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from roadworthy.core.colours import COLOURS
from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Geometry, Preprocess
from roadworthy.core.resizers import RESIZERS
from roadworthy.noise.identify import EXACT, Match, identify
from roadworthy.noise.options import NORMALISATIONS
from roadworthy.noise.photo import usable
from roadworthy.noise.placing import FILLS

RATIOS = (1.0, 0.875, 0.9, 0.95, 0.96, 0.965, 224 / 232, 224 / 240, 224 / 248, 224 / 288)
"""Of the crop to the resized short side, as published models have them."""
SIDES = (160, 192, 224, 240, 256, 299)
STRANGERS = ("crop", "turn", "photo", "noise")
"""Tensors that no known pipeline makes."""


@dataclass(frozen=True)
class Trial:
    """One pipeline on one photo, and how it was named."""

    photo: Path
    stages: Preprocess
    name: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="random pipelines")
    parser.add_argument("--strangers", type=int, default=40, help="tensors of no pipeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, default=_photos(), help="folder of photos")
    given = parser.parse_args()
    photos = sorted(p for p in given.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    draw = random.Random(given.seed)
    rows = [known(drawn(draw, photos)) for _ in range(given.count)]
    wrong = [what for what, _ in rows if what]
    print(f"named right: {given.count - len(wrong)} of {given.count}; {_times(rows)}")
    for what, many in Counter(wrong).most_common():
        print(f"  {many} x {what}")
    said = [stranger(drawn(draw, photos), draw, photos, i) for i in range(given.strangers)]
    taken = [kind for kind, _ in said if kind]
    print(f"strangers told: {len(said) - len(taken)} of {len(said)}; {_times(said)}")
    for kind, many in Counter(taken).most_common():
        print(f"  {many} x {kind}")


def drawn(draw: random.Random, photos: list[Path]) -> Trial:
    """A pipeline out of the known ones."""
    side, geometry = draw.choice(SIDES), draw.choice(get_args(Geometry))
    short = int(side / draw.choice(RATIOS))
    name, mean, std = draw.choice(NORMALISATIONS)
    stages = Preprocess(
        decode=draw.choice(usable(DECODERS)),
        resize=draw.choice(usable(RESIZERS)),
        geometry=geometry,
        size=(short, short) if geometry.startswith("short-side") else (side, side),
        crop=(side, side) if geometry.startswith("short-side") else None,
        colour=draw.choice(usable(COLOURS)),
        mean=mean,
        std=std,
        fill=draw.choice(FILLS),
        precision=draw.choice(("float32", "float32", "float32", "float16")),
    )
    return Trial(draw.choice(photos), stages, name)


def known(trial: Trial) -> tuple[str, float]:
    """What was mistaken, empty where nothing was, and the seconds it took."""
    content, name = trial.photo.read_bytes(), trial.photo.name
    pixels = trial.stages.decoded(content, name)
    raster = trial.stages.coloured(trial.stages.fitted(pixels))
    tensor = trial.stages.normalised(raster).numpy()
    start = time.perf_counter()
    first = identify(content, name, tensor)[0]
    seconds = time.perf_counter() - start
    return mistaken(trial, first, content, raster, tensor), seconds


def mistaken(
    trial: Trial, first: Match, content: bytes, raster: np.ndarray, tensor: np.ndarray
) -> str:
    stages = first.stages
    again = stages.coloured(stages.fitted(stages.decoded(content, trial.photo.name)))
    same = again.shape == raster.shape and np.abs(again.astype(np.float32) - raster).max() < 0.01
    # Half precision holds whole numbers to 2048, so that 0 to 255 may be either.
    exact = np.array_equal(stages.normalised(raster).numpy(), tensor)
    normalised = trial.name == first.normalise and (
        exact or stages.precision == trial.stages.precision
    )
    if same and normalised and first.residual <= EXACT:
        return ""
    named = _line(stages, first.normalise)
    return f"{_line(trial.stages, trial.name)} as {named}, residual {first.residual:.4f}"


def stranger(
    trial: Trial, draw: random.Random, photos: list[Path], number: int
) -> tuple[str, float]:
    """What kind of stranger was taken for known, empty where none was, and the seconds it took."""
    kind = STRANGERS[number % len(STRANGERS)]
    content, stages = trial.photo.read_bytes(), trial.stages
    pixels = stages.decoded(content, trial.photo.name)
    match kind:
        case "crop":
            cut = [draw.randint(9, side // 4) for side in pixels.shape[:2]]
            pixels = pixels[cut[0] :, cut[1] :]
        case "turn":
            pixels = np.rot90(pixels).copy()
        case "photo":
            other = draw.choice([p for p in photos if p != trial.photo])
            pixels = stages.decoded(other.read_bytes(), other.name)
        case _:
            pass
    tensor = stages.normalised(stages.coloured(stages.fitted(pixels))).numpy()
    if kind == "noise":
        levels = np.random.default_rng(draw.randrange(2**32)).normal(0, 1, tensor.shape)
        tensor = (tensor + levels / 255 / np.array(stages.std)[:, None, None]).astype(np.float32)
    start = time.perf_counter()
    first = identify(content, trial.photo.name, tensor)[0]
    seconds = time.perf_counter() - start
    return (kind if first.residual <= EXACT else ""), seconds


def _times(rows: list[tuple[str, float]]) -> str:
    seconds = [each for _, each in rows] or [0.0]
    return (
        f"seconds: mean {np.mean(seconds):.2f}, median {np.median(seconds):.2f}, "
        f"most {max(seconds):.2f}"
    )


def _line(stages: Preprocess, name: str) -> str:
    geometry = f"{stages.geometry} {stages.size} {stages.crop}"
    return f"{stages.decode}/{stages.resize}/{geometry}/{stages.colour}/{name} {stages.precision}"


def _photos() -> Path:
    return Path(os.environ.get("ROADWORTHY_DATA", ".")) / "imagenet_sample"


if __name__ == "__main__":
    main()
