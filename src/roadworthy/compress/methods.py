"""The methods as points of one engine: frozen settings, the published defaults by name.

A method is a choice of ranges and a sequence of passes. Every pass walks the network's units once
and learns some of: the rounding of weights, their step, the activations' step, the bias.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from roadworthy.compress.ranges import EXPONENT, RangeMethod
from roadworthy.compress.suppress import GammaMigration, ShiftScale, Smooth, Suppress
from roadworthy.errors import BadInput

Scope = Literal["layer", "block", "pair", "network"]
Effort = Literal["quick", "standard", "paper"]


@dataclass(frozen=True)
class Rounding:
    """How rounding is learned.

    Attributes:
        kind: ``soft`` is AdaRound's rectified sigmoid with its regulariser; ``straight-through``
            learns the weight itself through the rounding.
        lr: of Adam, per step.
        schedule: ``constant`` or ``cosine`` to zero.
        strength: lambda of the regulariser.
        warmup: share of the steps before the regulariser starts.
        beta: its exponent, from first to last step.
    """

    kind: Literal["soft", "straight-through"] = "soft"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    strength: float = 0.01
    warmup: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)


@dataclass(frozen=True)
class ActScale:
    """How activation steps are learned: Adam, cosine to zero; `relative` rates are in units of
    the step itself, of the zero point, which LSQ+ learns too, in units of the whole grid."""

    lr: float = 4e-5
    relative: bool = False
    zero_point: bool = False

    def rate(self, unit: float) -> float:
        """Adam's rate for a number whose unit is `unit`."""
        return self.lr * unit if self.relative else self.lr


@dataclass(frozen=True)
class Pass:
    """One walk over the units.

    Attributes:
        scope: what a unit is.
        iterations, batch_size: steps per unit and samples drawn (with replacement) per step.
        keep_quantized_input, keep_quantized_inside: probability with which an element keeps its
            quantized value at the unit's input and at every quantizer in it; 1 is no drop.
        rounding, act_scale: None leaves them as they are.
        weight_scale_lr, bias_lr: learning rates of the weights' log step and of the bias.
        loss: squared error of the unit's output, or KL divergence of the logits.
        anneal_bits: bits that activations have more at the start, falling to none at half of the
            steps (Bit-Shrinking).
        float_weights: weights stay in floating point in this pass.
    """

    scope: Scope = "block"
    iterations: int = 20_000
    batch_size: int = 32
    keep_quantized_input: float = 0.5
    keep_quantized_inside: float = 0.5
    rounding: Rounding | None = field(default_factory=Rounding)
    act_scale: ActScale | None = field(default_factory=ActScale)
    weight_scale_lr: float | None = None
    bias_lr: float | None = None
    loss: Literal["squared", "kl"] = "squared"
    anneal_bits: float = 0.0
    float_weights: bool = False

    def __post_init__(self) -> None:
        for value in (self.keep_quantized_input, self.keep_quantized_inside):
            if not 0 <= value <= 1:
                raise BadInput(f"keep probability {value} given; 0 to 1 is allowed")
        if self.iterations < 1 or self.batch_size < 1:
            raise BadInput(
                f"{self.iterations} iterations of {self.batch_size} samples given; "
                "at least 1 of each is needed"
            )


_SPANS = {8: 0.1, 6: 0.3, 4: 0.9}


@dataclass(frozen=True)
class TokenClipping:
    """The grid of ratios that token-wise clipping tries (arXiv 2209.13325, section 4.2).

    Attributes:
        batch_size: samples whose tokens are clipped together; limits are averaged over batches.
        step: between two ratios; None is the published one, 0.01 or 40.96 over a batch's tokens.
        span: how far ratios go below one; None is the published one: .1, .3 and .9 at 8, 6 and 4
            bits, what lies between at 7 and 5, .9 below.
    """

    batch_size: int = 32
    step: float | None = None
    span: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("step", self.step), ("span", self.span)):
            if value is not None and not 0 < value < 1:
                raise BadInput(f"a clipping {name} of {value} given; between 0 and 1 is allowed")
        if self.batch_size < 1:
            raise BadInput(f"clipping batches of {self.batch_size} given; at least 1 is allowed")

    def ratios(self, bits: int, tokens: int) -> list[float]:
        """The grid from 1 downwards, for activations of `bits` and samples of `tokens`.

        >>> TokenClipping().ratios(8, 128)[:3], len(TokenClipping().ratios(6, 128))
        ([1.0, 0.99, 0.98], 31)
        """
        step = self.step or min(0.01, 40.96 / (self.batch_size * tokens))
        low, high = bits - bits % 2, bits + bits % 2
        span = self.span or (_SPANS.get(low, 0.9) + _SPANS.get(high, 0.9)) / 2
        return [round(1 - step * i, 6) for i in range(round(span / step) + 1)]


