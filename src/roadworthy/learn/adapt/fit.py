"""Adapting a backbone to labelled images by a protocol: choose, then learn from all of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from roadworthy.core.predict import resolve_device
from roadworthy.core.progress import track
from roadworthy.errors import BadData, BadInput, RoadworthyError
from roadworthy.learn.adapt import low_rank
from roadworthy.learn.adapt.labelled import check_said
from roadworthy.learn.adapt.neighbours import NeighbourHead, best_count
from roadworthy.learn.adapt.protocols import (
    HELD,
    Descending,
    Frozen,
    Full,
    Linear,
    LowRank,
    Neighbours,
    Protocol,
    Stage,
    Staged,
)
from roadworthy.learn.backbones import Backbone, backbone, backbone_for
from roadworthy.learn.batches import Source, see_whole
from roadworthy.learn.expert import Headed, head_config, lend
from roadworthy.learn.judge import Verdict
from roadworthy.learn.loop import Compute, Feed, Learner, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.manifest import is_stage
from roadworthy.learn.plan import Plan
from roadworthy.learn.probe import fit_linear, kept_rows, part_of
from roadworthy.learn.tasks import AUGMENTATIONS, answer, judge_head, read

EVERY = 50
"""Steps between checkpoints: an adaptation is short."""
_LOOKED_AT = 8
LEAST = 5
"""Labelled images that an adaptation needs: a fifth of them choose."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of it.

    Args:
        chosen: the count of neighbours, the penalty or the rate.
        trials: how good each choice was on the held-out part of the labelled images; None of one
            that failed.
        plan: of the last run; None where nothing descends.
        compute: of all trials and the last run.
        lent: whether the head began as that of the stage that was adapted.
    """

    body: Backbone
    head: nn.Module
    chosen: float
    trials: Mapping[float, float | None]
    plan: Plan | None = None
    compute: Compute = field(default_factory=Compute)
    lent: bool = False


def adapt(
    begin: str,
    labelled: Source,
    protocol: Protocol,
    out: Path,
    seed: int = 0,
    machine: Machine | None = None,
    cache: Path | None = None,
) -> Adapted:
    """Adapt the backbone of `begin`, a spec or a stage's folder, to `labelled` images.

    Args:
        out: where journals of descending protocols go; the same call goes on from them.
        cache: folder in which features are kept.

    Raises:
        BadInput: a protocol that the task has not, images of a size that the backbone cannot see.
        BadData: too few images.
        RoadworthyError: no rate learned anything.
    """
    if len(labelled) < LEAST:
        raise BadData(f"{len(labelled)} labelled images given; {LEAST} or more are needed")
    check_said(labelled, "labelled", "learn from")
    machine = machine or Machine()
    device = resolve_device(machine.device)
    torch.manual_seed(seed)  # of weights that are drawn
    match protocol:
        case Neighbours():
            body = backbone_for(begin, labelled.content.side)
            return _voting(body, labelled, protocol, seed, cache, device)
        case Linear():
            body = backbone(begin)
            found = fit_linear(body, labelled, seed, cache, device)
            losses: Mapping[float, float | None] = {**found.losses}
            return Adapted(body, found.head, found.penalty, losses)
        case Frozen() | LowRank() | Full() | Staged():
            return _descended(begin, labelled, protocol, out, seed, machine)
        case _:
            assert_never(protocol)


def apart(labelled: Source, seed: int) -> tuple[Source, Source]:
    """The images that are learned from while choosing, and those that choose: `HELD` of each class.

    >>> from roadworthy.learn.batches import Batch
    >>> content = Batch(torch.zeros(20, 3, 1, 1), labels=torch.arange(20) % 2)
    >>> [len(each) for each in apart(Source("set", "classification", ("a", "b"), content), 0)]
    [16, 4]
    """
    numbers = torch.arange(len(labelled))
    marked = replace(labelled, content=replace(labelled.content, numbers=numbers))
    held = part_of(marked, HELD, seed).content.numbers
    assert held is not None
    rest = numbers[~torch.isin(numbers, held)]
    if not len(rest):
        raise BadData(
            f"{len(labelled)} labelled images of as many classes given; give more of each"
        )
    content = labelled.content
    return replace(labelled, content=content[rest]), replace(labelled, content=content[held])


def _voting(
    body: Backbone,
    labelled: Source,
    protocol: Neighbours,
    seed: int,
    cache: Path | None,
    device: torch.device,
) -> Adapted:
    if labelled.task != "classification":
        raise BadInput(f"neighbours of {labelled.task} given; they vote on classification only")
    body.eval()
    generator = torch.Generator().manual_seed(seed)
    known, labels, _ = kept_rows(body, labelled, generator, cache, device)
    order = torch.randperm(len(known), generator=generator)
    judging = max(1, round(HELD * len(order)))
    held, rest = order[:judging], order[judging:]
    count, scores = best_count(
        known[rest], labels[rest], known[held], labels[held], protocol.counts, protocol.temperature
    )
    head = NeighbourHead(known, labels, len(labelled.classes), count, protocol.temperature)
    return Adapted(body, head, count, {**scores})


class Adapting(Learner):
    """A backbone and a head of one source; what does not change of it is in eval mode."""

    def __init__(self, body: Backbone, source: Source, protocol: Stage) -> None:
        super().__init__()
        self.protocol = protocol
        self.headed = Headed(body, [source])  # before changes are drawn: one head for any protocol
        match protocol:
            case Frozen():
                body.requires_grad_(False)
            case LowRank():
                low_rank.add(body, protocol.rank)
            case Full():
                pass
            case _:
                assert_never(protocol)

    def train(self, mode: bool = True) -> "Adapting":
        """A backbone that is not learned keeps its statistics."""
        super().train(mode)
        if not isinstance(self.protocol, Full):
            self.headed.backbone.eval()
        return self

    def extra_repr(self) -> str:
        """How it learns: what a run that goes on must have in common."""
        return repr(self.protocol)

    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The loss of the head."""
        return self.headed(tensors, source)


