"""How much of the bare backbone's speed is left where features are extracted.

The features of 10 000 images of 64 pixels that are held in memory as bytes, as `adapt`, `learn
probe` and `benchmark` take them; beside it, in turns, the same backbone sees as many images as
plain tensors, a hundred at a time. Images a second by CPU time of this process, the best of
--rounds.

    python benchmarks/feature_speed.py --threads 2
"""

import argparse
import time
from collections.abc import Callable

import torch

from roadworthy.learn.backbones import Backbone, backbone
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.probe import rows_of
from roadworthy.learn.tasks import BATCH


@torch.no_grad()
def bare(body: Backbone, count: int, size: int) -> None:
    """The forward passes alone."""
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    for _ in range(count // BATCH):
        body(images)


def clock(call: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    torch.set_num_threads(given.threads)
    pixels = torch.randint(0, 256, (given.images, 3, given.size, given.size), dtype=torch.uint8)
    labels = torch.arange(given.images) % 10
    held = Source("noise", "classification", tuple(map(str, range(10))), Batch(pixels, labels))
    body = backbone(given.model).eval()
    spent: dict[str, list[float]] = {"bare": [], "features": []}
    for _ in range(given.rounds):
        spent["bare"].append(clock(lambda: bare(body, given.images, given.size)))
        spent["features"].append(clock(lambda: rows_of(body, held, torch.Generator())))
    fast, slow = (given.images / min(spent[name]) for name in ("bare", "features"))
    print("| bare, images/s | features, images/s | kept |\n|---|---|---|")
    print(f"| {fast:.0f} | {slow:.0f} | {slow / fast:.0%} |")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="metanet:mn_xs@random")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main()
