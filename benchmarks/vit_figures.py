"""The vision transformer figures of docs/outlier-suppression.md, with and without suppression.

The network of recipes/train_vit.py is calibrated on training images and judged on 500 test
images, drawn by seed: accuracy, agreement with the float model, squared error of the logits over
their variance. Every weight and activation has the width of its column.

    python benchmarks/vit_figures.py --columns w6a6 w4a4
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from outlier_figures import METHODS, measured, summary, table
from torch import Tensor, fx

from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.metrics import accuracy
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.judging import against_float

MODEL = "py:recipes/train_vit.py:network@out/vit-cifar10/model.safetensors"
CHOSEN = (
    *("minmax", "mse", "outlier-suppression", "outlier-suppression-plus"),
    *("smoothquant", "smoothquant-1"),
)
JUDGED = 500


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    graph, (x, y), shown = prepared(given.model)
    wanted = in_batches(graph, x)

    def judged(module: fx.GraphModule) -> dict[str, float]:
        said = in_batches(module, x)
        return {"accuracy": accuracy(said, y), **against_float(wanted, said)}

    found = measured(given, graph, lambda seed: shown(seed, given.images), judged)
    print(f"float {100 * accuracy(wanted, y):.2f} % of {len(y)}\n\n{table(given, found, summary)}")


def prepared(
    model: str,
) -> tuple[fx.GraphModule, tuple[Tensor, Tensor], Callable[[int, int], Tensor]]:
    """The captured model, images and labels that judge, calibration images by seed and number."""
    loaded = load_model(model)
    assert isinstance(loaded.preprocess, Preprocess)
    look, root = loaded.preprocess, os.environ["ROADWORTHY_DATA"]
    train, test = (load_data(f"npz:{root}/cifar10/{part}.npz") for part in ("train", "test"))
    x, y = load_tensor(test.subset(JUDGED, 0, stratified=False), look)

    def shown(seed: int, images: int) -> Tensor:
        return load_tensor(train.subset(images, seed, stratified=False), look)[0]

    return capture(loaded.module, x[:1]), (x, y), shown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(CHOSEN))
    parser.add_argument("--columns", nargs="+", default=["w6a6", "w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("out/vit-figures"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
