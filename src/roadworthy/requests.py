"""What a command asks for, as frozen values that cannot exist invalid.

The command line parses into these and each command is one function of one of them. Nothing heavy
is imported here: `roadworthy --help` reads this module.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, get_args

from roadworthy.errors import BadInput

Method = Literal[
    "minmax",
    "mse",
    "adaround",
    "brecq",
    "qdrop",
    "qdrop-plus",
    "outlier-suppression",
    "outlier-suppression-plus",
    "smoothquant",
    "auto",
]
Effort = Literal["quick", "standard", "paper"]
BackendName = Literal["onnxruntime-cpu", "openvino-cpu", "tensorrt", "academic"]
Device = Literal["cpu", "cuda", "auto"]
Kept = Literal["first", "last"]
Combine = Literal["greedy", "exhaustive"]
Workers = Literal["none", "ray"]
ImageStage = Literal["decode", "resize", "geometry", "colour", "normalise"]
TextStage = Literal["casing", "tokenizer", "truncation", "length", "padding"]
SharedStage = Literal["model", "runtime", "post"]
StageName = Literal[ImageStage, TextStage, SharedStage]
"""In the order in which an image or a text meets them."""
CHOICES = {"Neighbours": "number of neighbours", "Linear": "penalty"}
"""What there was to choose of a protocol of `adapt`; a learning rate of all others."""
LearnTask = Literal["classification", "detection", "segmentation", "depth"]
"""What a source of `roadworthy learn` is annotated for."""
Hint = Literal["features", LearnTask]
"""What of a teacher is learned: its features, or what its heads of a task say."""

_BITS = re.compile(r"w(\d+)a(\d+)")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB)?", re.IGNORECASE)
_UNIT_BYTES = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def parse_bits(text: str) -> tuple[int, int]:
    """Widths of weights and activations.

    >>> parse_bits("w4a8")
    (4, 8)
    """
    found = _BITS.fullmatch(text.lower())
    if not found or not all(2 <= int(width) <= 8 for width in found.groups()):
        raise BadInput(f"bits {text!r} given; w2a2 to w8a8 are allowed, e.g. --bits w4a8")
    return int(found[1]), int(found[2])


def parse_memory(text: str) -> int:
    """Bytes of a size such as ``4GB`` (powers of 1024).

    >>> parse_memory("1.5GB")
    1610612736
    """
    found = _MEMORY.fullmatch(text.strip())
    amount = float(found[1]) * _UNIT_BYTES[(found[2] or "").upper()] if found else 0.0
    if not 2**20 <= amount < 2**60:
        raise BadInput(f"memory {text[:40]!r} given; 1MB or more is allowed, e.g. 4GB")
    return int(amount)


def parse_kept(text: str) -> tuple[Kept, ...]:
    """Layers that stay at 8 bits, out of ``first``, ``last``; ``none`` keeps nothing.

    >>> parse_kept("first,last"), parse_kept("none")
    (('first', 'last'), ())
    """
    if text == "none":
        return ()
    kept: list[Kept] = []
    for name in text.split(","):
        match name.strip():
            case "first" | "last" as known:
                kept.append(known)
            case other:
                raise BadInput(f"--keep-8bit {other!r} given; first, last, first,last or none")
    return tuple(kept)


def parse_stages(names: Sequence[str]) -> tuple[StageName, ...]:
    """Stages of the road test, in the order in which an image or a text meets them.

    >>> parse_stages(["resize", "decode", "resize"])
    ('decode', 'resize')
    """
    known: tuple[StageName, ...] = get_args(StageName)
    for name in names or ("",):
        one_of("stage", name, known)
    return tuple(stage for stage in known if stage in names)


def folder_names(models: Sequence[str]) -> list[str]:
    """A folder for each model, named after it; a name that was taken gets a number.

    >>> folder_names(["timm:resnet18@a.pth", "timm:resnet18@b.pth", "py:nets/net.py:build", "out/"])
    ['resnet18', 'resnet18-2', 'net.py-build', 'out']
    """
    names: list[str] = []
    for model in models:
        _, colon, rest = model.partition(":")
        parts = (rest if colon else model).partition("@")[0].split(":")
        name = "-".join(Path(part).resolve().name for part in parts) or "model"
        numbered = (f"{name}-{number}" for number in count(2))
        names.append(next(free for free in chain([name], numbered) if free not in names))
    return names


def one_of(what: str, given: str, allowed: tuple[str, ...]) -> None:
    """Raise BadInput, which names the nearest, unless `given` is one of `allowed`."""
    if given not in allowed:
        near = get_close_matches(given.lower(), allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadInput(f"{what} {given!r} given{hint}; {', '.join(allowed)} are allowed")


def at_least_one(what: str, given: int | None) -> None:
    """Raise BadInput where a count is given and below 1."""
    if given is not None and given < 1:
        raise BadInput(f"{what} {given} given; at least 1 is allowed")


@dataclass(frozen=True)
class DataChoice:
    """Which images calibrate and which judge.

    Args:
        calibration: data spec; labels are not needed.
        evaluation: data spec with labels, or None to measure agreement with the float model only.
        calib_size: images drawn from `calibration`; None takes all of them, 1024 at most.
        preprocess: ``imagenet``, a YAML or JSON file, or None for the model's own metadata.
        skip_bad: leave unreadable images out and count them, instead of stopping.
        calib_noise: calibrate on what many deployments would make of the images.
    """

    calibration: str
    evaluation: str | None = None
    calib_size: int | None = None
    preprocess: str | None = None
    skip_bad: bool = False
    calib_noise: bool = False

    def __post_init__(self) -> None:
        at_least_one("--calib-size", self.calib_size)


@dataclass(frozen=True)
class Scheme:
    """Which integers the model is written in: widths, exceptions, the runtime's placement rules.

    Without `backend` the placement follows the widths: ``onnxruntime-cpu`` for 8-bit activations,
    for which it has integer kernels, ``academic`` below.

    `max_drop` (points of the metric) lets accuracy-aware mixed precision raise layers; None is off.
    """

    weight_bits: int = 4
    act_bits: int = 4
    keep_8bit: tuple[Kept, ...] = ("first", "last")
    backend: BackendName | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        parse_bits(self.bits)
        if self.backend is not None:
            one_of("backend", self.backend, get_args(BackendName))
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise BadInput(f"--max-drop {self.max_drop} given; 0 to 100 points are allowed")

    @property
    def bits(self) -> str:
        """The widths as they are written on the command line.

        >>> Scheme(4, 8).bits
        'w4a8'
        """
        return f"w{self.weight_bits}a{self.act_bits}"


@dataclass(frozen=True)
class Solver:
    """How the rounding is found; None leaves a number to the effort's preset.

    `memory` bounds the activation caches in bytes; what does not fit goes to disk. `blocks` names
    the modules that are units of reconstruction; none leaves the choice to the graph. `tries` seeds
    and keep probabilities are tried, the best on held-out calibration images is kept.
    """

    method: Method = "qdrop-plus"
    effort: Effort = "standard"
    iterations: int | None = None
    batch_size: int | None = None
    memory: int = 4 * 2**30
    blocks: tuple[str, ...] = ()
    tries: int = 1

    def __post_init__(self) -> None:
        one_of("method", self.method, get_args(Method))
        one_of("effort", self.effort, get_args(Effort))
        at_least_one("--iterations", self.iterations)
        at_least_one("--batch-size", self.batch_size)
        at_least_one("--tries", self.tries)


@dataclass(frozen=True)
class QuantizeRequest:
    """Everything `roadworthy quantize` was asked for.

    `sensitivity` adds each layer's own cost to the record; mixed precision measures it anyway.
    """

    model: str
    data: DataChoice
    out: Path
    scheme: Scheme = field(default_factory=Scheme)
    solver: Solver = field(default_factory=Solver)
    sensitivity: bool = False
    resume: bool = True
    seed: int = 0
    device: Device = "auto"


@dataclass(frozen=True)
class EvaluateRequest:
    """Everything `roadworthy evaluate` was asked for.

    `limit` draws that many images, by `seed` and the same number of each class, since stores are
    often sorted by class. `out` is where run.json goes; None writes none.
    """

    model: str
    data: str
    preprocess: str | None = None
    batch_size: int = 64
    limit: int | None = None
    skip_bad: bool = False
    out: Path | None = None
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        at_least_one("--batch-size", self.batch_size)
        at_least_one("--limit", self.limit)


@dataclass(frozen=True)
class RoadChoice:
    """What every road test runs on.

    Args:
        data: data spec; without labels, agreement with the training system is measured.
        preprocess: of the training system, as `DataChoice` has it.
        limit: images drawn, as many of each class; None takes all.
        batch_size: images that are held and predicted together.
        skip_bad: leave images out that any option cannot read, instead of stopping.
        seed: of the draw and of the intervals.
        device: of the training system.
        workers: ``ray`` spreads the images over a Ray cluster, or this machine's processors.
    """

    data: str
    preprocess: str | None = None
    limit: int | None = None
    batch_size: int = 32
    skip_bad: bool = False
    seed: int = 0
    device: Device = "auto"
    workers: Workers = "none"

    def __post_init__(self) -> None:
        one_of("--workers", self.workers, get_args(Workers))
        at_least_one("--limit", self.limit)
        at_least_one("--batch-size", self.batch_size)


@dataclass(frozen=True)
class NoiseRequest:
    """Everything `roadworthy noise MODEL` was asked for.

    `tolerance` (levels of 255) joins options that make nearly the same images; 0 joins equal bytes.
    """

    model: Any
    road: RoadChoice
    out: Path
    stages: tuple[StageName, ...] = get_args(StageName)
    combine: Combine = "greedy"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.model, str) and Path(self.model).resolve() == self.out.resolve():
            raise BadInput(f"--out {self.out} is the model's folder, whose run.json would be lost")
        parse_stages(self.stages)
        one_of("--combine", self.combine, get_args(Combine))
        if not 0 <= self.tolerance < 255:
            raise BadInput(f"--tolerance {self.tolerance} given; 0 to 255 levels are allowed")


@dataclass(frozen=True)
class AttributeRequest:
    """Everything `roadworthy noise attribute` was asked for.

    `train` and `deploy` are YAML or JSON files of a preprocess spec that may also name ``model``,
    ``runtime`` and ``post``; without `train` the model's own preprocessing is meant.
    """

    model: Any
    road: RoadChoice
    deploy: Path
    train: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class IdentifyRequest:
    """Everything `roadworthy noise identify` was asked for: a photo, and what a model was fed."""

    image: Path
    tensor: Path