def _descended(
    begin: str, labelled: Source, protocol: Descending, out: Path, seed: int, machine: Machine
) -> Adapted:
    """The rate that is best on held-out images of the labelled ones, then all of them with it; a
    single rate needs no trial.
    """
    how = protocol.descent
    plan = Plan(steps=how.steps, batch=how.batch, seed=seed, rate=how.rates[0], every=EVERY)
    verdicts: dict[float, Verdict | None] = {}
    spent = Compute()
    if len(how.rates) > 1:
        learned, held = apart(labelled, seed)
        check_said(learned, "labelled", "learn from while a rate is chosen")
        check_said(held, "held-out", "choose a rate by, or give one rate")
        device = resolve_device(machine.device)
        for rate in track(how.rates, "choosing a rate", len(how.rates)):
            trial, room = replace(plan, rate=rate), out / f"rate-{rate!r}"
            try:
                learner, cost, _ = _run(begin, learned, protocol, trial, room, machine)
            except RoadworthyError as error:
                if isinstance(error, BadInput | BadData):
                    raise
                verdicts[rate] = None  # its loss or what it answers is no number
                continue
            spent = spent.plus(**vars(cost))
            verdicts[rate] = judge_head(learner.backbone, learner.heads[0], held, device)
        plan = replace(plan, rate=_best(verdicts))
    learner, cost, lent = _run(begin, labelled, protocol, plan, out / "all", machine)
    values = {rate: None if found is None else found.value for rate, found in verdicts.items()}
    spent = spent.plus(**vars(cost))
    return Adapted(learner.backbone, learner.heads[0], plan.rate, values, plan, spent, lent)


def _best(verdicts: Mapping[float, Verdict | None]) -> float:
    found = {rate: each for rate, each in verdicts.items() if each and math.isfinite(each.value)}
    if not found:
        raise RoadworthyError(
            f"no rate of {', '.join(f'{rate:g}' for rate in verdicts)} kept the loss a finite "
            "number; give lower ones"
        )
    return max(found, key=lambda rate: found[rate].value * (1 if found[rate].points > 0 else -1))


def _run(
    begin: str, shown: Source, protocol: Descending, plan: Plan, out: Path, machine: Machine
) -> tuple[Headed, Compute, bool]:
    """Each stage goes on from the weights of the one before; a state file lies in a folder each.

    The head of the first begins as that of `begin`, where this lends one; says whether it does.
    """
    stages = protocol.stages if isinstance(protocol, Staged) else (protocol,)
    headed, spent, lent = None, Compute(), False
    for number, stage in enumerate(stages):
        torch.manual_seed(plan.seed)  # of what of the head is new, the same for every rate
        learner = Adapting(backbone_for(begin, shown.content.side), shown, stage)
        if headed is not None:
            learner.headed.load_state_dict(headed.state_dict())
        elif is_stage(begin):
            lent = lend(learner.headed.heads[0], head_config(shown), Path(begin))
        part = replace(plan, steps=stage.descent.steps, seed=_seed(plan, number))
        headed, cost = _learned(learner, shown, part, out / type(stage).__name__.lower(), machine)
        spent = spent.plus(**vars(cost))
    assert headed is not None
    return headed, spent, lent


def _seed(plan: Plan, stage: int) -> int:
    """A later stage sees the images in an order and in views of its own."""
    return plan.seed + (stage << 32)


def _learned(
    learner: Adapting, shown: Source, plan: Plan, out: Path, machine: Machine
) -> tuple[Headed, Compute]:
    out.mkdir(parents=True, exist_ok=True)
    trained = train(learner, [Feed(shown, AUGMENTATIONS[shown.task])], plan, out, machine)
    found = trained.learner
    assert isinstance(found, Adapting)
    low_rank.merge(found.headed.backbone)
    headed = found.headed.eval()
    _check_answers(headed, shown, plan)
    return headed, trained.compute


@torch.no_grad()
def _check_answers(headed: Headed, shown: Source, plan: Plan) -> None:
    """RoadworthyError where the last step, whose loss nobody sees, leaves no numbers to answer."""
    images = see_whole(shown.content[:_LOOKED_AT]).images
    said = answer(shown.task, headed.heads[0], read(headed.backbone, shown.task, images))
    if not all(each.isfinite().all() for each in (said if isinstance(said, tuple) else (said,))):
        raise RoadworthyError(
            f"after the last step the model answers no finite numbers; lower the rate {plan.rate:g}"
        )
