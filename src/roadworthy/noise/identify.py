"""Which known pipeline made this tensor: every stage searched, the normalisation solved for.

A pipeline that is known to the last bit leaves nothing over, so the search need not be right at
once: it looks at the likeliest places, resizers, decoders and colour paths, and again at more of
them as long as something is left.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadworthy.core.colours import COLOURS
from roadworthy.core.images import Placement, Preprocess, Size, placement
from roadworthy.core.resizers import RESIZERS, Raster
from roadworthy.errors import BadPreprocess
from roadworthy.noise.likeness import Fit, Likeness, as_image
from roadworthy.noise.photo import Photo, usable
from roadworthy.noise.placing import FILLS, geometries, left_over

EXACT = 0.02
"""Levels of 255 up to which a pipeline is the one: rounding of numbers leaves less."""
SHOWN = 5
"""Matches that are told."""
_NOTHING = 1e-3
"""Levels that end the search: what float32 rounds away."""
_SAME = 0.01
"""Levels that no pixel of two equal rasters is apart, where they are not rounded."""
_NEAR = 0.2
"""Levels of brightness that rasters may differ by which a colour path rounds to the same."""
_HOPELESS = 6.0
"""Levels of brightness left over that no colour path can explain."""
_KINDS = ("pillow-bilinear", "opencv-linear", "opencv-nearest", "torch-bilinear-align-corners")
"""One resizer of each way to place pixels, to compare places by."""
_ROUNDS = ((6, 2, 8), (24, 6, 12))
"""How many places are looked at, of these with every resizer, and how much goes on from there."""


@dataclass(frozen=True)
class Match:
    """A pipeline and how far its tensor is from the one given.

    Args:
        stages: decode to normalise; ``resize`` is None where nothing is resized.
        normalise: name of mean and standard deviation, or the numbers that fit best.
        residual: mean absolute difference in levels of 255.
        equals: per stage, what else makes the same of this image.
    """

    stages: Preprocess
    normalise: str
    residual: float
    equals: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """The match as JSON holds it."""
        names = ("decode", "resize", "geometry", "size", "crop", "fill", "colour")
        stages = {name: getattr(self.stages, name) for name in names}
        if self.stages.geometry != "letterbox":
            del stages["fill"]
        numbers = {name: getattr(self.stages, name) for name in ("mean", "std", "precision")}
        rest = {"residual": self.residual, "equals": self.equals}
        return {**stages, "normalise": self.normalise, **numbers, **rest}


def identify(content: bytes, name: str, tensor: NDArray[Any]) -> list[Match]:
    """The known pipelines that come closest to `tensor`, best first; ``residual <= EXACT`` is it.

    Args:
        content: the image file.
        name: of the file, for messages.
        tensor: what the deployed model was fed, ``[3 h w]``, ``[h w 3]`` or with a batch of one.

    Raises:
        BadInput: the tensor is no image.
        BadData: the file cannot be decoded.
    """
    search = _Search(Photo(content, name), Likeness(as_image(tensor)))
    for places, chosen, kept in _ROUNDS:
        search.look(places, chosen, kept)
        if search.found():
            break
    return search.matches()


class _Search:
    """Pipelines tried so far: what each leaves of brightness, then of everything."""

    def __init__(self, photo: Photo, likeness: Likeness) -> None:
        self._photo, self._likeness = photo, likeness
        self._ways: dict[Size, dict[Placement, list[Preprocess]]] = {}
        self._left: dict[Preprocess, float] = {}
        self._fits: dict[Preprocess, Fit] = {}
        wanted = likeness.wanted
        ranks: dict[Preprocess, float] = {}
        for decoder in photo.views():
            own = photo.size(decoder)
            ways = self._ways[own] = geometries((wanted.shape[1], wanted.shape[2]), own)
            for place, left in left_over(photo.luma(decoder), wanted, ways).items():
                # One that resizes and one that does not: all others take the same pixels.
                heads = {way.resize: way for way in reversed(ways[place])}
                ranks |= {replace(way, decode=decoder): left for way in heads.values()}
        self._heads = sorted(ranks, key=lambda way: ranks[way])

    def found(self) -> bool:
        """Whether a pipeline leaves nothing."""
        return any(fit.residual <= _NOTHING for fit in self._fits.values())

    def look(self, places: int, chosen: int, kept: int) -> None:
        """Go from places to resizers and decoders by brightness, then to colours by everything."""
        heads = self._heads[:places]
        kinds = {head: [self._left_by(way) for way in _resized(head, _KINDS)] for head in heads}
        heads = sorted(heads, key=lambda head: min(kinds[head]))[:chosen]
        found = self._brightest((way for head in heads for way in _resized(head)), kept)
        found = self._brightest((way for s in found for way in self._decoded(s)), 3 * kept)
        self._fit(_coloured(found[0]))
        if self._left_by(found[0]) > _HOPELESS:
            return
        colours = [(stages.colour, stages.fill) for stages in self._front(2)]
        self._fit(replace(s, colour=c, fill=fill) for s in found for c, fill in colours)
        tried: set[Preprocess] = set()
        while not self.found() and (best := self._front(1)[0]) not in tried:
            tried.add(best)
            self._fit([*_resized(best), *self._decoded(best), *_coloured(best)])

    def _brightest(self, ways: Iterable[Preprocess], kept: int) -> list[Preprocess]:
        """Those that leave least of brightness."""
        return sorted(dict.fromkeys(ways), key=self._left_by)[:kept]

    def _decoded(self, stages: Preprocess) -> list[Preprocess]:
        """By every decoder that turns the image alike; else it would be in another place."""
        size = self._photo.size(stages.decode)
        others = [d for d in self._photo.alike if self._photo.size(d) == size]
        return [replace(stages, decode=decoder) for decoder in others]

    def _left_by(self, stages: Preprocess) -> float:
        plain = replace(stages, colour="rgb", fill=FILLS[0])
        if plain not in self._left:
            self._left[plain] = self._measured(plain)
        return self._left[plain]

    def _measured(self, stages: Preprocess) -> float:
        try:
            raster = self._photo.fitted(stages)
        except BadPreprocess:  # A library that is installed and does not load.
            return np.inf
        return self._likeness.in_luma(raster, placement(stages, self._photo.size(stages.decode)))

    def _fit(self, found: Iterable[Preprocess]) -> None:
        for stages in found:
            if stages not in self._fits and self._left_by(stages) < np.inf:
                self._fits[stages] = self._likeness.sampled(self._photo.raster(stages))
            if stages in self._fits and self._fits[stages].residual <= _NOTHING:
                return

    def _front(self, many: int) -> list[Preprocess]:
        return sorted(self._fits, key=lambda stages: self._fits[stages].residual)[:many]

    def matches(self) -> list[Match]:
        """The best of all, one of each that make the same."""
        best, equals = self._settled(self._front(1)[0])
        found = {best: self._photo.raster(best)}
        for stages in self._front(4 * SHOWN):
            raster = self._photo.raster(stages)
            if not any(_alike(raster, other) for other in found.values()):
                found[stages] = raster
        matches = [self._match(stages, raster) for stages, raster in found.items()]
        matches[0] = replace(matches[0], equals=equals)
        return sorted(matches, key=lambda match: match.residual)[:SHOWN]

    def _match(self, stages: Preprocess, raster: Raster) -> Match:
        fit = self._likeness.fit(raster)
        full = replace(stages, mean=fit.mean, std=fit.std, precision=fit.precision)
        return Match(full, fit.name, fit.residual, {})

    def _settled(self, stages: Preprocess) -> tuple[Preprocess, dict[str, list[str]]]:
        """The best of those that differ from `stages` by one stage, by all pixels, and its equals.

        Where most pixels are the same a sample may hold none of the others.
        """
        raster = self._photo.raster(stages)
        least = self._likeness.fit(raster).residual
        equals: dict[str, list[str]] = {}
        for stage, ways in self._near(stages).items():
            for way in ways:
                other = self._photo.raster(way)
                if _alike(other, raster):
                    equals.setdefault(stage, []).append(str(getattr(way, stage)))
                elif self._likeness.fit(other).residual < least - 1e-6:
                    return self._settled(way)
        equals["decode"] = [d for first in equals["decode"] for d in self._photo.alike[first]]
        for stage, names in equals.items():
            equals[stage] = [name for name in names if name != str(getattr(stages, stage))]
        return stages, {stage: names for stage, names in equals.items() if names}

    def _near(self, stages: Preprocess) -> dict[str, list[Preprocess]]:
        """What may be equal, each of one other stage; brightness tells the rest apart."""
        own = self._left_by(stages)
        ways = {"decode": self._decoded(stages), "resize": _resized(stages)}
        near = {
            stage: [way for way in found if abs(self._left_by(way) - own) < _NEAR]
            for stage, found in ways.items()
        }
        return {**near, "geometry": self._placed(stages), "colour": _coloured(stages)}

    def _placed(self, stages: Preprocess) -> list[Preprocess]:
        """By every geometry that takes the same pixels."""
        own = self._photo.size(stages.decode)
        return [
            replace(way, decode=stages.decode, resize=stages.resize, colour=stages.colour)
            for way in {w.geometry: w for w in self._ways[own][placement(stages, own)]}.values()
            if (way.resize is None) == (stages.resize is None)
        ]


def _resized(stages: Preprocess, resizers: Sequence[str] | None = None) -> list[Preprocess]:
    """By every resizer, or by `resizers`."""
    if stages.resize is None:
        return [stages]
    return [replace(stages, resize=resizer) for resizer in resizers or usable(RESIZERS)]


def _coloured(stages: Preprocess) -> list[Preprocess]:
    """By every colour path, and with every fill of a letterbox."""
    fills = FILLS if stages.geometry == "letterbox" else (stages.fill,)
    return [replace(stages, colour=c, fill=fill) for c in usable(COLOURS) for fill in fills]


def _alike(a: Raster, b: Raster) -> bool:
    """Equal but for the last digits of what is not rounded."""
    return a.shape == b.shape and float(np.abs(a.astype(np.float32) - b).max()) <= _SAME
