"""Which activations of a quantized vision transformer cost the most: each kind spared in turn.

The network of recipes/train_vit.py, calibrated as in vit_figures.py. The quantizers of one kind are
named after what writes their input (softmax, gelu, layer_norm ...) and taken out, the others stay;
the row "all" takes out none, "weights" all of the activations'.

    python benchmarks/spare_kinds.py --bits w6a6 --method minmax
"""

import argparse
import operator
from collections import Counter
from copy import deepcopy

import torch
from outlier_figures import METHODS, Cell, quantized
from torch import fx
from vit_figures import MODEL, prepared

from roadworthy.core.grid import ops
from roadworthy.core.metrics import accuracy
from roadworthy.core.padding import in_batches
from roadworthy.judging import against_float
from roadworthy.requests import parse_bits


def kind_of(node: fx.Node) -> str:
    """What writes the input of a quantizer."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if source.op == "placeholder":
        return "image"
    name = str(source.target).removeprefix("aten.").split(".")[0]
    if name in VIEWS or source.target is operator.getitem:
        return kind_of(source)
    return name


VIEWS = {"view", "permute", "transpose", "slice", "select", "unbind", "clone", "expand", "cat"}


def spared(module: fx.GraphModule, kind: str) -> fx.GraphModule:
    """`module` without the quantizers of a kind."""
    module = deepcopy(module)
    for node in list(module.graph.nodes):
        if node.target is ops.fake_quantize.default and kind in ("weights", kind_of(node)):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()
    return module


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    graph, (x, y), shown = prepared(given.model)
    wanted = in_batches(graph, x)
    cell = Cell(given.method, parse_bits(given.bits), given.seed)
    module = quantized(graph, shown(given.seed, given.images), cell)
    nodes = [n for n in module.graph.nodes if n.target is ops.fake_quantize.default]
    counts = Counter(map(kind_of, nodes))
    print(f"float {100 * accuracy(wanted, y):.2f} % of {len(y)}\n")
    print("| spared | quantizers | accuracy / agreement / logit error |\n|---|---|---|")
    for kind in ("all", *counts, "weights"):
        said = in_batches(spared(module, kind), x)
        near = against_float(wanted, said)
        print(
            f"| {kind} | {counts[kind] or ''} | {100 * accuracy(said, y):.1f} / "
            f"{100 * near['agreement']:.1f} / {near['logit_error']:.3f} |",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--bits", default="w6a6")
    parser.add_argument("--method", choices=METHODS, default="minmax")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
