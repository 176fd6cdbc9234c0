"""Summaries of a small BART by methods and widths; the table of docs/outlier-suppression.md.

A model trained by recipes/train_seq2seq.py is calibrated on texts of its train.tsv, and on what its
float form writes for them, and judged on test.tsv: ROUGE-L of what it writes token by token against
the captions, share of tokens equal to the float model's behind what that writes, squared error of
the logits over their variance, share of equal summaries. Every weight, embedding and activation has
the width of its column.

    python benchmarks/summary_figures.py --columns w8a8 w6a6 --seeds 0
"""

import argparse
import statistics
from pathlib import Path

import torch
from outlier_figures import METHODS, measured, table
from torch import Tensor, fx

from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.judging import against_float
from roadworthy.judging_answers import judged_by_answers, references, score, written

SHOWN = [
    "minmax",
    "mse-2",
    "migrate-clip",
    "outlier-suppression",
    "smoothquant-1",
    "outlier-suppression-plus",
]


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    loaded = load_model(f"hf:{given.model}")
    model, stages = loaded.answers, loaded.texts
    assert model is not None
    assert stages is not None
    train, test = (
        judged_by_answers(f"text:{given.model}/{part}.tsv?text=document&label=summary")
        for part in ("train", "test")
    )
    test = test.subset(min(given.judged, len(test)), 0)
    wanted, (texts, _) = references(test), load_tensor(test, stages)
    assert wanted is not None
    forced = model.generated(texts)
    graph = capture(loaded.module, forced[:1])
    fp, said = in_batches(graph, forced), written(graph, model.bounds, stages, texts)

    def shown(seed: int) -> Tensor:
        few = train.subset(given.texts, seed, stratified=False)
        return model.generated(load_tensor(few, stages)[0])

    def judged(module: fx.GraphModule) -> dict[str, float]:
        own = written(module, model.bounds, stages, texts)
        same = statistics.fmean(a == b for a, b in zip(own, said, strict=True))
        close = against_float(fp, in_batches(module, forced))
        return {"rougeL": score(own, wanted, 0).value, "equal": same, **close}

    found = measured(given, graph, shown, judged)
    right = 100 * score(said, wanted, 0).value
    print(f"float: ROUGE-L {right:.1f} of {len(said)} texts\n\n{table(given, found, summary)}")


def summary(cells: list[dict[str, float]]) -> str:
    """Mean over seeds: ROUGE-L / equal tokens / logit error / equal summaries, CPU seconds."""
    mean = {key: statistics.fmean(cell[key] for cell in cells) for key in cells[0]}
    return (
        f"{100 * mean['rougeL']:.1f} / {100 * mean['agreement']:.1f} / {mean['logit_error']:.3f} / "
        f"{100 * mean['equal']:.1f} ({mean['cpu']:.0f} s)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("out/bart-captions"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=SHOWN)
    parser.add_argument("--columns", nargs="+", default=["w8a8", "w6a6"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=256, help="to calibrate on")
    parser.add_argument("--judged", type=int, default=200, help="texts of the test set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/summaries"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
