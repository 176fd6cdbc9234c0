"""What each way to adapt reaches with 10 % of CIFAR-10: frozen, lora, full and staged, paired.

For each seed the same tenth of DATA's train.npz, in the same batches and from the same new head,
is learned from by each protocol: as many steps, rates chosen on a fifth of it. All of test.npz
judges. Other weights of a random backbone, and another tenth, with each seed.

    python benchmarks/adapt_protocols.py --data $ROADWORTHY_DATA/cifar10 --out out/adapt \\
        --model out/small-0/generalist

Intervals are Student's, 95 %, over the seeds' differences. The same call goes on where it stopped.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from paired import interval, signed

from roadworthy.learn.adapt.fit import adapt
from roadworthy.learn.adapt.labelled import Sets, open_sets
from roadworthy.learn.adapt.protocols import Descent, protocol_of
from roadworthy.learn.machine import Machine
from roadworthy.learn.tasks import judge_head

PROTOCOLS = ("frozen", "lora", "full", "staged")
SIZE, SHARE = 32, 0.1


def reached(name: str, sets: Sets, seed: int) -> tuple[float, float]:
    """Test accuracy, and the rate that was chosen."""
    descent = Descent(given.steps, given.batch, tuple(given.rates))
    out = given.out / f"{name}-{seed}"
    found = adapt(
        given.model, sets.labelled, protocol_of(name, descent), out, seed, Machine(given.device)
    )
    assert sets.test is not None
    return judge_head(found.body, found.head, sets.test).value, found.chosen


def table(rows: dict[str, list[tuple[float, float]]]) -> None:
    """One line a protocol: test accuracies, their mean, and how far it is from `full`."""
    seeds = range(given.seeds)
    print(
        "\n| protocol | "
        + " | ".join(f"seed {n}" for n in seeds)
        + " | mean | minus `full` | rates |"
    )
    print("|---" * (given.seeds + 4) + "|")
    full = [value for value, _ in rows["full"]]
    for name, found in rows.items():
        values = [value for value, _ in found]
        cells = " | ".join(f"{each:.4f}" for each in values)
        beside = interval([a - b for a, b in zip(values, full, strict=True)], signed)
        rates = " ".join(f"{rate:g}" for _, rate in found)
        apart = "" if name == "full" else beside
        print(f"| `{name}` | {cells} | {np.mean(values):.4f} | {apart} | {rates} |")


def main() -> None:
    torch.set_num_threads(given.threads)
    began, spent = time.perf_counter(), time.process_time()
    train, test = (f"npz:{given.data / half}.npz" for half in ("train", "test"))
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in PROTOCOLS}
    for seed in range(given.seeds):
        sets = open_sets(train, test, "classification", SIZE, SHARE, seed)
        assert sets.test is not None
        print(
            f"seed {seed}: {len(sets.labelled)} labelled, {len(sets.test)} test images, "
            f"{len(sets.repeats)} of them nearly among the labelled",
            flush=True,
        )
        for name in PROTOCOLS:
            rows[name].append(reached(name, sets, seed))
            print(f"{name} {rows[name][-1][0]:.4f}", flush=True)
    table(rows)
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    print(
        f"\n{given.model}, {given.steps} steps of {given.batch}; {wall:.0f} s, {cpu:.0f} s of CPU"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train.npz, test.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="metanet:mn_xs@random", help="spec or stage's folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Descent.steps)
    parser.add_argument("--batch", type=int, default=Descent.batch)
    parser.add_argument("--rates", type=float, nargs="+", default=Descent.rates)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    main()
