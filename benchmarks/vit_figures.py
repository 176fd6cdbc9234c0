"""The vision transformer figures of docs/outlier-suppression.md, with and without suppression.

The network of recipes/train_vit.py is calibrated on 256 training images and judged on tests A and B
of cifar_sets.py: accuracy, agreement with the float model, squared error of the logits over their
variance. Every weight and activation has the width of its column.

    python benchmarks/vit_figures.py --columns w6a6 w4a4
"""

import argparse
from pathlib import Path

import cifar_sets
import numpy as np
import torch
from outlier_figures import METHODS, measured, summary, table
from torch import Tensor, fx

from roadworthy.core.capture import capture
from roadworthy.core.metrics import accuracy
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.judging import against_float

MODEL = "py:recipes/train_vit.py:network@out/vit-cifar10/model.safetensors"
CHOSEN = (
    *("minmax", "mse", "clip", "migrate-clip", "outlier-suppression"),
    *("outlier-suppression-plus", "smoothquant", "smoothquant-1"),
)


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    x, y = (
        torch.from_numpy(np.concatenate(pair))
        for pair in zip(cifar_sets.test_a(), cifar_sets.test_b(), strict=True)
    )
    images = torch.from_numpy(cifar_sets.calibration()[0])
    graph = capture(load_model(given.model).module, x[:1])
    wanted = in_batches(graph, x)

    def shown(seed: int) -> Tensor:
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        return images[rows[: given.images]]

    def judged(module: fx.GraphModule) -> dict[str, float]:
        said = in_batches(module, x)
        return {"accuracy": accuracy(said, y), **against_float(wanted, said)}

    found = measured(given, graph, shown, judged)
    print(f"float {100 * accuracy(wanted, y):.2f} % of {len(y)}\n\n{table(given, found, summary)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(CHOSEN))
    parser.add_argument("--columns", nargs="+", default=["w6a6", "w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("out/vit-figures"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
