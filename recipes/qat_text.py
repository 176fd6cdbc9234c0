"""Quantization-aware fine-tuning (LSQ+) of a Hugging Face text model: a folder of integers.

    python recipes/qat_text.py --model hf:out/minilm-sst2 --bits w4a4 --out out/qat-w4a4 \
        --data "text:sst2/train.tsv?text=sentence&label=label" \
        --eval "text:sst2/test.tsv?text=sentence&label=label"

It begins with a method without training, then learns weights, steps and zero points. A classifier
learns by the cross entropy of its classes, a finder of answers by that of both ends, an encoder
without a head by the cosine to the float model's embeddings, for which texts need no labels. Texts
held out of the data choose the weights that are kept. --out is what `roadworthy quantize` leaves:
evaluate it, road-test it, deploy its model.onnx. The same command given again after a run was
killed goes on from its last judgement.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never, get_args

from torch import Tensor, fx

from roadworthy.compress.engine import Run
from roadworthy.compress.goals import Labelled
from roadworthy.compress.qat import FineTune, fine_tune
from roadworthy.compress.quantize import Compressed, Plan
from roadworthy.compress.suppress import Smooth
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.models import LoadedModel, load_model
from roadworthy.core.padding import in_batches
from roadworthy.core.predict import Inputs
from roadworthy.core.spans import passages
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadModel, RoadworthyError
from roadworthy.journey import quantize_to_dir
from roadworthy.judging_spans import asking_set
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
    loaded = load_model(given.model)
    data = teaching(loaded, given.data)
    held = min(HELD, max(1, len(data) // 10))
    rows = min(len(data), held + given.steps * given.batch_size)
    drawn = data.subset(rows, given.seed, stratified=False)
    inputs, labels = load_tensor(drawn, loaded.chosen(None), progress="reading texts")
    inputs, labels = wanted(loaded, drawn, inputs, labels)
    return Labelled(inputs[held:], labels[held:]), Labelled(inputs[:held], labels[:held])


def teaching(loaded: LoadedModel, spec: str) -> Dataset:
    """Texts of a spec with the labels that a model of this kind learns by."""
    match loaded.says:
        case "scores":
            data = load_data(spec).labelled()
            check_labels(data, loaded.module(loaded.example(())).shape[-1])
            return data
        case "spans":
            return asking_set(spec)
        case "embeddings":
            return load_data(spec)
        case "texts":
            raise BadModel(
                f"{loaded.spec} answers texts; fine-tuning learns classes, passages or embeddings: "
                "give such a model, or take `roadworthy quantize`"
            )
        case _:
            assert_never(loaded.says)


def wanted(
    loaded: LoadedModel, data: Dataset, inputs: Inputs, classes: Tensor
) -> tuple[Inputs, Tensor]:
    """Texts and what is to be answered; without the questions whose answer is cut off."""
    if loaded.says == "embeddings":
        return inputs, in_batches(loaded.module, inputs)
    if loaded.says != "spans":
        return inputs, classes
    stages = loaded.chosen(None)
    assert isinstance(stages, TextInput)
    ends = passages(data, stages).ends()
    kept = (ends >= 0).all(1)
    return inputs[kept], ends[kept]


def begun(plan: Plan, smoothing: Smooth) -> Plan:
    """`plan`, with this smoothing where it smooths."""
    if not isinstance(plan.method.suppress, Smooth):
        return plan
    return replace(plan, method=replace(plan.method, suppress=smoothing))


def told(judged: dict[str, float]) -> None:
    """A line per judgement."""
    said = ", ".join(f"{name} {value:.4g}" for name, value in judged.items() if name != "step")
    print(f"step {judged['step']}; held out: {said}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="hf:DIR or hf:ID")
    parser.add_argument("--data", required=True, metavar="SPEC", help="texts to learn from")
    parser.add_argument("--eval", metavar="SPEC", help="texts that judge the result")
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
        if name in record:
            print(name, record[name])
    print(f"{record['seconds']:.0f} s; {given.out}")


if __name__ == "__main__":
    try:
        main()
    except RoadworthyError as error:
        sys.exit(f"qat_text: {error}")
