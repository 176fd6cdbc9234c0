"""Numbers and verdicts in plain words."""

from __future__ import annotations

from collections.abc import Callable

from roadworthy.core import alike
from roadworthy.report.facts import GATE, UNITS, Facts
from roadworthy.report.road import Loss

Show = Callable[[float | None], str]


def points(value: float | None) -> str:
    """A metric in points.

    >>> points(91.64)
    '91.6'
    """
    return "–" if value is None else f"{value:.1f}"


def measured(value: float | None, metric: str) -> str:
    """A metric in points, or as it is with its unit.

    >>> measured(91.64, "top1"), measured(0.5204, "rmse"), measured(None, "rmse")
    ('91.6', '0.520 m', '–')
    """
    if value is None or metric not in UNITS:
        return points(value)
    return f"{value:#.3g}".removesuffix(".") + UNITS[metric]


def changed(value: float | None, metric: str) -> str:
    """A change of a metric in points, or as it is with its unit.

    >>> changed(-0.4, "top1"), changed(0.0123, "rmse"), changed(None, "rmse")
    ('−0.4', '+0.012 m', '–')
    """
    if value is None or metric not in UNITS:
        return signed(value)
    return signed(value, 3) + UNITS[metric]


def signed(value: float | None, digits: int = 1) -> str:
    """A change in points, with a real minus sign.

    >>> signed(-0.4), signed(0.0), signed(None)
    ('−0.4', '±0.0', '–')
    """
    if value is None:
        return "–"
    shown = f"{abs(value):.{digits}f}"
    return f"±{shown}" if float(shown) == 0 else f"{'+' if value > 0 else '−'}{shown}"


def lost(value: float | None, digits: int = 1) -> str:
    """Points lost; what was won carries a real minus sign.

    >>> lost(10.0), lost(-0.42), lost(-0.01), lost(None)
    ('10.0', '−0.4', '0.0', '–')
    """
    if value is None:
        return "–"
    shown = f"{abs(value):.{digits}f}"
    return f"−{shown}" if value < 0 and float(shown) else shown


def fine(value: float | None) -> str:
    """Points lost to the hundredth, as tables of published results have them.

    >>> fine(0.062)
    '0.06'
    """
    return lost(value, 2)


def added(value: float) -> str:
    """Points that a change adds to a loss.

    >>> added(1.2), added(-0.3), added(0.01)
    ('+1.2', '−0.3', '+0.0')
    """
    return lost(value) if lost(value).startswith("−") else f"+{lost(value)}"


def between(loss: Loss) -> str:
    """The interval in brackets, where there is one.

    >>> between(Loss(1.0, -0.5, 2.5)), between(Loss(1.0))
    (' (−0.5 to 2.5)', '')
    """
    if loss.low is None or loss.high is None:
        return ""
    return f" ({lost(loss.low)} to {lost(loss.high)})"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "option"), counted(3, "option")
    ('1 option', '3 options')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def percent(share: float | None) -> str:
    """A share as per cent, never rounded up to 100."""
    return "–" if share is None else alike.percent(share)


def times(ratio: float | None) -> str:
    """A ratio with two significant digits.

    >>> times(3.14), times(0.268), times(12.3)
    ('3.1×', '0.27×', '12×')
    """
    if ratio is None:
        return "–"
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f}×"


def chance(p: float | None) -> str:
    """A p value with two digits; what is smaller than 0.001 is only said to be.

    >>> chance(0.0156), chance(1.0), chance(1e-9)
    ('0.016', '1', '< 0.001')
    """
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def milliseconds(value: float | None) -> str:
    """A time with three significant digits."""
    return "–" if value is None else f"{value:#.3g} ms".replace(". ", " ")


def size(value: float | None) -> str:
    """Bytes in the unit that fits.

    >>> size(1_090_000.0), size(270_000.0)
    ('1.1 MB', '270 kB')
    """
    if value is None:
        return "–"
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Seconds as a person would say them.

    >>> duration(8.24), duration(150.0), duration(7320.0)
    ('8.2 s', '2 min 30 s', '2 h 2 min')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def macs(value: float | None) -> str:
    """Multiply-accumulates with three significant digits.

    >>> macs(2.0158e12), macs(607_297_929_216.0), macs(4_500_000.0)
    ('2.02 TMACs', '607 GMACs', '4.50 MMACs')
    """
    if value is None:
        return "–"
    size, unit = next(((s, u) for s, u in ((1e12, "T"), (1e9, "G")) if value >= s), (1e6, "M"))
    return f"{value / size:#.3g} {unit}MACs".replace(". ", " ")


def millions(count: float | None) -> str:
    """A count in millions, with three significant digits.

    >>> millions(538_039.0)
    '0.538 M'
    """
    return "–" if count is None else f"{count / 1e6:#.3g} M".replace(". ", " ")


def elided(text: str, most: int = 28) -> str:
    """The text, its middle left out where it has more characters than that.

    >>> elided("timm:resnet50@weights/a.pth", 16)
    'timm:res…s/a.pth'
    """
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def capital(text: str) -> str:
    """The text with its first letter large.

    >>> capital("top-1 accuracy")
    'Top-1 accuracy'
    """
    return text[:1].upper() + text[1:]


def verdict(facts: Facts) -> str:
    """The run in one or two sentences."""
    subject = facts.bits or "The model"
    clauses = [clause for clause in (_accuracy(facts, subject), _agreement(facts)) if clause]
    sentence = "; ".join(clauses)
    cost = _cost(facts)
    if not sentence and not cost:
        return f"{subject}: nothing was measured in this run."
    if not sentence:
        return f"{subject} is {cost}."
    return f"{capital(sentence)}. {'It is ' + cost + '.' if cost else ''}".strip()


def _accuracy(facts: Facts, subject: str) -> str | None:
    before, after = facts.score("float"), facts.final
    if after is None:
        alone = facts.scores[0] if facts.scores else None
        return f"{subject}: {measured(alone.value, facts.key)} {facts.metric}" if alone else None
    if facts.errs:
        beside = f", float by {measured(before.value, facts.key)}" if before else ""
        return f"{subject} errs by {measured(after.value, facts.key)}{beside}"
    if before is None:
        return f"{subject} reaches {points(after.value)} points"
    if after.value > before.value:
        return f"{subject} reaches {points(after.value)} points, float {points(before.value)}"
    return f"{subject} keeps {points(after.value)} of {points(before.value)} points"


def _agreement(facts: Facts) -> str | None:
    if facts.agreement is None:
        return None
    if facts.images is None:
        return f"deployed and simulated: {facts.agreed}"
    told = alike.alike(facts.measure, facts.agreement, facts.images, facts.things)
    return f"deployed and simulated: {told}"


def _cost(facts: Facts) -> str | None:
    speed = _speed(facts.speedup)
    space = f"{times(facts.size_ratio)} the size" if facts.size_ratio is not None else None
    return " and ".join(part for part in (speed, space) if part) or None


def _speed(speedup: float | None) -> str | None:
    if speedup is None:
        return None
    if 0.97 < speedup < 1.03:
        return "as fast as float"
    return f"{times(speedup)} as fast as float" + (" (slower)" if speedup < 1 else "")


def verdict_class(facts: Facts) -> str:
    """`fail` where the gate is missed, `warn` where more than one point went, else `pass`."""
    if facts.agreement is not None and facts.agreement < GATE:
        return "fail"
    if facts.lost is not None and facts.lost > 1:
        return "warn"
    return "pass" if facts.agreement is not None or facts.change is not None else "none"
