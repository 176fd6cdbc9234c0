"""How near a raster comes to a tensor, before and after its colours and normalisation are known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from roadworthy.core.images import Placement, Precision, Preprocess
from roadworthy.core.resizers import Raster
from roadworthy.errors import BadInput
from roadworthy.noise.options import NORMALISATIONS
from roadworthy.noise.placing import inside

Image = Float[NDArray[np.float32], "3 h w"]
Three = tuple[float, float, float]
_LEAST = 8
_MOST = 1e6
_FLATTEST = 0.01
"""The least slope of a fit: with less, float32 would lose the photo and anything would match."""
_SAMPLE = 12_000
_LUMAS = np.array([[0.299, 0.587, 0.114], [0.2126, 0.7152, 0.0722]])
"""BT.601, BT.709: one of them goes through YUV unharmed."""


def as_image(tensor: NDArray[Any]) -> Image:
    """`tensor` with its channels first; BadInput where it has none or is not finite.

    >>> as_image(np.zeros((1, 8, 9, 3))).shape
    (3, 8, 9)
    """
    if tensor.dtype.kind not in "uif":
        raise BadInput(
            f"a tensor of {tensor.dtype} given; real numbers are needed, saved as float32, float16 "
            "or integers"
        )
    found = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if found.ndim == 3 and found.shape[0] != 3 and found.shape[2] == 3:
        found = found.transpose(2, 0, 1)
    if found.ndim != 3 or found.shape[0] != 3 or min(found.shape[1:]) < _LEAST:
        raise BadInput(
            f"a tensor of shape {list(tensor.shape)} given; one image is needed, "
            f"[3, height, width] or [height, width, 3], of {_LEAST} pixels a side or more"
        )
    # What overflows here is refused below.
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(found).all():
        raise BadInput("the tensor holds NaN or infinite values; dump what the model is fed")
    if (most := float(np.abs(found).max())) > _MOST:
        raise BadInput(f"the tensor holds values to {most:.3g}; a model is fed {_MOST:.0f} at most")
    return found


@dataclass(frozen=True)
class Fit:
    """The normalisation that takes a raster nearest to the tensor, on the scale of `Preprocess`.

    Args:
        name: of a known one, or its numbers.
        mean, std: per channel of the tensor.
        precision: float16 where the tensor shows its rounding.
        residual: mean absolute difference that is left, in levels of 255.
    """

    name: str
    mean: Three
    std: Three
    precision: Precision
    residual: float


class Likeness:
    """The tensor that rasters are compared with, on a sample of its pixels where that suffices."""

    def __init__(self, wanted: Image) -> None:
        self.wanted = wanted
        size = wanted.shape[1:]
        count = size[0] * size[1]
        chosen = np.random.default_rng(0).permutation(count)[:_SAMPLE]
        self._at = np.unravel_index(np.sort(chosen), size)
        self._sample = wanted[:, *self._at].astype(np.float64)
        with np.errstate(over="ignore"):
            self._half = bool((wanted == wanted.astype(np.float16)).all())
        self._bases: dict[Placement, tuple[Any, Any]] = {}

    def in_luma(self, raster: Raster, place: Placement) -> float:
        """What is left of the raster's brightness by the tensor's channels, in levels.

        Channels may be mixed in any affine way. Pixels at the ends of the tensor's range are left
        out, since a mismatch of ranges clips them.
        """
        if place not in self._bases:
            self._bases[place] = self._basis(place)
        shown, basis = self._bases[place]
        seen = _LUMAS @ raster[self._at[0][shown], self._at[1][shown]].T
        left = seen - (seen @ basis) @ basis.T
        return float(np.sqrt((left**2).mean(1).min()))

    def _basis(self, place: Placement) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        y, x = inside(place, (self.wanted.shape[1], self.wanted.shape[2]))
        rows, columns = self._at
        shown = (rows >= y.start) & (rows < y.stop) & (columns >= x.start) & (columns < x.stop)
        ends = self.wanted.min((1, 2))[:, None], self.wanted.max((1, 2))[:, None]
        middle = shown & ((self._sample > ends[0]) & (self._sample < ends[1])).all(0)
        shown = middle if middle.sum() * 4 > shown.sum() else shown
        shown = shown if shown.any() else np.ones_like(shown)
        part = np.stack([*self._sample[:, shown], np.ones(shown.sum())], 1)
        return shown, np.linalg.qr(part)[0]

    def sampled(self, raster: Raster) -> Fit:
        """The best normalisation, judged by the sample."""
        pixels = np.ascontiguousarray(raster[self._at][:, None])
        return self._fitted(pixels, self._sample[..., None])

    def fit(self, raster: Raster) -> Fit:
        """The best normalisation, judged by every pixel."""
        return self._fitted(np.ascontiguousarray(raster), self.wanted)

    def _fitted(self, pixels: NDArray[Any], y: NDArray[Any]) -> Fit:
        mean, std = _solved(pixels.reshape(-1, 3).T / 255.0, y.reshape(3, -1).astype(np.float64))
        name, *known = min(NORMALISATIONS, key=lambda n: _apart(y, (mean, std), n[1:]))
        free = self._rated(pixels, y, f"mean {_short(mean)} std {_short(std)}", mean, std)
        near = self._rated(pixels, y, name, *known)
        return near if near.residual <= 1.05 * free.residual + 1e-3 else free

    def _rated(
        self, pixels: NDArray[Any], y: NDArray[Any], name: str, mean: Three, std: Three
    ) -> Fit:
        precisions: tuple[Precision, ...] = ("float32", "float16") if self._half else ("float32",)
        return min(
            (Fit(name, mean, std, p, _residual(pixels, y, mean, std, p)) for p in precisions),
            key=lambda fit: fit.residual,
        )


def _residual(
    raster: NDArray[Any], wanted: NDArray[Any], mean: Three, std: Three, precision: Precision
) -> float:
    made = Preprocess(mean=mean, std=std, precision=precision).normalised(raster).numpy()
    apart = np.abs(made - wanted).mean((1, 2), dtype=np.float64)
    return float((apart * np.array(std)).mean() * 255)


def _solved(x: NDArray[Any], y: NDArray[Any]) -> tuple[Three, Three]:
    """Mean and standard deviation by least squares; a channel may not be turned upside down."""
    x_mean, y_mean = x.mean(1), y.mean(1)
    x, y = x - x_mean[:, None], y - y_mean[:, None]
    slope = (x * y).sum(1) / np.maximum((x * x).sum(1), 1e-12)
    slope = np.maximum(slope, _FLATTEST)
    return _three(x_mean - y_mean / slope), _three(1 / slope)


def _apart(y: NDArray[Any], a: tuple[Three, Three], b: tuple[Three, Three]) -> float:
    """How far two normalisations are apart as they undo the tensor, in levels squared."""
    spread, centre = y.std((1, 2)), y.mean((1, 2))
    scale, shift = np.subtract(a[1], b[1]), np.subtract(a[0], b[0])
    return float(((scale * centre + shift) ** 2 + (scale * spread) ** 2).sum())


def _short(values: Three) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _three(values: NDArray[np.float64]) -> Three:
    a, b, c = (float(value) for value in values)
    return a, b, c
