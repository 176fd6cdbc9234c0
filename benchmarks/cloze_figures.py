"""The answers found in contexts of docs/outlier-suppression.md: methods, widths, seeds.

MiniLM fine-tuned on the questions of recipes/cloze_spans.py is calibrated on those of its training
set and asked those of dev.tsv: F1 and exact match as SQuAD has them, share of the answers that are
the float model's, squared error of the start and end logits over their variance. Every weight,
embedding and activation has the width of its column.

    python benchmarks/cloze_figures.py --columns w8a8 w6a6 --seeds 0
"""

import argparse
import math
import statistics
from pathlib import Path

import torch
from outlier_figures import METHODS, measured, table
from torch import Tensor, fx

from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.models import load_model
from roadworthy.core.padding import choices, in_batches
from roadworthy.core.spans import each_score, passages
from roadworthy.judging import against_float

CHOSEN = ("minmax", "smoothquant-1", "outlier-suppression", "outlier-suppression-plus")


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    loaded = load_model(given.model)
    assert loaded.texts is not None
    train, test = (
        load_data(f"text:{given.data}/{part}.tsv?text=question,context&label=answer", True)
        for part in ("train", "dev")
    )
    x, _ = load_tensor(test, loaded.texts)
    asked, graph = passages(test, loaded.texts), capture(loaded.module, x[:1])
    floats = in_batches(graph, x)
    wanted = asked.answers(choices(floats, x))

    def shown(seed: int) -> Tensor:
        return load_tensor(train.subset(given.texts, seed, stratified=False), loaded.texts)[0]

    def judged(module: fx.GraphModule) -> dict[str, float]:
        logits = in_batches(module, x)
        said = asked.answers(choices(logits, x))
        f1, exact = each_score(said, asked.wanted).mean(0)
        same = sum(a == b for a, b in zip(said, wanted, strict=True)) / len(said)
        near = {"agreement": same, "logit_error": against_float(floats, logits)["logit_error"]}
        return {"f1": float(f1), "exact": float(exact), **near}

    found = measured(given, graph, shown, judged)
    each = each_score(wanted, asked.wanted)
    (f1, exact), error = 100 * each.mean(0), 100 * each.std(0) / math.sqrt(len(each))
    print(f"float on {len(each)} questions: F1 {f1:.1f} (standard error {error[0]:.1f}), ", end="")
    print(f"exact {exact:.1f} ({error[1]:.1f})\n\n{table(given, found, summary)}")


def summary(cells: list[dict[str, float]]) -> str:
    """Mean over seeds: F1 / exact match / agreement / logit error, spread of F1, CPU seconds."""
    keys = ("f1", "exact", "agreement")
    f1, exact, same = ([100 * cell[key] for cell in cells] for key in keys)
    error, cpu = ([cell[key] for cell in cells] for key in ("logit_error", "cpu"))
    mean = statistics.fmean
    return (
        f"{mean(f1):.1f} / {mean(exact):.1f} / {mean(same):.1f} / {mean(error):.3f} "
        f"({statistics.pstdev(f1):.1f}; {mean(cpu):.0f} s)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hf:out/minilm-cloze")
    parser.add_argument("--data", type=Path, default=Path("out/cloze"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(CHOSEN))
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/cloze-figures"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
