"""Quantization-aware fine-tuning (LSQ+) of a Hugging Face text classifier: a folder of integers.

    python recipes/qat_text.py --model hf:out/minilm-sst2 --bits w4a4 --out out/qat-w4a4 \
        --data "text:sst2/train.tsv?text=sentence&label=label" \
        --eval "text:sst2/test.tsv?text=sentence&label=label"

It begins with a method without training, then learns weights, steps and zero points by the cross
entropy of the task; texts held out of the data choose the weights that are kept. --out is what
`roadworthy quantize` leaves: evaluate it, road-test it, deploy its model.onnx. The same command
given again after a run was killed goes on from its last judgement.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from torch import fx

from roadworthy.compress.engine import Run
from roadworthy.compress.qat import FineTune, Labelled, fine_tune
from roadworthy.compress.quantize import Compressed, Plan
from roadworthy.compress.suppress import Smooth
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import check_labels, load_data
from roadworthy.core.models import load_model
from roadworthy.core.predict import Inputs
from roadworthy.errors import RoadworthyError
from roadworthy.journey import quantize_to_dir
from roadworthy.requests import (
    DataChoice,
    Method,
    QuantizeRequest,
    Scheme,
    Solver,
    parse_bits,
    parse_kept,
)

HELD = 512
"""Texts that choose the weights, a tenth of the data where it is small."""


def parts(given: argparse.Namespace) -> tuple[Labelled, Labelled]:
    """Texts to learn from, drawn by seed, and texts that judge."""
    loaded, data = load_model(given.model).scoring(), load_data(given.data).labelled()
    check_labels(data, loaded.module(loaded.example(())).shape[-1])
    held = min(HELD, max(1, len(data) // 10))
    rows = min(len(data), held + given.steps * given.batch_size)
    drawn = data.subset(rows, given.seed, stratified=False)
    inputs, labels = load_tensor(drawn, loaded.chosen(None), progress="reading texts")
    return Labelled(inputs[held:], labels[held:]), Labelled(inputs[:held], labels[:held])


def begun(plan: Plan, smoothing: Smooth) -> Plan:
    """`plan`, with this smoothing where it smooths."""
    if not isinstance(plan.method.suppress, Smooth):
        return plan
    return replace(plan, method=replace(plan.method, suppress=smoothing))


def told(step: int, loss: float, right: float) -> None:
    """A line per judgement."""
    line = f"step {step}; held out: {100 * right:.2f} % right, loss {loss:.3f}"
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="hf:DIR or hf:ID")
    parser.add_argument("--data", required=True, metavar="SPEC", help="labelled texts")
    parser.add_argument("--eval", metavar="SPEC", help="labelled texts that judge the result")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", default="w4a4")
    parser.add_argument("--keep-8bit", default="none", help="first,last or none (none)")
    parser.add_argument(
        "--method", default="smoothquant", choices=get_args(Method), help="to begin (smoothquant)"
    )
    parser.add_argument("--alpha", type=float, default=1.0, help="of smoothquant, 0 to 1 (1)")
    parser.add_argument("--steps", type=int, default=1000, help="(1000)")
    parser.add_argument("--batch-size", type=int, default=32, help="(32)")
    parser.add_argument("--distil", type=float, default=0.0, help="share, 0 to 1 (0)")
    parser.add_argument("--weight-lr", type=float, default=2e-3, help="in steps (0.002)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Quantize, fine-tune, save and tell."""
    given = arguments()
    settings = FineTune(given.steps, given.batch_size, given.weight_lr, distil=given.distil)
    smoothing = Smooth(given.alpha)
    request = QuantizeRequest(
        given.model,
        DataChoice(given.data, given.eval),
        given.out,
        Scheme(*parse_bits(given.bits), parse_kept(given.keep_8bit)),
        Solver(method=given.method),
        seed=given.seed,
        device="cpu",
    )
    train, held = parts(given)
    tune = partial(fine_tune, train=train, held=held, settings=settings, told=told)

    def compress(graph: fx.GraphModule, inputs: Inputs, plan: Plan, run: Run) -> Compressed:
        return tune(graph, inputs, begun(plan, smoothing), run)

    record = quantize_to_dir(request, compress).to_dict()
    for name in ("deployed", "against_float"):
        print(name, record.get(name))
    print(f"{record['seconds']:.0f} s; {given.out}")


if __name__ == "__main__":
    try:
        main()
    except RoadworthyError as error:
        sys.exit(f"qat_text: {error}")
