"""Which known pipeline made this tensor: every stage searched, the normalisation solved for."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.core.colours import COLOURS
from roadworthy.core.decoders import DECODERS
from roadworthy.core.images import Geometry, Preprocess
from roadworthy.core.resizers import RESIZERS, Raster
from roadworthy.errors import BadData, BadInput, BadPreprocess
from roadworthy.noise.options import NORMALISATIONS
from roadworthy.noise.tree import rasters, sight

EXACT = 0.02
"""Levels of 255 up to which a pipeline is the one: float16 rounding leaves less."""
BEAM = 6
"""Candidates that are carried from stage to stage."""
RATIOS = (1.0, 0.875, 0.9, 0.95, 0.96, 0.965, 0.97, 224 / 232, 224 / 240, 224 / 248, 224 / 288)
"""Of the crop to the resized short side, as published models have them."""
FILLS = ((114, 114, 114), (0, 0, 0), (128, 128, 128), (127, 127, 127))
_SQUARE: tuple[Geometry, ...] = ("short-side", "short-side-round", "short-side-floor")


@dataclass(frozen=True)
class Match:
    """A pipeline and how far its tensor is from the one given.

    Args:
        stages: decode to colour, with the mean and standard deviation that fit best.
        normalise: the name of these, or the numbers.
        residual: mean absolute difference in levels of 255.
        equals: other decoders, resizers and colours that make the same of this image.
    """

    stages: Preprocess
    normalise: str
    residual: float
    equals: dict[str, list[str]]

    def to_dict(self) -> dict[str, object]:
        """The match as JSON holds it."""
        stages = self.stages
        return {
            "decode": stages.decode,
            "resize": stages.resize,
            "geometry": stages.geometry,
            "size": stages.size,
            "crop": stages.crop,
            "colour": stages.colour,
            "normalise": self.normalise,
            "mean": stages.mean,
            "std": stages.std,
            "precision": stages.precision,
            "residual": self.residual,
            "equals": self.equals,
        }


def identify(content: bytes, name: str, tensor: NDArray[np.generic]) -> list[Match]:
    """The known pipelines that come closest to `tensor`, best first; ``residual <= EXACT`` is it.

    Geometry is settled first, then resizer, decoder and colour path around the best few, again and
    again until nothing improves.

    Args:
        content: the image file.
        name: of the file, for messages.
        tensor: what the deployed model was fed, ``[3 h w]``, ``[h w 3]`` or with a batch of one.

    Raises:
        BadInput: the tensor is no image.
        BadData: the file cannot be decoded.
    """
    wanted = as_image(tensor)
    search = _Search(content, name, wanted)
    search.offer(_geometries((wanted.shape[1], wanted.shape[2]), search.size))
    before = np.inf
    while search.best() < before - 1e-9 and search.best() > 1e-4:
        before = search.best()
        search.offer(
            replace(s, resize=r) for s in search.front() for r in _names(RESIZERS) if s.resize
        )
        search.offer(replace(s, decode=d) for s in search.front() for d in _names(DECODERS))
        search.offer(replace(s, colour=c) for s in search.front() for c in _names(COLOURS))
        size = wanted.shape[1], wanted.shape[2]
        search.offer(
            replace(g, decode=s.decode, resize=s.resize if g.resize else None, colour=s.colour)
            for s in search.front()[:2]
            for g in _geometries(size, search.size)
        )
    return search.matches()


def as_image(tensor: NDArray[np.generic]) -> Float[NDArray[np.float32], "3 h w"]:
    """`tensor` with its channels first; BadInput where it has none or is not finite.

    >>> as_image(np.zeros((1, 4, 5, 3))).shape
    (3, 4, 5)
    """
    found = np.asarray(tensor)
    if found.ndim == 4 and len(found) == 1:
        found = found[0]
    if found.ndim == 3 and found.shape[0] != 3 and found.shape[2] == 3:
        found = found.transpose(2, 0, 1)
    if found.ndim != 3 or found.shape[0] != 3 or min(found.shape) < 1:
        raise BadInput(
            f"a tensor of shape {list(np.asarray(tensor).shape)} given; one image is needed, "
            "[3, height, width] or [height, width, 3]"
        )
    found = found.astype(np.float32)
    if not np.isfinite(found).all():
        raise BadInput("the tensor holds NaN or infinite values; dump what the model is fed")
    return found


def _names(table: Iterable[object]) -> list[str]:
    """The entries that can run here."""
    return [entry.name for entry in table if entry.missing() is None]  # pyright: ignore


def _geometries(size: tuple[int, int], own: tuple[int, int]) -> list[Preprocess]:
    """Every known way to `size` with a common resizer; none at all where the image has it."""
    bilinear = Preprocess(resize="pillow-bilinear", geometry="squash", size=size)
    found = [bilinear, replace(bilinear, resize="opencv-linear")]
    if size == own:
        found.append(Preprocess())
    if min(own) >= max(size):
        found.append(Preprocess(crop=size))
    for resize in ("pillow-bilinear", "opencv-linear"):
        common = replace(bilinear, resize=resize)
        found += [replace(common, geometry="letterbox", fill=fill) for fill in FILLS]
        for ratio in RATIOS:
            short = {round(side / ratio) for side in size}, {int(side / ratio) for side in size}
            for side in sorted(short[0] | short[1]):
                found += [
                    replace(common, geometry=g, size=(side, side), crop=size) for g in _SQUARE
                ]
    return list(dict.fromkeys(found))


class _Search:
    """Candidates tried so far, by what they leave over."""

    def __init__(self, content: bytes, name: str, wanted: NDArray[np.float32]) -> None:
        self._content, self._name, self._wanted = content, name, wanted
        self._half = bool((wanted == wanted.astype(np.float16).astype(np.float32)).all())
        self._known: dict[Hashable, object] = {}
        self._fits: dict[Preprocess, _Fit] = {}
        self._views: dict[Preprocess, Raster] = {}
        self.size = Preprocess().decoded(content, name).shape[:2]

    def offer(self, candidates: Iterable[Preprocess]) -> None:
        fresh = [c for c in dict.fromkeys(candidates) if c not in self._fits]
        for candidate in fresh:
            try:
                view = rasters(self._content, self._name, [candidate], self._known)[
                    sight(candidate)
                ]
            except (BadData, BadPreprocess):
                continue
            if view.shape[:2] == self._wanted.shape[1:]:
                self._fits[candidate] = _fit(view, self._wanted)
                self._views[candidate] = view

    def best(self) -> float:
        return min((fit.residual for fit in self._fits.values()), default=np.inf)

    def front(self) -> list[Preprocess]:
        """The best candidates, one of each that make the same image."""
        ranked = sorted(self._fits, key=lambda c: self._fits[c].residual)
        chosen: list[Preprocess] = []
        for candidate in ranked:
            if not any(self._same(candidate, other) for other in chosen):
                chosen.append(candidate)
            if len(chosen) == BEAM:
                break
        return chosen

    def _same(self, a: Preprocess, b: Preprocess) -> bool:
        return self._fits[a].residual == self._fits[b].residual and bool(
            np.array_equal(self._views[a], self._views[b])
        )

    def matches(self) -> list[Match]:
        return [self._match(candidate) for candidate in self.front()]

    def _match(self, candidate: Preprocess) -> Match:
        fit = self._fits[candidate]
        alike = [c for c in self._fits if c != candidate and self._same(c, candidate)]
        equals = {
            stage: sorted({getattr(c, stage) for c in alike} - {getattr(candidate, stage)})
            for stage in ("decode", "resize", "geometry", "colour")
        }
        stages = replace(
            candidate,
            mean=fit.mean,
            std=fit.std,
            precision="float16" if self._half and fit.name != "0-to-255" else "float32",
        )
        named = {stage: names for stage, names in equals.items() if names}
        return Match(stages, fit.name, fit.residual, named)


@dataclass(frozen=True)
class _Fit:
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    name: str
    residual: float


def _fit(view: Raster, wanted: Float[NDArray[np.float32], "3 h w"]) -> _Fit:
    """Mean and standard deviation by least squares, made those of a known name where near."""
    x = view.transpose(2, 0, 1).reshape(3, -1).astype(np.float64) / 255
    y = wanted.reshape(3, -1).astype(np.float64)
    centred, target = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    power = (centred**2).sum(1)
    slope = (centred * target).sum(1) / np.maximum(power, 1e-12)
    slope = np.where(slope > 1e-6, slope, 1e-6)
    mean = x.mean(1) - y.mean(1) / slope
    std = 1 / slope
    name = f"mean {_short(mean)} std {_short(std)}"
    for known, known_mean, known_std in NORMALISATIONS:
        error = np.abs(_levels(y, np.array(known_mean), np.array(known_std)) - x * 255).mean()
        free = np.abs(_levels(y, mean, std) - x * 255).mean()
        if error <= free * 1.05 + EXACT:
            mean, std, name = np.array(known_mean), np.array(known_std), known
            break
    residual = float(np.abs(_levels(y, mean, std) - x * 255).mean())
    return _Fit(_three(mean), _three(std), name, residual)


def _levels(
    y: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    return (y * std[:, None] + mean[:, None]) * 255


def _short(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _three(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    a, b, c = (float(value) for value in values)
    return a, b, c
