"""Experts: a backbone with a head for each source, all of one type of task or of several.

With sources of one type this is INTERN's expert; with several it is hard-shared multitask training,
the baseline that a generalist is to beat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadworthy.core.checkpoints import read_weights
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import (
    Architecture,
    Backbone,
    architectures_of,
    backbone,
    backbone_for,
)
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.heads import CLASS_LAYERS
from roadworthy.learn.loop import Feed, Learner, Machine, Trained, train
from roadworthy.learn.manifest import (
    HEADS,
    HeadConfig,
    Made,
    StageConfig,
    fill,
    is_stage,
    read_config,
    read_manifest,
    stage_folder,
    write_stage,
)
from roadworthy.learn.plan import Plan
from roadworthy.learn.ranks import wait
from roadworthy.learn.tasks import AUGMENTATIONS, answer, head_of, judge_head, loss_of, read


@dataclass(frozen=True)
class Job:
    """Where and how a stage is run.

    Args:
        held_out: what its heads are judged by at the end; of a source's task and classes.
        resume: go on from what an interrupted run has left in `out`.
    """

    out: Path
    plan: Plan
    machine: Machine = field(default_factory=Machine)
    held_out: Sequence[Source] = ()
    resume: bool = True


Kind = tuple[str, *tuple[Architecture, ...]]
"""Name of a stage, architecture of its backbone, those of auxiliaries."""


class Headed(Learner):
    """A backbone and its heads, in the order of the sources."""

    def __init__(self, body: Backbone, sources: Sequence[Source | HeadConfig]) -> None:
        super().__init__()
        self.backbone = body
        self.heads = nn.ModuleList(head_of(each.task, body, len(each.classes)) for each in sources)
        self.says = [head_config(each) for each in sources]

    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The loss of the source's head."""
        batch = Batch(**tensors)
        says = self.says[source]
        maps = read(self.backbone, says.task, batch.images)
        said = answer(says.task, self.heads[source], maps)
        return {"loss": loss_of(says.task, said, batch, len(says.classes))}

    def head_for(self, source: Source | HeadConfig) -> nn.Module | None:
        """The head that has learned from a source of this name, task and classes, if any has."""
        said = dict(zip(self.says, self.heads, strict=True))
        return said.get(head_config(source))


def head_config(of: Source | HeadConfig) -> HeadConfig:
    """What a head for a source is."""
    name = of.source if isinstance(of, HeadConfig) else of.name
    return HeadConfig(name, of.task, of.classes)


def reopened(folder: Path) -> Headed:
    """The backbone of a stage and its heads, which an amateur has not, as saved, in eval mode.

    Raises:
        BadModel: a damaged stage, or one adapted without a head that descends.
    """
    config = read_config(folder)
    if config.protocol in ("Linear", "Neighbours"):
        raise BadModel(
            f"{folder} was adapted by {config.protocol.lower()}, which leaves no head to go on "
            "from; give a folder adapted by frozen, lora, full or staged, or a stage of learn"
        )
    heads = config.heads
    learner = Headed(backbone(str(folder)), heads)
    if heads:  # an amateur's file holds its text tower
        fill(learner.heads, folder, HEADS)
    return learner.eval()


def lend(head: nn.Module, says: HeadConfig, folder: Path) -> bool:
    """Begin a new head as the one that a stage has for its task and classes, or for its task.

    What stands for a class comes along with the same classes only, where these have names and not
    just numbers. A stage without a head for the task, or with one of another kind, lends nothing.

    Returns:
        Whether anything was lent.
    """
    told = read_config(folder).heads
    of_task = [number for number, each in enumerate(told) if each.task == says.task]
    named = not all(name.isdecimal() for name in says.classes)
    same = [number for number in of_task if named and told[number].classes == says.classes]
    if not of_task:
        return False
    start, new = f"{(same or of_task)[0]}.", head.state_dict()
    known = read_weights(folder / HEADS)
    own = {name.removeprefix(start): each for name, each in known.items() if name.startswith(start)}
    fits = {
        name: each for name, each in own.items() if name in new and each.shape == new[name].shape
    }
    lent = {name: each for name, each in fits.items() if same or not name.startswith(CLASS_LAYERS)}
    head.load_state_dict(lent, strict=False)
    return bool(lent)


def judging(source: Source, held: Sequence[Source]) -> list[Source]:
    """Those of `held` that the head of a source is judged by: of its task and classes."""
    return [each for each in held if (each.task, each.classes) == (source.task, source.classes)]


def check_judging(what: str, held: Sequence[Source], sources: Sequence[Source]) -> None:
    """BadInput where a source of `held` would judge no head; `what` it is for, in a word."""
    for each in held:
        if not any(judging(source, [each]) for source in sources):
            raise BadInput(
                f"{what} images {each.name} of {each.task} given, {len(each.classes)} classes, and "
                "no source of this task with the same classes in the same order; hold them by the "
                "classes of the source"
            )


def learn_expert(begin: str, sources: Sequence[Source], job: Job) -> dict[str, Any]:
    """Train the backbone of `begin`, a spec or a stage's folder, on `sources`; the manifest.

    Raises:
        BadInput: no sources, a backbone that cannot be shown images of their size, `begin` as
            `out`, or held-out images that judge no head.
    """
    if not sources:
        raise BadInput("no source given; an expert needs at least one")
    check_judging("held-out", job.held_out, sources)
    torch.manual_seed(job.plan.seed)
    learner = Headed(backbone_for(begin, sources[0].content.side), sources)
    stage_folder(job.out, [begin])
    feeds = [Feed(each, AUGMENTATIONS[each.task]) for each in sources]
    trained = train(learner, feeds, job.plan, job.out, job.machine, job.resume)
    stage = "expert" if len({each.task for each in sources}) == 1 else "multitask"
    parents = [Path(begin)] if is_stage(begin) else []
    return written(trained, (stage, *architectures_of(begin)), sources, job, parents)


def written(
    trained: Trained,
    kind: Kind,
    sources: Sequence[Source],
    job: Job,
    parents: Sequence[Path],
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge the heads of a `Headed` and write its folder, on the first rank; the manifest, on all.

    Args:
        told: what else the manifest says.
    """
    if trained.first:
        _write(trained, kind, sources, job, parents, told or {})
    wait(job.out)
    return read_manifest(job.out)


def _write(
    trained: Trained,
    kind: Kind,
    sources: Sequence[Source],
    job: Job,
    parents: Sequence[Path],
    told: Mapping[str, Any],
) -> None:
    learner = trained.learner
    assert isinstance(learner, Headed)
    numbers = [
        {"head": source.name, "task": source.task, "judged_on": held.name}
        | asdict(judge_head(learner.backbone, head, held))
        for source, head in zip(sources, learner.heads, strict=True)
        for held in judging(source, job.held_out)
    ]
    stage, architecture, *auxiliaries = kind
    size = sources[0].content.side
    config = StageConfig(stage, architecture, size, tuple(learner.says), tuple(auxiliaries))
    made = Made(parents, sources, job.plan, trained.compute, numbers, told)
    write_stage(job.out, config, learner.backbone, learner.heads, made)
