"""One image or text through many preprocessings, what they share computed once."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, cast

from roadworthy.core.images import Preprocess
from roadworthy.core.inputs import Stages
from roadworthy.core.resizers import Pixels, Raster
from roadworthy.core.texts import TextInput, Tokens

Value = TypeVar("Value")
Sight = tuple[Hashable, ...]
"""What a raster depends on: equal sights of one image are one raster."""


def sight(stages: Stages) -> Sight:
    """Everything of `stages` up to the colour path, as normalisation comes after it; of a text all.

    >>> sight(Preprocess(mean=(0.5, 0.5, 0.5))) == sight(Preprocess())
    True
    """
    return (stages,) if isinstance(stages, TextInput) else (*_fit(stages), stages.colour)


def _fit(stages: Preprocess) -> Sight:
    return (
        stages.decode,
        stages.resize,
        stages.geometry,
        stages.size,
        stages.crop,
        stages.fill,
    )


def rasters(
    content: bytes | Pixels,
    name: str,
    wanted: Sequence[Preprocess],
    known: dict[Hashable, object] | None = None,
) -> dict[Sight, Raster]:
    """What `wanted` make of one file before they normalise it, by their sights.

    Each decoder runs once, each resizer once per decoder, each colour path once per resized image;
    `known` carries them on to the next call for the same file.

    Raises:
        BadData: one of the decoders cannot read the file `name`.
    """
    done = {} if known is None else known

    def once(key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in done:
            done[key] = make()
        return cast(Value, done[key])

    found: dict[Sight, Raster] = {}
    for stages in wanted:
        pixels = once(stages.decode, lambda s=stages: s.decoded(content, name))
        fitted = once(_fit(stages), lambda s=stages, p=pixels: s.fitted(p))
        found[sight(stages)] = once(sight(stages), lambda s=stages, f=fitted: s.coloured(f))
    return found


def views(
    content: bytes | Pixels,
    name: str,
    wanted: Sequence[Stages],
    known: dict[Hashable, object] | None = None,
) -> dict[Sight, Raster | Tokens]:
    """What `wanted` make of one image or text, by their sights: `rasters` or tokens ``[r t]``.

    Raises:
        BadData: one of them cannot read `name`.
    """
    images = [stages for stages in wanted if isinstance(stages, Preprocess)]
    found: dict[Sight, Raster | Tokens] = {**rasters(content, name, images, known)}
    for stages in wanted:
        if isinstance(stages, TextInput) and sight(stages) not in found:
            found[sight(stages)] = stages.tokens(stages.decoded(content, name))
    return found
