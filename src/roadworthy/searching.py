"""`roadworthy learn search`: from a MetaNet and images to the best network around it."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from roadworthy.core.metanet import MetaNet, MetaNetConfig, named
from roadworthy.core.predict import resolve_device
from roadworthy.core.runs import RunRecord, output_room
from roadworthy.core.specs import Checkpoint, MetaNetSpec, parse_model_spec
from roadworthy.errors import BadInput
from roadworthy.learn.batches import Source
from roadworthy.learn.expert import head_config
from roadworthy.learn.heads import ClassHead
from roadworthy.learn.loop import Compute
from roadworthy.learn.manifest import Made, StageConfig, write_network, write_stage
from roadworthy.learn.search import Evolution, Goal, Random, Trial, best, search
from roadworthy.learn.space import Space, around, cost_of
from roadworthy.learn.supernet import Judge, calibrate, learn_supernet
from roadworthy.learn.tasks import judge_head, whole_batches
from roadworthy.learn_requests import SearchRequest
from roadworthy.learning import held

NETWORK, JOURNAL, SUPERNET = "network.json", "trials.jsonl", "supernet"
_CALIBRATION = 200
_TOLD = 5


def search_run(request: SearchRequest) -> RunRecord:
    """Train the supernet around a MetaNet, search it, and leave the best network as a stage.

    Beside the files of a stage, ``network.json`` is the network alone, for ``metanet:FILE.json``;
    ``trials.jsonl`` and ``supernet`` are what an interrupted run goes on with.

    Raises:
        BadInput: no MetaNet, one with weights, or a budget that no network of the space keeps.
    """
    space = around(network_of(request.model))
    itself = space.own(network_of(request.model))
    (learned,), (judging,), _ = held(request.sources)
    size, classes = request.sources.size, len(learned.classes)
    budget = request.budget or cost_of(itself, size, classes).macs
    goal = Goal(budget, request.evaluations, size, classes)
    search(space, replace(goal, evaluations=1), lambda _: 0.0, Random(), request.plan.seed)
    with output_room(request.out, "learn search"):
        numbers = _searched(request, space, itself, goal, (learned, judging))
    record = RunRecord(
        command="learn search",
        config=asdict(request),
        seed=request.plan.seed,
        data={
            name: {"spec": spec, "n": len(each), "sha256": each.sha256}
            for name, (_, spec), each in (
                ("train", request.sources.learned[0], learned),
                ("held", request.sources.held[0], judging),
            )
        },
        numbers=numbers,
    )
    record.save(request.out / "run.json")
    return record


def network_of(spec: str) -> MetaNetConfig:
    """The network of a spec without weights.

    >>> network_of("metanet:mn_xs").head
    448

    Raises:
        BadInput: another model, or one with weights.
        BadModel: as `named` says.
    """
    told = parse_model_spec(spec)
    if not isinstance(told, MetaNetSpec) or isinstance(told.weights, Checkpoint):
        raise BadInput(
            f"{spec} given; a search goes around a MetaNet without weights: metanet:NAME, e.g. "
            "metanet:mn_xs, or metanet:FILE.json"
        )
    return named(told.name)


def _searched(
    request: SearchRequest,
    space: Space,
    itself: MetaNetConfig,
    goal: Goal,
    sources: tuple[Source, Source],
) -> dict[str, Any]:
    """Train, search and write; what run.json tells."""
    learned, judging = sources
    plan, machine = request.plan, request.machine
    journal = request.out / JOURNAL
    if not request.resume:
        journal.unlink(missing_ok=True)
    supernet, compute = learn_supernet(
        space, learned, plan, request.out / SUPERNET, machine, request.resume
    )
    supernet.eval().to(resolve_device(machine.device))
    judge = Judge(supernet, _part(learned, plan.seed), judging)
    began = time.process_time()
    method = Evolution() if request.method == "evolution" else Random()
    trials = search(space, goal, judge, method, plan.seed, journal)
    own = Trial(itself, cost_of(itself, goal.size, goal.classes).macs, judge(itself))
    spent = _with_judging(compute, [*trials, own], judge, time.process_time() - began)
    told = {
        "budget": goal.budget,
        "networks": space.count,
        "evaluations": len(trials),
        "itself": _row(own, goal),
        "best": [_row(each, goal) for each in best(trials, _TOLD)],
    }
    manifest = _write(request, judge, best(trials)[0].network, learned, spent, told)
    return {**told, **{name: manifest[name] for name in ("stage", "compute", "held_out")}}


def _part(learned: Source, seed: int) -> Source:
    """Images of those learned from that give norms their statistics."""
    picked = np.random.default_rng(seed).permutation(len(learned))[:_CALIBRATION]
    return replace(learned, content=learned.content[torch.from_numpy(picked)])


def _row(trial: Trial, goal: Goal) -> dict[str, Any]:
    """A trial as run.json and the table tell it."""
    stages = (f"{s.op} {s.repeats}x{s.channels} {s.down}" for s in trial.network.stages)
    cost = cost_of(trial.network, goal.size, goal.classes)
    return {
        "score": trial.score,
        "macs": trial.macs,
        "parameters": cost.parameters,
        "stages": list(stages),
    }


def _with_judging(
    compute: Compute, trials: Sequence[Trial], judge: Judge, cpu_seconds: float
) -> Compute:
    """The supernet's cost and that of its judge; of a search that went on, seconds since then."""
    images = len(judge.calibration) + len(judge.held_out)
    macs = images * sum(each.macs for each in trials)
    return compute.plus(images=images * len(trials), macs=macs, cpu_seconds=cpu_seconds)


def _write(
    request: SearchRequest,
    judge: Judge,
    network: MetaNetConfig,
    learned: Source,
    compute: Compute,
    told: dict[str, Any],
) -> dict[str, Any]:
    """The best network, with its cut weights, as a stage; what its manifest says."""
    device = next(judge.supernet.parameters()).device
    net = calibrate(judge.supernet.cut(network), whole_batches(judge.calibration, device))
    body, head = _parted(net, len(learned.classes))
    row = {"head": learned.name, "task": "classification", "judged_on": judge.held_out.name}
    row |= asdict(judge_head(body, head, judge.held_out, device))
    write_network(network, request.out / NETWORK)
    config = StageConfig("searched", network, request.sources.size, (head_config(learned),))
    made = Made([], [learned], request.plan, compute, [row], {"search": told})
    return write_stage(request.out, config, body, nn.ModuleList([head]), made)


def _parted(net: MetaNet, classes: int) -> tuple[MetaNet, ClassHead]:
    """A network without its classifier, and the classifier as a head."""
    head = ClassHead(net.width, classes)
    assert isinstance(net.classifier, nn.Linear)
    head.linear, net.classifier = net.classifier, nn.Identity()
    return net, head
