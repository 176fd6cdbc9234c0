"""Generalists: one expert goes on learning with all sources, the others add what they see to it.

Soft sharing is `backbones.Generalist`; hard sharing are heads of all types of task on its features.
A head that an expert has learned begins as it was and reads that expert's own features, the rest by
weights of zero: at step 0 every head says what its expert says, and main and others go from there.
Where several experts have learned it, it is the one whose loss on the choosing images is smallest.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import (
    Architecture,
    Backbone,
    Generalist,
    Single,
    check_size,
    generalist,
)
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.blend import blend
from roadworthy.learn.expert import Headed, Job, check_judging, judging, reopened, written
from roadworthy.learn.heads import ClassHead
from roadworthy.learn.loop import Feed, train
from roadworthy.learn.manifest import is_stage, read_config, stage_folder
from roadworthy.learn.tasks import AUGMENTATIONS, held_out_loss


def learn_generalist(
    main: Path,
    auxiliaries: Sequence[Path],
    sources: Sequence[Source],
    job: Job,
    choosing: Sequence[Source] = (),
) -> dict[str, Any]:
    """Train the expert `main` with what the experts `auxiliaries` add, on `sources`; the manifest.

    Args:
        main: folder of the stage that goes on learning.
        auxiliaries: folders of stages that stay as they are.
        choosing: images, neither learned from nor judged by, that say which of several experts'
            heads to begin with, the first one's if none do, and how far to go from there
            (`learn.blend`), to the end if none do.

    Raises:
        BadInput: no auxiliary or no source, an expert that cannot be shown images of their size or
            is `out`, or images to judge or choose by that no head is for.
        BadModel: a folder that is no stage, is damaged or a generalist, or of another image size.
    """
    if not auxiliaries or not sources:
        raise BadInput(
            f"{len(auxiliaries)} auxiliaries and {len(sources)} sources given; a generalist needs "
            "at least one of each: give folders of other experts, and what to learn from"
        )
    check_judging("held-out", job.held_out, sources)
    check_judging("choosing", choosing, sources)
    folders = [main, *auxiliaries]
    architectures = checked(folders)
    experts = [reopened(folder) for folder in folders]
    torch.manual_seed(job.plan.seed)
    learner = begun(experts, sources, choosing)
    check_size(learner.backbone, sources[0].content.side)
    stage_folder(job.out, folders)
    feeds = [Feed(each, AUGMENTATIONS[each.task]) for each in sources]
    start = {name: each.clone() for name, each in learner.state_dict().items()}
    trained = train(learner, feeds, job.plan, job.out, job.machine, job.resume)
    told: dict[str, Any] = {}
    if choosing and trained.first:
        assert isinstance(trained.learner, Headed)
        judges = [
            (trained.learner.backbone, head, shown)
            for source, head in zip(sources, trained.learner.heads, strict=True)
            for shown in judging(source, choosing)
        ]
        told = {"blend": asdict(blend(trained.learner, start, judges))}
    return written(trained, ("generalist", *architectures), sources, job, folders, told)


def checked(folders: Sequence[Path]) -> list[Architecture]:
    """Architectures of the experts' folders, where they go together."""
    for folder in folders:
        if not is_stage(folder):
            raise BadModel(
                f"{folder} is no finished stage; give folders that roadworthy learn wrote"
            )
    configs = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        if config.auxiliaries:
            raise BadModel(f"{folder} is a generalist itself; give the experts that it is made of")
        if config.size != configs[0].size:
            raise BadModel(
                f"{folder} has learned from images of {config.size} pixels a side, {folders[0]} of "
                f"{configs[0].size}; give experts of one size"
            )
    return [config.architecture for config in configs]


def begun(
    experts: Sequence[Headed], sources: Sequence[Source], choosing: Sequence[Source] = ()
) -> Headed:
    """A generalist of experts, the first the main branch, that says what each of them says."""
    bodies = [single_of(each) for each in experts]
    learner = Headed(generalist(bodies[0], bodies[1:]), sources)
    for head, source in zip(learner.heads, sources, strict=True):
        inherit(head, source, experts, judging(source, choosing))
    return learner


def single_of(expert: Headed) -> Single:
    """The backbone of an expert of one branch."""
    assert not isinstance(expert.backbone, Generalist)
    return expert.backbone


@torch.no_grad()
def inherit(
    head: nn.Module,
    source: Source,
    experts: Sequence[Headed],
    choosing: Sequence[Source] = (),
) -> None:
    """Fill a new head that reads all of `experts` from the best that has one for `source`.

    Args:
        choosing: images by whose loss it is the best; none means the first.
    """
    known = [(place, own) for place, own in enumerate(e.head_for(source) for e in experts) if own]
    if not known:
        return

    def loss(each: tuple[int, nn.Module]) -> float:
        body = experts[each[0]].backbone
        return sum(held_out_loss(body, each[1], shown) for shown in choosing)

    place, own = min(known, key=loss)
    weights, new = own.state_dict(), head.state_dict()
    head.load_state_dict({k: v for k, v in weights.items() if v.shape == new[k].shape}, False)
    before = [read_by(source.task, each.backbone) for each in experts[:place]]
    for tap, (into, held) in enumerate(zip(entries(head), entries(own), strict=True)):
        start = sum(each[tap] for each in before)
        into.zero_()
        into[:, start : start + held.shape[1]] = held


def read_by(task: Task, body: Backbone) -> tuple[int, ...]:
    """Channels of each tensor that a head of `task` reads."""
    return (body.width,) if task == "classification" else body.channels


def entries(head: nn.Module) -> list[Tensor]:
    """The weights that read a backbone: one for pooled features, or one for each map."""
    if isinstance(head, ClassHead):
        return [head.linear.weight]
    face: Any = head
    return [lateral[0].weight for lateral in face.pyramid.laterals]
