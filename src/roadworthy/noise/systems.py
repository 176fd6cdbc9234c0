"""A deployment system: everything between the file on disk and the answer, stage by stage."""

from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never, get_args

from roadworthy.core.images import Preprocess

Stage = Literal["decode", "resize", "geometry", "colour", "normalise", "model", "runtime", "post"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which an image meets them."""
AS_TRAINED = "as-trained"


@dataclass(frozen=True)
class System:
    """How images become answers.

    Args:
        preprocess: decode, resize, geometry, colour and normalise.
        model: what was changed in the network, e.g. ``ceil-mode``.
        runtime: who computes it, and how precisely, e.g. ``onnxruntime-fp16``.
        post: how outputs become answers, e.g. ``box-offset-1``.
    """

    preprocess: Preprocess
    model: str = AS_TRAINED
    runtime: str = AS_TRAINED
    post: str = AS_TRAINED

    def part(self, stage: Stage) -> dict[str, Any]:
        """What belongs to `stage`, as fields of the system or of its preprocessing.

        >>> System(Preprocess()).part("colour")
        {'colour': 'rgb'}
        """
        names = _fields(stage)
        holder = self if stage in ("model", "runtime", "post") else self.preprocess
        return {name: getattr(holder, name) for name in names}

    def with_part(self, stage: Stage, other: "System") -> "System":
        """This system with `stage` as `other` has it.

        >>> a, b = System(Preprocess()), System(Preprocess(colour="bgr"), runtime="openvino")
        >>> a.with_part("colour", b) == System(Preprocess(colour="bgr"))
        True
        """
        part = other.part(stage)
        if stage in ("model", "runtime", "post"):
            return replace(self, **part)
        return replace(self, preprocess=replace(self.preprocess, **part))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is as trained is left out."""
        rest = {name: getattr(self, name) for name in ("model", "runtime", "post")}
        changed = {name: value for name, value in rest.items() if value != AS_TRAINED}
        return {**self.preprocess.to_dict(), **changed}


def _fields(stage: Stage) -> tuple[str, ...]:
    match stage:
        case "decode" | "resize" | "colour" | "model" | "runtime" | "post":
            return (stage,)
        case "geometry":
            return ("geometry", "size", "crop", "fill")
        case "normalise":
            return ("mean", "std", "precision")
        case _:
            assert_never(stage)


def differing(a: System, b: System) -> tuple[Stage, ...]:
    """The stages in which two systems are not the same, in order.

    >>> differing(System(Preprocess()), System(Preprocess(colour="bgr", mean=(0.5, 0.5, 0.5))))
    ('colour', 'normalise')
    """
    return tuple(stage for stage in STAGES if a.part(stage) != b.part(stage))
