"""Images chosen by `learn.selection` against as many at random, judged by a linear probe.

    python benchmarks/selection.py --data cifar10/train.npz --test cifar10/test.npz

Made unlike a clean data set on purpose: the pool is long-tailed CIFAR-10 (each class has 0.6 times
as many images as the one before, in an order that the seed draws), with every tenth image there
again as a recompressed copy, and a third of it are rendered scenes, which are no CIFAR images. An
annotator who is given a scene can only throw it away, so its label is spent. Both arms begin with
the same images per class, which also are the reference, and get the same number of further ones;
features are those of EfficientNet-Lite0 (ImageNet), and all classes count alike to the judge. The
test set is seen by the judge alone, and the selection sees no label of the pool. Images of CIFAR-10
here were recompressed.
"""

import argparse
import io
from typing import Any

import numpy as np
import torch
from lite0 import build
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression

from roadworthy.core.data import Dataset, load_data
from roadworthy.core.sources import decode
from roadworthy.learn.scenes import scenes
from roadworthy.learn.selection import directions, select

SIDE, CLASSES = 96, 10
SEEDS = range(5)
Images = list[Image.Image]
Array = NDArray[np.floating]
Numbers = NDArray[np.int64]


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


def taken(data: Dataset, indices: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
    return [data.load(int(i)) for i in indices], np.array([data.label(int(i)) for i in indices])


def long_tail(labels: Numbers, most: int, random: np.random.Generator) -> Numbers:
    chosen = [
        random.permutation(np.flatnonzero(labels == each))[: round(most * 0.6**rank)]
        for rank, each in enumerate(random.permutation(CLASSES))
    ]
    return np.concatenate(chosen)


def probe(found: Array, labels: NDArray[np.int64]) -> LogisticRegression:
    return LogisticRegression(C=10, max_iter=300, class_weight="balanced").fit(found, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument(
        "--images", type=int, default=3000, help="of --data, all seeds draw of them"
    )
    parser.add_argument("--begin", type=int, default=5, help="annotated images of each class")
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 100, 200])
    given = parser.parse_args()
    net, fixed = build(), np.random.default_rng(1)
    train, test = load_data(f"npz:{given.data}"), load_data(f"npz:{given.test}")
    images, labels = taken(train, fixed.choice(len(train), given.images, replace=False))
    held, truth = taken(test, fixed.choice(len(test), 1000, replace=False))
    scenery = [decode(each.image, each.name) for each in scenes(range(400), 32)]
    own, copies, judged, foreign = (
        features(net, each) for each in (images, list(map(recompressed, images)), held, scenery)
    )
    gains: dict[int, list[tuple[float, float]]] = {count: [] for count in given.counts}
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        order = random.permutation(len(labels))
        first = np.concatenate([order[labels[order] == k][: given.begin] for k in range(CLASSES)])
        rest = np.setdiff1d(order, first)
        tail = rest[long_tail(labels[rest], given.images // 12, random)]
        again = tail[::10]
        pool = np.concatenate([own[tail], copies[again], foreign[: (len(tail) + len(again)) // 2]])
        classes = np.full(len(pool), -1)
        classes[: len(tail) + len(again)] = labels[np.concatenate([tail, again])]
        begun = probe(own[first], labels[first])
        print(f"seed {seed}: {len(pool)} images, {(classes < 0).sum()} foreign; begin", end=" ")
        print(f"{begun.score(judged, truth):.1%}")
        for count, found in gains.items():
            arms = (
                random.choice(len(pool), count, replace=False),
                select(pool, own[first], count, random, begun.predict_proba(pool)),
            )
            scores: list[float] = []
            for each in arms:
                usable = each[classes[each] >= 0]
                fit = np.concatenate([own[first], pool[usable]])
                told = np.concatenate([labels[first], classes[usable]])
                scores.append(float(probe(fit, told).score(judged, truth)))
            found.append((scores[0], scores[1]))
            wasted = ", ".join(str((classes[each] < 0).sum()) for each in arms)
            print(f"  {count:4} random {scores[0]:.1%}, chosen {scores[1]:.1%}; foreign {wasted}")
    for count, found in gains.items():
        random_, chosen = np.array(found).T
        drawn = np.random.default_rng(0).integers(len(found), size=(10_000, len(found)))
        low, high = np.quantile((chosen - random_)[drawn].mean(1), [0.025, 0.975])
        print(
            f"{count:4} images: random {random_.mean():.1%}, chosen {chosen.mean():.1%}, gain "
            f"{100 * (chosen - random_).mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        )


if __name__ == "__main__":
    main()
