"""Distillation: one backbone that sees and says what a teacher does, the form to ship.

The student learns the sources' own labels and, as far as it is asked to, the teacher's pooled
features and four maps through adapters, which are not kept, and what the teacher's heads say of
every image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import (
    Backbone,
    Both,
    Generalist,
    architectures_of,
    backbone,
    check_size,
)
from roadworthy.learn.batches import Batch, Source, Task
from roadworthy.learn.expert import Headed, Job, check_judging, head_config, reopened, written
from roadworthy.learn.generalist import inherit
from roadworthy.learn.loop import Feed, Learner, train
from roadworthy.learn.manifest import HeadConfig, is_stage, stage_folder
from roadworthy.learn.mimic import answer_loss, feature_loss
from roadworthy.learn.tasks import AUGMENTATIONS, answer, loss_of, whole_batches
from roadworthy.requests import Hint

HINTS: tuple[Hint, ...] = get_args(Hint)
_LEAST = 0.1
"""Deviation of a channel, as a share of the mean one, below which it is not enlarged further."""


def distill(
    teacher: str,
    student: str,
    sources: Sequence[Source],
    job: Job,
    hints: Sequence[Hint] = HINTS,
) -> dict[str, Any]:
    """Train one backbone to stand in for `teacher`, with a head for each source; the manifest.

    Args:
        teacher: a stage's folder, or a spec, which has no heads to learn from.
        student: what it begins as; an expert's folder hands on the heads that fit, too.
        hints: what of the teacher is learned: its features, and what its heads of these tasks say.

    Raises:
        BadInput: no source, a backbone that cannot be shown images of their size, teacher or
            student as `out`, held-out images that judge no head, or hints that the teacher has not.
        BadModel: as `backbone`, or a student that is a generalist.
    """
    if not sources:
        raise BadInput("no source given; distillation needs the images of at least one")
    check_judging("held-out", job.held_out, sources)
    torch.manual_seed(job.plan.seed)  # of a student that is drawn
    above, below = _opened(teacher, student, sources[0].content.side)
    heads = [head_config(each) for each in sources]
    if "features" not in hints and not any(asked(above, heads, hints)):
        raise BadInput(
            f"hints {', '.join(hints) or 'of nothing'} given, and {teacher} has no head for any of "
            "the sources; features are what any teacher has"
        )
    stage_folder(job.out, [teacher, student])
    torch.manual_seed(job.plan.seed)
    new = Headed(below.backbone, sources)
    for head, source in zip(new.heads, sources, strict=True):
        inherit(head, source, [below])
    learner = Distilling(above, new, spread(above.backbone, sources), hints)
    feeds = [Feed(each, AUGMENTATIONS[each.task]) for each in sources]
    trained = train(learner, feeds, job.plan, job.out, job.machine, job.resume)
    assert isinstance(trained.learner, Distilling)
    trained = replace(trained, learner=trained.learner.student)
    parents = [Path(each) for each in dict.fromkeys((teacher, student)) if is_stage(each)]
    kind = ("distilled", *architectures_of(student))
    return written(trained, kind, sources, job, parents, {"hints": list(hints)})


def _opened(teacher: str, student: str, side: int) -> tuple[Headed, Headed]:
    """Both, with the heads that they have."""
    above, below = (
        reopened(Path(each)) if is_stage(each) else Headed(backbone(each), ())
        for each in (teacher, student)
    )
    if isinstance(below.backbone, Generalist):
        raise BadModel(
            f"{student} is a generalist of several branches; give an expert's folder, or "
            "metanet:NAME@random"
        )
    for each in (above, below):
        check_size(each.backbone, side)
    return above, below


@final
class Distilling(Learner):
    """A student, the teacher that it looks at, and what lies between them.

    Args:
        spread: mean and deviation of the teacher's channels, as `spread` measures them.
        hints: as of `distill`.
    """

    def __init__(
        self,
        teacher: Headed,
        student: Headed,
        spread: Sequence[Float[Tensor, "2 _"]],
        hints: Sequence[Hint] = HINTS,
    ) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.student = student
        self.hints = tuple(hints)
        self.asked = asked(teacher, student.says, hints)
        pairs = zip(channels(student.backbone), channels(teacher.backbone), strict=True)
        self.adapters = nn.ModuleList(
            nn.Conv2d(mine, theirs, 1) for mine, theirs in pairs if "features" in hints
        )
        for number, each in enumerate(spread):
            self.register_buffer(f"spread{number}", each)

    def extra_repr(self) -> str:
        """What is learned: what a run that goes on must have in common."""
        return ", ".join(self.hints)

    def train(self, mode: bool = True) -> "Distilling":
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The loss of the source's labels and, where they are asked, of features and answers."""
        batch = Batch(**tensors)
        with torch.no_grad():
            wanted = self.teacher.backbone.forward_both(batch.images)
        seen = self.student.backbone.forward_both(batch.images)
        own = self.student.says[source]
        said = {
            number: answer(says.task, head, given(says.task, seen))
            for number, (says, head) in enumerate(
                zip(self.student.says, self.student.heads, strict=True)
            )
            if self.asked[number] or number == source
        }
        parts = {"labels": loss_of(own.task, said[source], batch, len(own.classes))}
        if len(self.adapters):
            parts["features"] = self.features(seen, wanted)
        if any(self.asked):
            parts["answers"] = self.answers(said, wanted)
        return {"loss": torch.stack([*parts.values()]).sum(), **parts}

    def features(self, seen: Both, wanted: Both) -> Tensor:
        """How far pooled features and maps are from the teacher's, on average."""
        triples = zip(self.adapters, five(seen), five(wanted), strict=True)
        return torch.stack([
            feature_loss(adapter(mine), standardised(theirs, self.get_buffer(f"spread{number}")))
            for number, (adapter, mine, theirs) in enumerate(triples)
        ]).mean()  # fmt: skip

    def answers(self, said: Mapping[int, Any], wanted: Both) -> Tensor:
        """How far what is said is from what the teacher's heads say, where they are asked."""
        found: list[Tensor] = []
        for number in said:
            says = self.student.says[number]
            head = self.teacher.head_for(says)
            if self.asked[number] and head is not None:
                with torch.no_grad():
                    theirs = answer(says.task, head, given(says.task, wanted))
                found.append(answer_loss(says.task, said[number], theirs))
        return torch.stack(found).sum()


