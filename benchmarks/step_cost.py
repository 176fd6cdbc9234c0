"""What one reconstruction step costs, next to the float block's own forward and backward.

Both run in this process, in turns, on the same 32 cached inputs; the ratio is the figure. Blocks:
layer1.0, layer2.1 and layer3.1 of CIFAR ResNet-20, all weights learnable in the float block too.

    python benchmarks/step_cost.py --threads 1
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from resnet_cifar import resnet20
from torch import nn

from roadworthy.compress.calibrate import in_batches, set_enabled
from roadworthy.compress.engine import Task, calibrate, part_of, prepare
from roadworthy.compress.learn import Samples, stepper
from roadworthy.compress.methods import Method, Pass, QDrop, QDropPlus
from roadworthy.compress.place import Widths
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.extract import Part, extract
from roadworthy.core.memory import keep_freed_memory

BLOCKS = ("layer1.0", "layer2.1", "layer3.1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    print("| block | float, ms | qdrop, ms | ratio | qdrop-plus, ms | ratio |")
    print("|---|---|---|---|---|---|")
    images = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for block in BLOCKS:
        runs = [float_step(block, images), *(our_step(block, images, m) for m in methods())]
        times = in_turns(runs, given.rounds)
        fp = times[0]
        ours = " | ".join(f"{t:.1f} | {t / fp:.2f}" for t in times[1:])
        print(f"| {block} | {fp:.1f} | {ours} |")


def methods() -> list[Method]:
    return [QDrop(4, 4), QDropPlus(4, 4)]


def in_turns(runs: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each, one call of each per round."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 5):
        for run, kept in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if number >= 5:
                kept.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(kept) for kept in times]


def walked(block: str, images: torch.Tensor, method: Method) -> tuple[Task, Part, torch.Tensor]:
    """The task, the block's part and the block's float input."""
    graph = capture(resnet20(), images[:1])
    task = prepare(graph, ACADEMIC, Widths(method.weight_bits, method.act_bits))
    calibrate(task, images, method, ACADEMIC)
    x = images
    for unit in task.units:
        part = Part(unit.nodes, unit.entry, unit.exit)
        if unit.name == block:
            return task, part, x
        x = in_batches(extract(graph, part), x)
    raise SystemExit(f"no unit {block}")


def float_step(block: str, images: torch.Tensor) -> Callable[[], object]:
    task, part, x = walked(block, images, QDrop(4, 4))
    module = learnable(extract(task.graph, part))
    inputs = x[:32].clone()
    with torch.no_grad():
        upstream = torch.randn_like(module(inputs))

    def step() -> None:
        module.zero_grad(set_to_none=True)
        module(inputs).backward(upstream)

    return step


def learnable(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for owner in list(module.modules()):
        for name, value in list(owner.named_buffers(recurse=False)):
            delattr(owner, name)
            owner.register_parameter(name, nn.Parameter(value))
    for parameter in module.parameters():
        parameter.requires_grad_()
    return module


def our_step(block: str, images: torch.Tensor, method: Method) -> Callable[[], object]:
    task, part, x = walked(block, images, method)
    module = part_of(task, part).eval()
    set_enabled(module, False)
    target = in_batches(module, x)
    set_enabled(module, True)
    x, target = (t.contiguous(memory_format=torch.channels_last) for t in (x, target))
    samples = Samples(x, x + 0.01 * torch.randn_like(x), target)
    settings: Pass = method.passes[0]
    step = stepper(module, samples, settings, torch.Generator().manual_seed(0))
    counter = iter(range(settings.iterations // 2, settings.iterations))
    return lambda: step(next(counter))


if __name__ == "__main__":
    main()