@dataclass(frozen=True)
class Method:
    """Settings of a whole quantization; use one of its named points.

    Attributes:
        weight_bits, act_bits: widths, 2 to 8.
        weight_range, act_range: how ranges are found.
        act_exponent: of the error whose sum the range search of activations minimises; a lower one
            gives up outliers for finer steps.
        range_images: how many images activation ranges are found on.
        augment: copies of the images, mirrored or shifted, that are learned from besides them.
        passes: the walks over the units, one after the other.
        tries: seeds and keep probabilities tried, the best on held-out images taken.
        suppress: what is done about the outliers of norms first.
        clip: activation ranges by token-wise clipping, in place of `act_range`.
    """

    weight_bits: int = 4
    act_bits: int = 4
    weight_range: RangeMethod = "mse"
    act_range: RangeMethod = "mse"
    act_exponent: float = EXPONENT
    range_images: int = 256
    augment: int = 0
    passes: tuple[Pass, ...] = ()
    tries: int = 1
    suppress: Suppress | None = None
    clip: TokenClipping | None = None

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise BadInput(f"{self.tries} tries given; at least 1 is needed")
        for bits in (self.weight_bits, self.act_bits):
            if not 2 <= bits <= 8:
                raise BadInput(f"{bits} bits given; 2 to 8 are allowed")

    @property
    def candidates(self) -> tuple["Method", ...]:
        """Methods tried in place of this one, the best on held-out samples taken."""
        return ()

    @property
    def suppresses(self) -> bool:
        """Whether outliers of transformers are dealt with."""
        return self.suppress is not None or self.clip is not None


@dataclass(frozen=True)
class MinMax(Method):
    """Calibration only: ranges from the extreme values."""

    weight_range: RangeMethod = "minmax"
    act_range: RangeMethod = "minmax"


@dataclass(frozen=True)
class Mse(Method):
    """Calibration only: ranges of least error."""


_WEIGHTS_ONLY = Pass(
    keep_quantized_input=1.0, keep_quantized_inside=0.0, act_scale=None, iterations=20_000
)


@dataclass(frozen=True)
class AdaRound(Method):
    """Layer by layer, activations in floating point (arXiv 2004.10568; 10 000 steps)."""

    passes: tuple[Pass, ...] = (replace(_WEIGHTS_ONLY, scope="layer", iterations=10_000),)


@dataclass(frozen=True)
class BRECQ(Method):
    """Block by block: weights with activations in floating point, then activation steps alone
    (arXiv 2102.05426; 20 000 and 5 000 steps). The Fisher weighting of the loss is left out, as
    in the MQBench protocol."""

    passes: tuple[Pass, ...] = (
        _WEIGHTS_ONLY,
        Pass(iterations=5_000, rounding=None, keep_quantized_input=1.0, keep_quantized_inside=1.0),
    )


@dataclass(frozen=True)
class QDrop(Method):
    """Block by block, weights and activation steps together, quantization dropped at random
    (arXiv 2203.05740; 20 000 steps)."""

    passes: tuple[Pass, ...] = (Pass(),)


def fine_stage(lr: float = 1e-5, relative: bool = False, steps: int = 24) -> Pass:
    """Token-wise clipping's fine stage: steps and zero points of all activations (LSQ+), by the
    squared error of the network's answers, weights in floating point.

    The published 24 steps are three epochs of 256 texts; at the published rate they move a
    parameter by 2.4e-4 at most. `relative` rates are `ActScale`'s.
    """
    return Pass(
        scope="network",
        iterations=steps,
        keep_quantized_input=1.0,
        keep_quantized_inside=1.0,
        rounding=None,
        act_scale=ActScale(lr, relative, zero_point=True),
        float_weights=True,
    )


def _search_narrow_weights(method: Method) -> None:
    """Below 5 bits a search for the least error has to find the ranges of weights."""
    if method.weight_bits <= 4:
        object.__setattr__(method, "weight_range", "mse")


@dataclass(frozen=True)
class OutlierSuppression(Method):
    """Gamma Migration, then token-wise clipping, coarse and fine (arXiv 2209.13325).

    Weights by their extremes, at 4 bits and below by least error; activations asymmetric.
    """

    weight_range: RangeMethod = "minmax"
    act_range: RangeMethod = "minmax"
    passes: tuple[Pass, ...] = (fine_stage(),)
    suppress: Suppress | None = field(default_factory=GammaMigration)
    clip: TokenClipping | None = field(default_factory=TokenClipping)

    def __post_init__(self) -> None:
        super().__post_init__()
        _search_narrow_weights(self)


