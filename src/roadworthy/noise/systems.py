"""A deployment system: everything between the file on disk and the answer, stage by stage."""

from dataclasses import dataclass, replace
from typing import Any, assert_never, get_args

from roadworthy.core.images import Preprocess
from roadworthy.core.inputs import Stages
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadInput
from roadworthy.requests import ImageStage, SharedStage, StageName, TextStage

Stage = StageName
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which an image or a text meets them."""
REMADE: tuple[Stage, ...] = ("decode", "resize", "colour", *get_args(TextStage))
"""Stages whose options may make the very inputs of training."""
AS_TRAINED = "as-trained"
_SHARED: tuple[Stage, ...] = get_args(SharedStage)


@dataclass(frozen=True)
class System:
    """How images, or texts, become answers.

    Args:
        preprocess: decode, resize, geometry, colour and normalise; casing, tokenizer, truncation,
            length and padding of texts.
        model: what was changed in the network, e.g. ``ceil-mode``.
        runtime: who computes it, and how precisely, e.g. ``onnxruntime-fp16``.
        post: how outputs become answers, e.g. ``box-offset-1``.
    """

    preprocess: Stages
    model: str = AS_TRAINED
    runtime: str = AS_TRAINED
    post: str = AS_TRAINED

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that it has, in order: those of an image or those of a text.

        >>> System(TextInput("folder")).stages[:3]
        ('casing', 'tokenizer', 'truncation')
        """
        kind = TextStage if isinstance(self.preprocess, TextInput) else ImageStage
        return (*get_args(kind), *_SHARED)

    @property
    def image(self) -> Preprocess:
        """The preprocessing of its images; BadInput where it reads texts."""
        if isinstance(self.preprocess, Preprocess):
            return self.preprocess
        raise BadInput("a system of images is needed, and this one reads texts")

    def part(self, stage: Stage) -> dict[str, Any]:
        """What belongs to `stage`, as fields of the system or of its preprocessing.

        >>> System(Preprocess()).part("colour")
        {'colour': 'rgb'}
        """
        if stage not in self.stages:
            return {}
        holder = self if stage in _SHARED else self.preprocess
        return {name: getattr(holder, name) for name in _fields(stage)}

    @property
    def resizes(self) -> bool:
        """Whether its images are resized."""
        return isinstance(self.preprocess, Preprocess) and self.preprocess.resize is not None

    def with_part(self, stage: Stage, other: "System") -> "System":
        """This system with `stage` as `other` has it.

        Where one of the two does not resize, a resizer comes and goes with the geometry, without
        which it cannot be.

        >>> a, b = System(Preprocess()), System(Preprocess(colour="bgr"), runtime="openvino")
        >>> a.with_part("colour", b) == System(Preprocess(colour="bgr"))
        True
        """
        part = other.part(stage)
        if stage == "geometry" and self.resizes != other.resizes:
            part |= other.part("resize")
        if stage in _SHARED:
            return replace(self, **part)
        return replace(self, preprocess=replace(self.preprocess, **part))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is as trained is left out."""
        rest = {name: getattr(self, name) for name in _SHARED}
        changed = {name: value for name, value in rest.items() if value != AS_TRAINED}
        return {**self.preprocess.to_dict(), **changed}


def _fields(stage: Stage) -> tuple[str, ...]:
    match stage:
        case "decode" | "resize" | "colour" | "model" | "runtime" | "post":
            return (stage,)
        case "casing" | "truncation" | "length" | "padding":
            return (stage,)
        case "tokenizer":
            return ("files", "tokenizer")
        case "geometry":
            return ("geometry", "size", "crop", "fill")
        case "normalise":
            return ("mean", "std", "precision")
        case _:
            assert_never(stage)


def differing(a: System, b: System) -> tuple[Stage, ...]:
    """The stages in which two systems are not the same, in order.

    Where one of them does not resize, its resizer is no stage of its own: see `with_part`.

    >>> differing(System(Preprocess()), System(Preprocess(colour="bgr", mean=(0.5, 0.5, 0.5))))
    ('colour', 'normalise')
    """
    found: list[Stage] = [stage for stage in STAGES if a.part(stage) != b.part(stage)]
    if a.resizes != b.resizes:
        found.remove("resize")
    return tuple(found)
