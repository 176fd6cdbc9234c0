"""How much of the bare backbone's speed the stage loop keeps.

An expert learns from rendered scenes held in memory; beside it, in turns, the same backbone takes
the same number of images forward and backward as plain tensors, in the same layout of memory and
the same precision, without views, loss, head, clipping or optimiser, and the same backbone with
its head. Images a second by CPU time of this process, the best of --rounds.

    python benchmarks/learn_speed.py --threads 2
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from roadworthy.core.memory import keep_freed_memory
from roadworthy.learn.backbones import Backbone, backbone
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.expert import Headed
from roadworthy.learn.loop import Feed, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import source
from roadworthy.learn.tasks import AUGMENTATIONS, answer, read


def squares(said: Sequence[Tensor]) -> Tensor:
    return torch.stack([each.square().mean() for each in said]).sum()


def autocast() -> torch.autocast:
    """What the loop's forward pass computes in, for the other arms."""
    mixed = given.precision == "bf16-mixed"
    return torch.autocast(given.device, torch.bfloat16, enabled=mixed)


def bare(body: Backbone, task: Task, images: Tensor, steps: int) -> None:
    body.train().to(memory_format=torch.channels_last)
    for _ in range(steps):
        with autocast():
            loss = squares(read(body, task, images))
        loss.backward()


def with_head(body: Backbone, scenes: Source, images: Tensor, steps: int) -> None:
    headed = Headed(body, [scenes]).train().to(images.device)
    headed.to(memory_format=torch.channels_last)
    for _ in range(steps):
        with autocast():
            said = answer(scenes.task, headed.heads[0], read(body, scenes.task, images))
            loss = squares([said] if isinstance(said, Tensor) else said)
        loss.backward()


def loop(body: Backbone, scenes: Source, plan: Plan, device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        feed = Feed(scenes, AUGMENTATIONS[scenes.task])
        machine = Machine("cuda" if device == "cuda" else "cpu", given.precision)
        train(Headed(body, [scenes]), [feed], plan, Path(folder), machine)


def clock(call: Callable[[], None]) -> float:
    start = time.perf_counter() if given.device == "cuda" else time.process_time()
    call()
    if given.device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - start
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as the loop does: for all arms alike
    plan = Plan(steps=given.steps, batch=given.batch)
    images = torch.randn(given.batch, 3, given.size, given.size, device=given.device)
    images = images.contiguous(memory_format=torch.channels_last)
    print("| task | backbone | with its head | stage loop | kept of the first | of the second |")
    print("|---" * 6 + "|")
    for task in given.tasks:
        scenes = source(f"scenes:0-{2 * given.batch}", task, given.size)
        arms: dict[str, Callable[[Backbone], None]] = {
            "bare": lambda body, t=task: bare(body, t, images, given.steps),
            "head": lambda body, s=scenes: with_head(body, s, images, given.steps),
            "loop": lambda body, s=scenes: loop(body, s, plan, given.device),
        }
        spent: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(given.rounds):
            for name, call in arms.items():
                body = backbone(given.model).to("cpu" if name == "loop" else given.device)
                spent[name].append(clock(lambda c=call, b=body: c(b)))
        fast, headed, slow = (given.steps * given.batch / min(each) for each in spent.values())
        shares = f"{slow / fast:.0%} | {slow / headed:.0%}"
        print(f"| {task} | {fast:.0f} | {headed:.0f} | {slow:.0f} | {shares} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="metanet:mn_xs@random")
    parser.add_argument(
        "--tasks", nargs="+", default=["classification", "detection", "segmentation", "depth"]
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main()