def asked(teacher: Headed, heads: Sequence[HeadConfig], hints: Sequence[Hint]) -> list[bool]:
    """For each of the student's heads, whether the teacher is asked what its own one says."""
    return [each.task in hints and teacher.head_for(each) is not None for each in heads]


def given(task: Task, seen: Both) -> list[Tensor]:
    """What the head of a task gets of all that a backbone sees."""
    return [seen[0]] if task == "classification" else seen[1]


def five(seen: Both) -> list[Float[Tensor, "b _ _ _"]]:
    """Pooled features, as a map of one place, and the four maps."""
    return [seen[0][:, :, None, None], *seen[1]]


def channels(body: Backbone) -> tuple[int, ...]:
    """Those of `five`."""
    return body.width, *body.channels


@torch.no_grad()
def spread(body: Backbone, sources: Sequence[Source]) -> list[Float[Tensor, "2 _"]]:
    """Mean and deviation of each channel of `five`, over the first images of all sources."""
    body.eval()
    firsts = [next(whole_batches(each, torch.device("cpu"))) for each in sources]
    seen = [five(body.forward_both(batch.images)) for batch in firsts]
    rows = [
        torch.cat([x.transpose(0, 1).flatten(1) for x in each], 1)
        for each in zip(*seen, strict=True)
    ]
    return [torch.stack([x.mean(1), x.std(1)]) for x in rows]


def standardised(
    x: Float[Tensor, "b d h w"], spread: Float[Tensor, "2 d"]
) -> Float[Tensor, "b d h w"]:
    """`x` with mean 0 and deviation 1 in each channel; one that hardly varies stays small."""
    mean, deviation = spread
    least = _LEAST * deviation.mean()
    return (x - mean[:, None, None]) / deviation.maximum(least)[:, None, None]
