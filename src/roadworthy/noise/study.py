"""The sweep's answers: what every option costs, how they stack up, which stage is to blame."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from roadworthy.core.metrics import mcnemar
from roadworthy.core.tasks import Classification
from roadworthy.errors import BadInput
from roadworthy.noise.classes import Grouping, group
from roadworthy.noise.options import Option
from roadworthy.noise.shapley import mixtures, shares
from roadworthy.noise.statistics import Estimate, draws, estimate, points
from roadworthy.noise.sweep import Bench, Findings, sweep
from roadworthy.noise.systems import REMADE, Stage, System, differing

MOST_SYSTEMS = 2_000
"""That an exhaustive search may run."""


@dataclass(frozen=True)
class Row:
    """One option against the training system.

    Args:
        stage, option: what was changed.
        member_of: the option that stands for its class: the first that makes the same images.
        distance: from the training system's images, mean absolute levels of 255 on the image where
            it is largest; None where images are not what changes.
        loss: points that the metric loses, None where the option cannot run here.
        p: of the hypothesis that nothing changed.
        flip_rate: share of answers that are others.
        missing: what to install where it cannot run.
    """

    stage: Stage
    option: str
    member_of: str
    distance: float | None = None
    loss: Estimate | None = None
    p: float | None = None
    flip_rate: float | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Rung:
    """One more stage changed on top of those before it: what all of them lose together."""

    stage: Stage
    option: str
    loss: Estimate
    added: float
    alone: float


@dataclass(frozen=True)
class Measured:
    """Every system's metric on the same images, with the resamples that intervals come from."""

    bench: Bench
    base: System
    counts: Int[NDArray[np.int64], "r n"]
    findings: Findings

    def loss(self, system: System) -> NDArray[np.float64]:
        """Points that `system` loses, on all images and on each resample ``[r]``."""
        task, evidence = self.bench.task, self.findings.evidence
        before = points(task, evidence[self.base], self.counts)
        return before - points(task, evidence[system], self.counts)

    def value(self, system: System) -> float:
        """The metric of `system` on all images."""
        return float(self.bench.task.values(self.findings.evidence[system], self.counts[:1])[0])

    def p(self, system: System) -> float:
        """McNemar's for right and wrong answers, else the bootstrap's."""
        a, b = (self.findings.evidence[s] for s in (self.base, system))
        if isinstance(self.bench.task, Classification):
            return mcnemar(torch.from_numpy(a > 0), torch.from_numpy(b > 0))
        resampled = self.loss(system)[1:]
        return float(min(1.0, 2 * min((resampled <= 0).mean(), (resampled >= 0).mean())))


def measure(
    bench: Bench, base: System, systems: Sequence[System], seed: int, what: str
) -> Measured:
    """Run `systems` and `base` over all images."""
    found = sweep(bench, base, systems, what)
    return Measured(bench, base, draws(len(found.indices), seed), found)


def classes(bench: Bench, base: System, options: Sequence[Option], tolerance: float) -> list[Row]:
    """Rows without numbers: who stands for whom, stage by stage; the base is ``as trained``."""
    rows: list[Row] = []
    present_stages: dict[Stage, None] = {option.stage: None for option in options}
    for stage in present_stages:
        here = [option for option in options if option.stage == stage]
        present = [option for option in here if option.missing is None]
        found = _grouped(bench, base, present, stage, tolerance)
        names = [AS_BASE, *(option.name for option in present)]
        for number, option in enumerate(present, 1):
            head = found.members[number] if found else number
            distance = float(found.distance[number]) if found else None
            rows.append(Row(stage, option.name, names[head], distance))
        rows += [Row(stage, o.name, o.name, missing=o.missing) for o in here if o.missing]
    return rows


AS_BASE = "training system"


def _grouped(
    bench: Bench, base: System, options: Sequence[Option], stage: Stage, tolerance: float
) -> Grouping | None:
    if stage not in REMADE or not options:
        return None
    stages = [base.preprocess, *(option.system.preprocess for option in options)]
    return group(bench.dataset, stages, tolerance)


def heads(rows: Sequence[Row], options: Sequence[Option]) -> list[Option]:
    """The options that stand for a class which is not the training system's."""
    standing = {(r.stage, r.option) for r in rows if r.missing is None and r.option == r.member_of}
    return [option for option in options if (option.stage, option.name) in standing]


def filled(rows: Sequence[Row], options: Sequence[Option], measured: Measured) -> list[Row]:
    """`rows` with the numbers of the option that stands for each."""
    systems = {(option.stage, option.name): option.system for option in options}
    done: list[Row] = []
    for row in rows:
        if row.missing is not None:
            done.append(row)
            continue
        as_base = row.member_of == AS_BASE
        system = measured.base if as_base else systems[row.stage, row.member_of]
        flips = float(measured.findings.flips[system].mean())
        loss = estimate(measured.loss(system))
        done.append(replace(row, loss=loss, p=measured.p(system), flip_rate=flips))
    return done


