"""Does evolution find better networks than chance, at the same number of looks and the same budget?

One supernet around MN-XS learns CIFAR-10 (32 pixels, the train part of DATA). Then, for each seed,
evolution and random search judge equally many networks that multiply no more than MN-XS does, by
the supernet's accuracy on images held out of the train part. Test images judge only what each found
best: with the supernet's weights, and trained from scratch for --scratch steps.

    python benchmarks/search_supernet.py --data $ROADWORTHY_DATA/cifar10 --out out/search

Intervals are Student's, 95 %, over the seeds' differences. The same call goes on where it stopped.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from paired import signed

from roadworthy.core.metanet import POINTS, MetaNet, MetaNetConfig
from roadworthy.learn.batches import Augmentation, Source
from roadworthy.learn.expert import Headed
from roadworthy.learn.loop import Feed, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.search import Evolution, Goal, Method, Random, Score, Trial, best, search
from roadworthy.learn.sources import source
from roadworthy.learn.space import Space, around, cost_of
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


def found(space: Space, budget: int, judge: Score) -> dict[str, list[Trial]]:
    """The best of each seed, by method."""
    goal = Goal(budget, given.evaluations, SIZE, CLASSES)
    winners: dict[str, list[Trial]] = {name: [] for name in METHODS}
    for seed in range(given.seeds):
        for name, method in METHODS.items():
            journal = given.out / f"{name}-{seed}.jsonl"
            winners[name] += best(search(space, goal, judge, method, seed, journal))
    return winners


def table(title: str, rows: dict[str, list[float]]) -> None:
    print(f"\n| {title} | " + " | ".join(f"seed {n}" for n in range(given.seeds)) + " | mean |")
    print("|---" * (given.seeds + 2) + "|")
    for name, values in rows.items():
        cells = " | ".join(f"{each:.4f}" for each in values)
        print(f"| {name} | {cells} | {np.mean(values):.4f} |")
    differences = [e - r for e, r in zip(rows["evolution"], rows["random"], strict=True)]
    print(f"evolution - random: {signed(differences)}", flush=True)


def main() -> None:
    torch.set_num_threads(given.threads)
    began = time.perf_counter()
    whole = source(f"npz:{given.data / 'train.npz'}", "classification", SIZE)
    test = source(f"npz:{given.data / 'test.npz'}", "classification", SIZE, whole.classes)
    order = np.random.default_rng(0).permutation(len(whole)).tolist()
    held, learned = part(whole, order[: given.held]), part(whole, order[given.held :])
    calibration = part(whole, order[given.held : given.held + given.calibration])
    space = around(POINTS["mn_xs"])
    start = space.own(POINTS["mn_xs"])
    budget = cost_of(start, SIZE, CLASSES).macs
    plan = Plan(steps=given.steps, batch=given.batch, rate=given.rate)
    supernet, _ = learn_supernet(space, learned, plan, given.out / "supernet", Machine("cpu"))
    print(
        f"{len(learned)} images learned, {len(held)} held out, {len(test)} test; "
        f"{given.steps} steps;"
    )
    print(
        f"space of {space.count:.2g} networks; at most {budget} multiply-accumulates;", flush=True
    )
    judge = cast("Score", cache(Judge(supernet.eval(), calibration, held)))
    winners = found(space, budget, judge)
    final = Judge(supernet, calibration, test)
    print(f"MN-XS itself: held-out {judge(start):.4f}, test {final(start):.4f}")
    table("held-out", {name: [each.score for each in w] for name, w in winners.items()})
    table("test", {n: [final(each.network) for each in w] for n, w in winners.items()})
    table(
        "million multiply-accumulates", {n: [e.macs / 1e6 for e in w] for n, w in winners.items()}
    )
    if given.scratch:
        base = from_scratch(start, learned, test, given.out / "scratch-mn_xs")
        print(f"\nMN-XS itself from scratch, {given.scratch} steps: test {base:.4f}", flush=True)
        rows: dict[str, list[float]] = {name: [] for name in METHODS}
        for seed in range(given.seeds):
            for name in METHODS:
                room = given.out / f"scratch-{name}-{seed}"
                rows[name].append(from_scratch(winners[name][seed].network, learned, test, room))
        table("test, from scratch", rows)
    for name, trials in winners.items():
        for seed, trial in enumerate(trials):
            print(
                f"{name} {seed}:",
                *(f"{s.op}x{s.repeats}:{s.channels}:{s.down}" for s in trial.network.stages),
            )
    print(f"{time.perf_counter() - began:.0f} s")


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
