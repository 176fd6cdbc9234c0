"""CPU seconds from a captured float graph to ONNX: all of `torch.onnx.export`, and this exporter.

Both translate the same program of a network with random weights, in turns in this process; torch's
trace into that program is common to both and a column of its own.

    python benchmarks/export_speed.py --rounds 3
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, fx
from transformers import BertConfig, BertForSequenceClassification

from roadworthy.core.capture import capture
from roadworthy.core.hf import HfText
from roadworthy.deploy.onnx_program import to_onnx
from roadworthy.deploy.translate import dynamic_export

OPSET = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | trace, s | torch.onnx.export, s | here, s | ratio | nodes alike |")
    print("|---|---|---|---|---|---|")
    for name, graph, x in networks():
        print(row(name, graph, x, rounds), flush=True)


def networks() -> Iterator[tuple[str, fx.GraphModule, Tensor]]:
    images = torch.rand(2, 3, 64, 64)
    for name in ("mobilenetv2_100", "vit_tiny_patch16_224"):
        options = {"img_size": 64} if name.startswith("vit") else {}
        yield name, capture(timm.create_model(name, **options).eval(), images), images
    size = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512}
    config = BertConfig(vocab_size=1000, num_hidden_layers=6, **size)
    tokens = torch.ones(2, 3, 16, dtype=torch.int64)
    bert = HfText(BertForSequenceClassification(config)).eval()
    yield "BERT, 6 layers", capture(bert, tokens), tokens


def row(name: str, graph: fx.GraphModule, x: Tensor, rounds: int) -> str:
    """Medians; what every process pays once (imports, the first registry) is paid before."""
    turns = [turn(graph, x) for _ in range(rounds + 1)][1:]
    traced, whole, here = (
        statistics.median(column) for column in list(zip(*turns, strict=True))[:3]
    )
    alike = "yes" if all(each[3] for each in turns) else "no"
    return f"| {name} | {traced:.2f} | {whole:.2f} | {here:.2f} | {whole / here:.1f} | {alike} |"


def turn(graph: fx.GraphModule, x: Tensor) -> tuple[float, float, float, bool]:
    with torch.no_grad():
        traced, program = seconds(lambda: dynamic_export(graph, x))
        whole, theirs = seconds(
            lambda: torch.onnx.export(program, opset_version=OPSET, verbose=False)
        )
        here, mine = seconds(lambda: to_onnx(program, {}, OPSET))
    kinds = [[node.op_type for node in model.graph] for model in (theirs.model, mine)]
    return traced, whole, here, kinds[0] == kinds[1]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
