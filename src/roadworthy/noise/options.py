"""What can be changed in each stage of a system, and what this machine lacks for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never, get_args

from roadworthy.core.colours import COLOURS, Colour, find_colour
from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Geometry
from roadworthy.core.resizers import RESIZERS
from roadworthy.core.texts import CHOICES, SHORTEST, TextInput
from roadworthy.errors import BadInput
from roadworthy.noise.systems import Stage, System
from roadworthy.requests import TextStage

Normalisation = tuple[str, tuple[float, float, float], tuple[float, float, float]]
NORMALISATIONS: tuple[Normalisation, ...] = (
    ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("minus-1-to-1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("127-over-128", (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)),
    ("0-to-1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("0-to-255", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
)
"""Mean and standard deviation that deployments use, on the scale where white is 1."""


@dataclass(frozen=True)
class Option:
    """One change of one stage; `missing` says what to install where it cannot run here."""

    stage: Stage
    name: str
    system: System
    missing: str | None = None


def options(
    base: System,
    stages: Sequence[Stage],
    models: Sequence[tuple[str, str | None]] = (),
    runtimes: Sequence[tuple[str, str | None]] = (),
    posts: Sequence[str] = (),
) -> list[Option]:
    """Every option of `stages` that differs from `base`, unavailable ones included.

    Args:
        base: the training system.
        stages: which to look at.
        models, runtimes: changes of the network and other runtimes, and what is missing for them.
        posts: other ways to turn outputs into answers.

    Raises:
        BadInput: the system has none of the stages, or nothing to change in them.
    """
    present: list[Stage] = [stage for stage in stages if stage in base.stages]
    if not present:
        raise BadInput(
            f"stages {', '.join(stages)} given; this system has {', '.join(base.stages)}"
        )
    found: list[Option] = []
    for stage in present:
        match stage:
            case "decode" | "resize" | "colour":
                found += _named(base, stage)
            case "geometry":
                found += _geometries(base)
            case "normalise":
                found += _normalisations(base)
            case "casing" | "tokenizer" | "truncation" | "length" | "padding":
                found += _texts(base, stage)
            case "model":
                found += [Option(stage, n, replace(base, model=n), m) for n, m in models]
            case "runtime":
                found += [Option(stage, n, replace(base, runtime=n), m) for n, m in runtimes]
            case "post":
                found += [Option(stage, name, replace(base, post=name)) for name in posts]
            case _:
                assert_never(stage)
    if not found:
        raise BadInput(
            f"stages {', '.join(present)} given, in which this model has nothing to change; others "
            f"of {', '.join(base.stages)} are needed"
        )
    return found


def _named(base: System, stage: Literal["decode", "resize", "colour"]) -> Iterator[Option]:
    """The entries of a table of implementations."""
    if stage == "resize" and base.image.resize is None:
        return
    table = {"decode": DECODERS, "resize": RESIZERS, "colour": _colours(base)}[stage]
    for entry in table:
        if entry.name == getattr(base.preprocess, stage):
            continue
        missing = entry.missing()
        system = base if missing else _changed(base, **{stage: entry.name})
        yield Option(stage, entry.name, system, missing)


def _colours(base: System) -> list[Colour]:
    """The paths that end in the model's own channel order, and the plain swap."""
    own = find_colour(base.image.colour).blue_first
    return [path for path in COLOURS if path.blue_first == own or path.name in ("rgb", "bgr")]


def _geometries(base: System) -> Iterator[Option]:
    own = base.image
    if own.geometry is None:
        return
    for geometry in get_args(Geometry):
        if geometry != own.geometry:
            # A letterbox shows the whole image at the size that the model takes.
            whole = {"size": own.crop or own.size, "crop": None} if geometry == "letterbox" else {}
            yield Option("geometry", geometry, _changed(base, geometry=geometry, **whole))


def _normalisations(base: System) -> Iterator[Option]:
    own = base.image
    for name, mean, std in NORMALISATIONS:
        if (mean, std) != (own.mean or (0.0,) * 3, own.std or (1.0,) * 3):
            yield Option("normalise", name, _changed(base, mean=mean, std=std))
    if own.precision != "float16":
        yield Option("normalise", "float16", _changed(base, precision="float16"))


def _texts(base: System, stage: TextStage) -> Iterator[Option]:
    """The other choices of a stage; what is shorter than training's length by halves."""
    own = base.preprocess
    assert isinstance(own, TextInput)
    others: list[Any] = [each for each in CHOICES.get(stage, ()) if each != getattr(own, stage)]
    if stage == "length":
        others = [own.length // part for part in (2, 4, 8) if own.length // part >= SHORTEST]
    for each in others:
        system = _changed(base, **{stage: each})
        missing = replace(own, tokenizer=each).missing() if stage == "tokenizer" else None
        yield Option(stage, str(each), base if missing else system, missing)


def _changed(base: System, **stages: Any) -> System:
    return replace(base, preprocess=replace(base.preprocess, **stages))
