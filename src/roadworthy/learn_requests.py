"""What `roadworthy learn` asks for; see `requests` for the rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from roadworthy.errors import BadInput
from roadworthy.learn.adapt.protocols import Protocol
from roadworthy.learn.gvb.terms import Terms
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.requests import Device, Hint, LearnTask, Workers, at_least_one, one_of

StageVerb = Literal["amateur", "expert", "generalist", "distill"]
Contrast = Literal["declip", "siglip"]
SearchMethod = Literal["evolution", "random"]


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
class LearnRequest:
    """`roadworthy learn STAGE`.

    Args:
        model: spec or stage that it begins with; the generalist's main expert; the teacher.
        auxiliaries: the generalist's other experts.
        student: spec or stage that is distilled into.
        hints: what of the teacher is learned.
        resume: whether an interrupted run goes on.
    """

    stage: StageVerb
    model: str
    sources: Sources
    plan: Plan
    machine: Machine
    out: Path
    auxiliaries: tuple[Path, ...] = ()
    student: str = ""
    hints: tuple[Hint, ...] = ()
    contrast: Contrast = "declip"
    resume: bool = True


@dataclass(frozen=True)
class SearchRequest:
    """`roadworthy learn search`: the best network around a MetaNet within a budget.

    Args:
        model: the MetaNet, without weights.
        budget: most multiply-accumulates for one image; None: those of the model itself.
        evaluations: how many networks are judged.
        resume: whether an interrupted run goes on.
    """

    model: str
    sources: Sources
    plan: Plan
    machine: Machine
    out: Path
    evaluations: int
    budget: int | None = None
    method: SearchMethod = "evolution"
    resume: bool = True

    def __post_init__(self) -> None:
        at_least_one("--evaluations", self.evaluations)
        at_least_one("--budget", self.budget)
        for option, given in (("--source", self.sources.learned), ("--held", self.sources.held)):
            tasks = [task for task, _ in given]
            if tasks != ["classification"]:
                raise BadInput(
                    f"{option} of {', '.join(tasks) or 'nothing'} given; a search judges by "
                    "classes: give one classification=SPEC"
                )
        if self.machine.world > 1:
            raise BadInput(
                f"{self.machine.world} processes given; a supernet is trained by one: start "
                "roadworthy without torchrun"
            )


@dataclass(frozen=True)
class ProbeRequest:
    """`roadworthy learn probe`: a linear head on frozen features of each model."""

    models: tuple[str, ...]
    data: tuple[str, str]
    test: tuple[str, str]
    size: int = 64
    fraction: float = 1.0
    seed: int = 0
    device: Device = "auto"
    out: Path | None = None


@dataclass(frozen=True)
class AdaptRequest:
    """`roadworthy adapt`: a backbone and a task's data in, a model of that task out.

    Args:
        test: spec that judges; "" means that nothing does.
        fraction: of the labelled images that may be used.
        protocol: how; with how many steps, images of a step and rates.
    """

    model: str
    data: str
    task: LearnTask
    out: Path
    protocol: Protocol
    test: str = ""
    fraction: float = 0.1
    size: int = 64
    seed: int = 0
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True)
class BenchmarkRequest:
    """`roadworthy benchmark BACKBONE ...`: what each is worth to many data sets.

    Args:
        models: the first is what others are compared with.
        datasets: names of the 26 below `root`; () with no `pairs` means all that are there.
        pairs: task, spec to learn from and spec to be judged by, of the user's own data.
        seeds: how many, from `seed` on; each draws the share of the images and all else.
    """

    models: tuple[str, ...]
    out: Path
    terms: Terms
    root: Path = Path("data")
    datasets: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str, str], ...] = ()
    seeds: int = 3
    seed: int = 0
    workers: Workers = "none"

    def __post_init__(self) -> None:
        at_least_one("--seeds", self.seeds)
        one_of("--workers", self.workers, get_args(Workers))
        for what, given in (
            ("backbone", self.models),
            ("data set", self.datasets),
            ("pair of --data and --test", tuple(map(" ".join, self.pairs))),
        ):
            twice = sorted({each for each in given if given.count(each) > 1})
            if twice:
                raise BadInput(f"{twice[0]} given twice; give each {what} once")


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

    def __post_init__(self) -> None:
        at_least_one("--size", self.size)


@dataclass(frozen=True)
class CatalogAddRequest:
    """`roadworthy learn catalog add`; an empty name is left as the spec says."""

    dir: Path
    spec: str
    source: str = ""
    licence: str = ""
    split: str = ""
    size: int = 64

    def __post_init__(self) -> None:
        at_least_one("--size", self.size)


@dataclass(frozen=True)
class CatalogAskRequest:
    """`roadworthy learn catalog show`, or `sql` where there is a query."""

    dir: Path
    query: str | None = None


CatalogRequest = CatalogAddRequest | CatalogAskRequest


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
            f"{', '.join(get_args(LearnTask))}"
        )
    one_of("task", task, get_args(LearnTask))
    return task, spec
