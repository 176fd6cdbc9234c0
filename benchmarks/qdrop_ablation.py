"""What each ingredient of qdrop-plus gains on ResNet-20, one added after the other, and what more
was tried.

Chosen by is `val`: 6000 images of the JPEG train store, none of them a test image; KL is the mean
divergence of the logits there from the float model's, in thousandths of a nat, which spreads less
over seeds. A and B are the test sets of resnet_figures.py, shown beside it.

    python benchmarks/qdrop_ablation.py --bits w2a2 --iterations 400 --seed 0
"""

import argparse
import time
from dataclasses import replace

import cifar_sets
import torch
from resnet_cifar import resnet20
from resnet_figures import image_sets

from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Method, Pass, QDropPlus, with_iterations
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan
from roadworthy.compress.select import compress_best
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.metrics import accuracy
from roadworthy.core.predict import TorchPredictor, predict
from roadworthy.requests import parse_bits


def variants(weight_bits: int, act_bits: int, steps: int) -> dict[str, Method]:
    """Methods by name: qdrop-plus put together, then what it goes without."""
    plus = with_iterations(QDropPlus(weight_bits, act_bits), steps)
    block, network = plus.passes
    halves = replace(block, keep_quantized_input=0.5, keep_quantized_inside=0.5)
    qdrop = Pass(iterations=steps)
    rate = replace(qdrop, rounding=block.rounding)
    act = replace(rate, act_scale=block.act_scale)
    step = replace(act, weight_scale_lr=block.weight_scale_lr)
    logits = replace(network, rounding=None)
    before = replace(plus, act_exponent=2.4)
    plain = replace(before, augment=0)
    return {
        "qdrop": replace(plain, passes=(qdrop,)),
        "+ rounding rate": replace(plain, passes=(rate,)),
        "+ activation rate": replace(plain, passes=(act,)),
        "+ weight step": replace(plain, passes=(step,)),
        "+ bias": replace(plain, passes=(halves,)),
        "+ logit KL": replace(plain, passes=(halves, logits)),
        "+ mirrored images": replace(before, passes=(halves, logits)),
        "+ straight-through": replace(before, passes=(halves, network)),
        "+ exponent 2.0 of activation ranges": replace(plus, passes=(halves, network)),
        "+ 3 of 4 values quantized = qdrop-plus": plus,
        "qdrop-plus, pairs of blocks": replace(
            plus, passes=(replace(block, scope="pair"), network)
        ),
        "qdrop-plus, 3 copies of images": replace(plus, augment=3),
        "qdrop-plus, 2 bits annealed": replace(
            plus, passes=(replace(block, anneal_bits=2.0), network)
        ),
        "qdrop-plus, best of 3 tries": replace(plus, tries=3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", default="w2a2")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    weight_bits, act_bits = parse_bits(given.bits)
    x, y = cifar_sets.validation()
    sets = {"val": (torch.from_numpy(x), torch.from_numpy(y))} | image_sets()
    images = sets.pop("calibration")[0]
    graph = capture(resnet20(), images[:1])
    wanted = predict(TorchPredictor(graph), sets["val"][0].split(250)).log_softmax(1)
    print("| variant | KL | val | A | B | CPU s |\n|---|---|---|---|---|---|")
    for name, method in variants(weight_bits, act_bits, given.iterations).items():
        if given.only is not None and name not in given.only:
            continue
        start = time.process_time()
        plan = Plan(method, ACADEMIC, Widths(weight_bits, act_bits))
        module = compress_best(graph, images, plan, Run(given.seed)).module
        spent = time.process_time() - start
        logits = {
            key: predict(TorchPredictor(module), x.split(250)) for key, (x, _) in sets.items()
        }
        kl = 1e3 * float((wanted.exp() * (wanted - logits["val"].log_softmax(1))).sum(1).mean())
        scores = (f"{100 * accuracy(logits[key], sets[key][1]):.1f}" for key in ("val", "A", "B"))
        print(f"| {name} | {kl:.0f} | {' | '.join(scores)} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
