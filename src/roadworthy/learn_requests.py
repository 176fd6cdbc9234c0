"""What `roadworthy learn` asks for; see `requests` for the rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from roadworthy.errors import BadInput
from roadworthy.requests import Device, one_of

StageVerb = Literal["amateur", "expert", "generalist", "distill"]
TaskName = Literal["classification", "detection", "segmentation", "depth"]
Contrast = Literal["declip", "siglip"]
Precision = Literal["32-true", "bf16-mixed"]
Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Sources:
    """What a stage learns from and is judged by, as specs, each with its task.

    Captions have no task: the amateur's specs stand under "captions".
    """

    learned: tuple[tuple[str, str], ...]
    held: tuple[tuple[str, str], ...] = ()
    choosing: tuple[tuple[str, str], ...] = ()
    size: int = 64


@dataclass(frozen=True)
class Course:
    """How long and how fast a stage learns; see `learn.plan.Plan`."""

    steps: int
    batch: int = 64
    rate: float = 2e-3
    temperature: float = 2.0
    seed: int = 0
    precision: Precision = "32-true"
    strategy: Strategy = "ddp"
    device: Device = "auto"
    resume: bool = True


@dataclass(frozen=True)
class LearnRequest:
    """`roadworthy learn STAGE`.

    Args:
        model: spec or stage that it begins with; the generalist's main expert; the teacher.
        auxiliaries: the generalist's other experts.
        student: spec or stage that is distilled into.
    """

    stage: StageVerb
    model: str
    sources: Sources
    course: Course
    out: Path
    auxiliaries: tuple[Path, ...] = ()
    student: str = ""
    contrast: Contrast = "declip"


@dataclass(frozen=True)
class ProbeRequest:
    """`roadworthy learn probe`: a linear head on frozen features of each model."""

    models: tuple[str, ...]
    data: tuple[str, str]
    test: tuple[str, str]
    size: int = 64
    fraction: float = 1.0
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True)
class PackRequest:
    """`roadworthy learn pack`: the samples of a spec as shards.

    Args:
        told: source, licence and split, where they are not to be what the spec says.
        numbers: ``FROM-TO`` of the samples; "" means all.
        labelled: only those of which something is said.
    """

    spec: str
    out: Path
    size: int = 64
    per_shard: int = 500
    told: Mapping[str, str] = field(default_factory=dict[str, str])
    numbers: str = ""
    labelled: bool = False


def parse_source(text: str) -> tuple[str, str]:
    """Task and spec.

    >>> parse_source("depth=scenes:0-100")
    ('depth', 'scenes:0-100')

    Raises:
        BadInput: no such task.
    """
    task, equals, spec = text.partition("=")
    if not equals or not spec or ":" in task:
        raise BadInput(
            f"source {text!r} given; TASK=SPEC is needed, e.g. depth=scenes:0-1000, with a task of "
            f"{', '.join(get_args(TaskName))}"
        )
    one_of("task", task, get_args(TaskName))
    return task, spec
