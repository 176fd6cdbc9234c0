"""What each ingredient of qdrop-plus gains on ResNet-20, one added after the other.

Chosen by is `val`: 2000 images of the JPEG train store, none of them a test image. A and B are the
test sets of resnet_figures.py, shown beside it.

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
from roadworthy.compress.methods import ActScale, Method, Pass, Rounding
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.metrics import accuracy
from roadworthy.core.predict import TorchPredictor, predict
from roadworthy.requests import parse_bits


def variants(steps: int) -> dict[str, Method]:
    """Methods by name, each the one before with one thing more."""
    qdrop = Pass(iterations=steps)
    rate = replace(qdrop, rounding=Rounding(lr=1e-2, schedule="cosine"))
    act = replace(rate, act_scale=ActScale(2e-3, relative=True))
    step = replace(act, weight_scale_lr=2e-3)
    bias = replace(step, bias_lr=2e-3)
    logits = Pass(
        scope="network",
        iterations=max(1, steps // 2),
        keep_quantized_input=1.0,
        keep_quantized_inside=1.0,
        rounding=None,
        act_scale=ActScale(1e-3, relative=True),
        weight_scale_lr=1e-3,
        bias_lr=1e-3,
        loss="kl",
    )
    through = Rounding(kind="straight-through", lr=5e-3, schedule="cosine")
    both = (bias, logits)
    return {
        "qdrop": Method(passes=(qdrop,)),
        "+ rounding rate": Method(passes=(rate,)),
        "+ activation rate": Method(passes=(act,)),
        "+ weight step": Method(passes=(step,)),
        "+ bias": Method(passes=(bias,)),
        "+ logit KL": Method(passes=both),
        "+ mirrored images": Method(passes=both, augment=1),
        "+ straight-through": Method(passes=(bias, replace(logits, rounding=through)), augment=1),
        "pairs of blocks": Method(passes=(replace(bias, scope="pair"),)),
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
    print("| variant | val | A | B | CPU s |\n|---|---|---|---|---|")
    for name, method in variants(given.iterations).items():
        if given.only is not None and name not in given.only:
            continue
        method = replace(method, weight_bits=weight_bits, act_bits=act_bits)
        start = time.process_time()
        plan = Plan(method, ACADEMIC, Widths(weight_bits, act_bits))
        module = compress(graph, images, plan, Run(given.seed)).module
        spent = time.process_time() - start
        scores = {
            key: 100 * accuracy(predict(TorchPredictor(module), x.split(250)), y)
            for key, (x, y) in sets.items()
        }
        row = " | ".join(f"{scores[key]:.1f}" for key in ("val", "A", "B"))
        print(f"| {name} | {row} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