def worst_of_each(rows: Sequence[Row], options: Sequence[Option]) -> list[Option]:
    """Of every stage the option that loses most, if it loses anything, in the stages' order."""
    by_name = {(option.stage, option.name): option for option in options}
    worst: dict[Stage, Row] = {}
    for row in rows:
        known = worst.get(row.stage)
        if row.loss is not None and row.loss.value > (
            known.loss.value if known and known.loss else 0
        ):
            worst[row.stage] = row
    return [by_name[row.stage, row.option] for row in worst.values()]


def ladder(base: System, chosen: Sequence[Option]) -> list[System]:
    """`base` with the first option, with the first two, and so on (the paper's combined noise)."""
    systems: list[System] = []
    system = base
    for option in chosen:
        system = system.with_part(option.stage, option.system)
        systems.append(system)
    return systems


def stacked(alone: Measured, chosen: Sequence[Option], seed: int) -> list[Rung]:
    """What each rung of the ladder adds, beside what its option costs alone.

    Args:
        alone: where every option of `chosen` was measured by itself; the first rung is there too.
        chosen: one option per stage.
        seed: of the intervals, as `alone` was measured with.
    """
    steps = ladder(alone.base, chosen)
    if not steps:
        return []
    measured = measure(alone.bench, alone.base, steps[1:], seed, "the worst of each stage stacked")
    losses = [alone.loss(steps[0]), *map(measured.loss, steps[1:])]
    rungs: list[Rung] = []
    before = 0.0
    for option, resampled in zip(chosen, losses, strict=True):
        loss, own = estimate(resampled), float(alone.loss(option.system)[0])
        rungs.append(Rung(option.stage, option.name, loss, loss.value - before, own))
        before = loss.value
    return rungs


def every_mixture(base: System, chosen: Sequence[Option]) -> dict[System, tuple[str, ...]]:
    """All combinations of at most one option per stage, and the names of what each changes.

    Raises:
        BadInput: there are more than `MOST_SYSTEMS`.
    """
    stages = dict.fromkeys(option.stage for option in chosen)
    choices = [[None, *(o for o in chosen if o.stage == stage)] for stage in stages]
    if prod(map(len, choices)) > MOST_SYSTEMS:
        raise BadInput(
            f"{prod(map(len, choices))} combinations of {len(chosen)} options; at most "
            f"{MOST_SYSTEMS} are run: name fewer --stages or take --combine greedy"
        )
    found: dict[System, tuple[str, ...]] = {}
    for mixture in product(*choices):
        system = base
        for option in mixture:
            if option is not None:
                system = system.with_part(option.stage, option.system)
        found[system] = tuple(f"{o.stage} {o.name}" for o in mixture if o is not None)
    return found


def exhaustive(
    bench: Bench, base: System, chosen: Sequence[Option], seed: int
) -> list[dict[str, Any]]:
    """Every combination of at most one option per stage and what it loses, worst first."""
    mixed = every_mixture(base, chosen)
    measured = measure(bench, base, list(mixed), seed, "every combination")
    rows = [
        {"changes": list(names), **asdict(estimate(measured.loss(system)))}
        for system, names in mixed.items()
    ]
    return sorted(rows, key=lambda row: -row["value"])


@dataclass(frozen=True)
class Attribution:
    """Who is to blame for what a deployment loses.

    Args:
        total: points that the deployment loses.
        shares: of each stage; they sum to the total.
        bought_back: what the deployment gains if this one stage is made as it was trained.
        images: that all systems could read, and what was wrong with the others.
    """

    total: Estimate
    shares: Mapping[Stage, Estimate]
    bought_back: Mapping[Stage, Estimate]
    images: int
    bad: tuple[str, ...]


def attribute(bench: Bench, train: System, deploy: System, seed: int) -> Attribution:
    """Exact Shapley shares of the stages in which `deploy` differs from `train`.

    All 2^k mixtures of the k stages are run on the same images.

    Raises:
        BadInput: the two systems are the same.
    """
    stages = differing(train, deploy)
    if not stages:
        raise BadInput("the two systems are the same in every stage; nothing can be attributed")
    mixed = mixtures(train, deploy, stages)
    measured = measure(bench, train, list(mixed.values()), seed, "attributing")
    losses = {subset: measured.loss(system) for subset, system in mixed.items()}
    total = losses[frozenset(stages)]
    without: dict[Stage, Any] = {stage: losses[frozenset(stages) - {stage}] for stage in stages}
    return Attribution(
        estimate(total),
        {stage: estimate(share) for stage, share in shares(losses, stages).items()},
        {stage: estimate(total - rest) for stage, rest in without.items()},
        len(measured.findings.indices),
        tuple(measured.findings.bad.values()),
    )
