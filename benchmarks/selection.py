"""Images chosen by `learn.selection` against as many at random, judged by a linear probe.

    python benchmarks/selection.py --data cifar10/train.npz --test cifar10/test.npz

Made unlike a clean data set on purpose: the pool is long-tailed CIFAR-10 (each class has 0.6 times
as many images as the one before, in an order that the seed draws), with some images there again as
recompressed copies, and a third of it are rendered scenes, which are no CIFAR images. An annotator
who is given a scene can only throw it away, so its label is spent. Both arms begin with the same
images per class, which also are the reference, and get the same number of further ones; the
selection in rounds, with a probe learned anew after each of them. Features are those of
EfficientNet-Lite0 (ImageNet), and all classes count alike to the judge. The test set is seen by the
judge alone, and the selection sees only labels that were paid for. A seed's score is the mean of
several draws, of either arm. Images of CIFAR-10 here were recompressed.
"""

import argparse
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lite0 import build
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.sources import decode
from roadworthy.learn.gvb.table import student
from roadworthy.learn.scenes import scenes
from roadworthy.learn.selection import directions, select

SIDE, CLASSES = 96, 10
Images = list[Image.Image]
Array = NDArray[np.floating]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What a seed draws: annotated features and classes, and the pool; foreign ones are of -1."""

    known: Array
    told: Numbers
    pool: Array
    classes: Numbers

    def probe(self, numbers: Numbers) -> LogisticRegression:
        """Of all that is annotated, these of the pool with it; foreign ones teach nothing."""
        usable = numbers[self.classes[numbers] >= 0]
        rows = np.concatenate([self.known, self.pool[usable]])
        told = np.concatenate([self.told, self.classes[usable]])
        return LogisticRegression(C=1, max_iter=300, class_weight="balanced").fit(rows, told)

    def chosen(self, count: int, per_round: int, random: np.random.Generator) -> Numbers:
        """`count` numbers of the pool in the order of their annotation."""
        got = np.zeros(0, np.int64)
        while len(got) < count:
            left = np.setdiff1d(np.arange(len(self.pool)), got)
            own = got[self.classes[got] >= 0]
            new = select(
                self.pool[left],
                np.concatenate([self.known, self.pool[own]]),
                min(per_round, count - len(got)),
                random,
                np.asarray(self.probe(got).predict(self.pool[left])),
                np.bincount(np.concatenate([self.told, self.classes[own]]), minlength=CLASSES),
            )
            got = np.concatenate([got, left[new]])
        return got


def features(net: Any, images: Images) -> Array:
    found: list[Array] = []
    for i in range(0, len(images), 64):
        sized = [each.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for each in images[i : i + 64]]
        pixels = torch.from_numpy(np.stack(list(map(np.asarray, sized)))).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps = net.forward_features((pixels.float() - 127) / 128)
            found.append(net.forward_head(maps, pre_logits=True).numpy())
    return directions(np.concatenate(found))


def recompressed(image: Image.Image) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=70)
    return decode(held.getvalue(), "copy")


def taken(data: Dataset, indices: Numbers) -> tuple[Images, Numbers]:
    return [data.load(int(i)) for i in indices], np.array([data.label(int(i)) for i in indices])


def long_tail(labels: Numbers, most: int, random: np.random.Generator) -> Numbers:
    chosen = [
        random.permutation(np.flatnonzero(labels == each))[: round(most * 0.6**rank)]
        for rank, each in enumerate(random.permutation(CLASSES))
    ]
    return np.concatenate(chosen)


def drawn(own: Array, copies: Array, foreign: Array, labels: Numbers, seed: int) -> World:
    """Every tenth of `own` has a copy."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    first = np.concatenate([order[labels[order] == k][: given.begin] for k in range(CLASSES)])
    rest = np.setdiff1d(order, first)
    tail = rest[long_tail(labels[rest], given.images // 12, random)]
    again = tail[tail % 10 == 0]
    real = np.concatenate([labels[tail], labels[again]])
    pool = np.concatenate([own[tail], copies[again // 10], foreign[: len(real) // 2]])
    classes = np.concatenate([real, np.full(len(pool) - len(real), -1)])
    return World(own[first], labels[first], pool, classes)


def interval(gains: Array) -> str:
    """Mean and Student's 95 % interval, in points."""
    mean, half = student(gains.tolist())
    low, middle, high = (f"{100 * (mean + side):+.1f}" for side in (-half, 0, half))
    return f"{middle} ({low} to {high})"


def table(scores: Array, wasted: Array) -> None:
    """Of `[seed draw count arm]`."""
    print(
        f"\n{len(scores)} seeds\n| annotated | at random | chosen | gain, points | foreign ones |"
    )
    print("|---|---|---|---|---|")
    for number, count in enumerate(given.counts):
        random, chosen = scores.mean(1)[:, number].T
        spent = " / ".join(f"{each:.0f}" for each in wasted.mean((0, 1))[number])
        print(
            f"| {count} | {random.mean():.1%} | {chosen.mean():.1%} | "
            f"{interval(chosen - random)} | {spent} |",
            flush=True,
        )


def main() -> None:
    net, fixed = build(), np.random.default_rng(1)
    train, test = load_data(f"npz:{given.data}"), load_data(f"npz:{given.test}")
    images, labels = taken(train, fixed.choice(len(train), given.images, replace=False))
    held, truth = taken(test, fixed.choice(len(test), given.judged, replace=False))
    scenery = [decode(each.image, each.name) for each in scenes(range(400), 32)]
    own, copies, judged, foreign = (
        features(net, each)
        for each in (images, list(map(recompressed, images[::10])), held, scenery)
    )
    shape = given.seeds, given.draws, len(given.counts), 2
    scores, wasted = np.zeros(shape), np.zeros(shape)
    for seed in range(given.seeds):
        world = drawn(own, copies, foreign, labels, seed)
        begun = world.probe(np.zeros(0, np.int64)).score(judged, truth)
        print(f"seed {seed}: {len(world.pool)} images, begin {begun:.1%}", flush=True)
        for draw in range(given.draws):
            random = np.random.default_rng((seed, draw))
            arms = (
                random.permutation(len(world.pool)),
                world.chosen(max(given.counts), given.per_round, random),
            )
            for arm, number in np.ndindex(2, len(given.counts)):
                annotated = arms[arm][: given.counts[number]]
                scores[seed, draw, number, arm] = world.probe(annotated).score(judged, truth)
                wasted[seed, draw, number, arm] = (world.classes[annotated] < 0).sum()
    table(scores[:5], wasted[:5])
    if given.seeds > 5:
        table(scores, wasted)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", required=True)
    add("--test", required=True)
    add("--images", type=int, default=3000, help="of --data, all seeds draw of them")
    add("--judged", type=int, default=2000, help="images of --test")
    add("--begin", type=int, default=5, help="annotated images of each class")
    add("--counts", type=int, nargs="+", default=[50, 100, 200])
    add("--per-round", type=int, default=10, help="images between two probes")
    add("--draws", type=int, default=3, help="of either arm, a seed's score is their mean")
    add("--seeds", type=int, default=20, help="the first five also by themselves")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main()
