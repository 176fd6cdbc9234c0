"""Does evolution find better networks than chance, at the same number of looks and the same budget?

For each seed a supernet around MN-XS learns CIFAR-10 (32 pixels, the train part of DATA), and in it
evolution and random search judge equally many networks that multiply no more than MN-XS does, by
the supernet's accuracy on images held out of the train part. Test images judge only what each found
best: with the supernet's weights, and trained from scratch for --scratch steps.

    python benchmarks/search_supernet.py --data $ROADWORTHY_DATA/cifar10 --out out/search

Intervals are Student's, 95 %, over the seeds' differences. The same call goes on where it stopped.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from paired import interval, signed

from roadworthy.core.metanet import POINTS, MetaNet, MetaNetConfig
from roadworthy.learn.batches import Augmentation, Source
from roadworthy.learn.expert import Headed
from roadworthy.learn.loop import Feed, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.search import Evolution, Goal, Method, Random, Score, Trial, best, search
from roadworthy.learn.sources import source
from roadworthy.learn.space import around, cost_of
from roadworthy.learn.supernet import Judge, learn_supernet
from roadworthy.learn.tasks import judge_head

SIZE, CLASSES = 32, 10
METHODS: dict[str, Method] = {"random": Random(), "evolution": Evolution()}


def part(of: Source, numbers: Sequence[int]) -> Source:
    return replace(of, content=of.content[torch.tensor(numbers)])


def from_scratch(network: MetaNetConfig, learned: Source, test: Source, out: Path) -> float:
    """Test accuracy of the network after --scratch steps of its own."""
    torch.manual_seed(0)
    learner = Headed(MetaNet(network), [learned])
    plan = Plan(steps=given.scratch, batch=given.batch)
    train(learner, [Feed(learned, Augmentation(crop=(0.6, 1.0)))], plan, out, Machine("cpu"))
    return judge_head(learner.backbone, learner.heads[0], test).value


class Found(NamedTuple):
    """What a method found in one seed's supernet, and what it is worth on test images."""

    trial: Trial
    test: float
    alone: float
    """Trained from scratch; not a number where nothing was."""


def searched(seed: int, learned: Source, held: Source, test: Source) -> dict[str, Found]:
    """Both searches in a supernet of the seed's own."""
    space = around(POINTS["mn_xs"])
    start = space.own(POINTS["mn_xs"])
    goal = Goal(cost_of(start, SIZE, CLASSES).macs, given.evaluations, SIZE, CLASSES)
    plan = Plan(steps=given.steps, batch=given.batch, rate=given.rate, seed=seed)
    room = given.out / f"seed-{seed}"
    supernet, _ = learn_supernet(space, learned, plan, room / "supernet", Machine("cpu"))
    supernet.eval()
    calibration = part(learned, range(given.calibration))
    judge = cast("Score", cache(Judge(supernet, calibration, held)))
    final = Judge(supernet, calibration, test)
    rows: dict[str, Found] = {}
    for name, method in METHODS.items():
        (trial,) = best(search(space, goal, judge, method, seed, room / f"{name}.jsonl"))
        alone = float("nan")
        if given.scratch:
            alone = from_scratch(trial.network, learned, test, room / f"alone-{name}")
        rows[name] = Found(trial, final(trial.network), alone)
    print(
        f"seed {seed}: {space.count:.2g} networks of at most {goal.budget} multiply-accumulates; "
        f"MN-XS itself held-out {judge(start):.4f}, test {final(start):.4f}"
    )
    for name, row in rows.items():
        stages = row.trial.network.stages
        print(
            f"{name}:", *(f"{s.op}x{s.repeats}:{s.channels}:{s.down}" for s in stages), flush=True
        )
    return rows


def table(rows: Mapping[str, Sequence[float]], title: str) -> None:
    print(f"\n| {title} | " + " | ".join(f"seed {n}" for n in range(given.seeds)) + " | mean |")
    print("|---" * (given.seeds + 2) + "|")
    for name, values in rows.items():
        cells = " | ".join(f"{each:.4f}" for each in values)
        print(f"| {name} | {cells} | {np.mean(values):.4f} |")
    pairs = zip(rows["evolution"], rows["random"], strict=True)
    print(f"evolution - random: {interval([e - r for e, r in pairs], signed)}", flush=True)


def main() -> None:
    torch.set_num_threads(given.threads)
    began = time.process_time()
    whole = source(f"npz:{given.data / 'train.npz'}", "classification", SIZE)
    test = source(f"npz:{given.data / 'test.npz'}", "classification", SIZE, whole.classes)
    order = np.random.default_rng(0).permutation(len(whole)).tolist()
    held, learned = part(whole, order[: given.held]), part(whole, order[given.held :])
    print(f"{len(learned)} images learned, {len(held)} held out, {len(test)} test", flush=True)
    seeds = [searched(seed, learned, held, test) for seed in range(given.seeds)]
    by_name = {name: [each[name] for each in seeds] for name in METHODS}
    table({name: [e.trial.score for e in own] for name, own in by_name.items()}, "held-out")
    table({name: [e.test for e in own] for name, own in by_name.items()}, "test")
    if given.scratch:
        table({name: [e.alone for e in own] for name, own in by_name.items()}, "alone, test")
    costs = {name: [e.trial.macs / 1e6 for e in own] for name, own in by_name.items()}
    table(costs, "million multiply-accumulates")
    print(f"{time.process_time() - began:.0f} s of CPU")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train.npz, test.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=250, help="of the supernet, four paths each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--held", type=int, default=1000)
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scratch", type=int, default=0, help="steps from scratch of each winner")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main()