@dataclass(frozen=True)
class SmoothQuant(Method):
    """Channels traded between norms and weights (arXiv 2211.10438), for post-LN networks as well.

    Activation ranges are those of least squared error; weights by their extremes, at 4 bits and
    below by least error.
    """

    weight_range: RangeMethod = "minmax"
    act_exponent: float = 2.0
    suppress: Suppress | None = field(default_factory=Smooth)

    def __post_init__(self) -> None:
        super().__post_init__()
        _search_narrow_weights(self)


@dataclass(frozen=True)
class OutlierSuppressionPlus(SmoothQuant):
    """Channels of norms shifted and scaled (arXiv 2304.09145); ranges as `SmoothQuant` has them."""

    suppress: Suppress | None = field(default_factory=ShiftScale)


@dataclass(frozen=True)
class Auto(Method):
    """For transformers: what deals best with their outliers, judged on held-out samples.

    Ranges of least error as they are, behind migration, two ways of smoothing and shifts, and
    token-wise clipping's coarse stage; none of them learns.
    """

    @property
    def candidates(self) -> tuple[Method, ...]:
        """The methods tried."""
        bits = (self.weight_bits, self.act_bits)
        least = Mse(*bits, SmoothQuant(*bits).weight_range, act_exponent=2.0)
        return (
            least,
            replace(least, suppress=GammaMigration()),
            SmoothQuant(*bits),
            SmoothQuant(*bits, suppress=Smooth(1.0)),
            OutlierSuppressionPlus(*bits),
            OutlierSuppression(*bits, passes=()),
        )


def _plus(act_bits: int) -> tuple[Pass, ...]:
    """The two passes of `QDropPlus`; the second one's rates halve with every bit above two."""
    rate = 2.0 ** (2 - act_bits)
    block = Pass(
        iterations=10_000,
        keep_quantized_input=0.75,
        keep_quantized_inside=0.75,
        rounding=Rounding(lr=1e-2, schedule="cosine"),
        act_scale=ActScale(2e-3, relative=True),
        weight_scale_lr=2e-3,
        bias_lr=2e-3,
    )
    network = Pass(
        scope="network",
        iterations=5_000,
        keep_quantized_input=1.0,
        keep_quantized_inside=1.0,
        rounding=Rounding(kind="straight-through", lr=5e-3 * rate, schedule="cosine"),
        act_scale=ActScale(1e-3 * rate, relative=True),
        weight_scale_lr=1e-3 * rate,
        bias_lr=1e-3 * rate,
        loss="kl",
    )
    return block, network


@dataclass(frozen=True)
class QDropPlus(Method):
    """QDrop with what measurably helps it; docs/qdrop.md holds each ingredient's gain.

    Finer activation steps at the price of outliers; per block a ten times higher rate of rounding
    that falls to zero, learned weight steps and biases, mirrored images, three values of four
    quantized; then one pass over the whole network by the KL divergence of its
    logits, half as many steps, rounding learned straight through.
    """

    act_exponent: float = 2.0
    augment: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.passes:
            object.__setattr__(self, "passes", _plus(self.act_bits))


EFFORT: dict[Effort, int] = {"quick": 250, "standard": 1_000}
"""Steps per unit of the presets, for 1024 calibration images; `paper` is the method as it is."""
FEWEST = 0.25
"""Share of these steps that the fewest images get."""


def at_effort(method: Method, effort: Effort, images: int) -> Method:
    """`method` at a preset: as many epochs for fewer images, but at least a quarter of the steps,
    and never more than are its own.

    >>> [at_effort(QDrop(), "standard", n).passes[0].iterations for n in (1024, 512, 64)]
    [1000, 500, 250]
    >>> at_effort(AdaRound(), "paper", 256).passes[0].iterations
    10000
    """
    if effort == "paper":
        return method
    share = min(1.0, max(FEWEST, images / 1024))
    own = method.passes[0].iterations if method.passes else 0
    return with_iterations(method, min(own, round(EFFORT[effort] * share)))


def with_iterations(method: Method, steps: int) -> Method:
    """`method` with `steps` per unit in its first pass, the later ones in proportion."""
    factor = steps / method.passes[0].iterations if method.passes else 1.0
    return _each(method, lambda p: replace(p, iterations=max(1, round(p.iterations * factor))))


def with_batch_size(method: Method, size: int | None) -> Method:
    """`method` with `size` samples per step; None leaves what it has."""
    return method if size is None else _each(method, lambda p: replace(p, batch_size=size))


def _each(method: Method, change: Callable[[Pass], Pass]) -> Method:
    return replace(method, passes=tuple(map(change, method.passes)))
