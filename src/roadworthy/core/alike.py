"""In which words two forms of a model answer alike, by what they answer: one home for all of them.

It imports nothing heavy: the command line and the report speak by it.
"""

from typing import Literal

Measure = Literal["class", "token", "span", "cosine", "explained"]
"""What an agreement of 0 to 1 is: a share of equal classes, tokens or spans, the mean cosine of
embeddings, the share of the variance of numbers that is explained."""
NAMES: dict[Measure, str] = {
    "class": "same class",
    "token": "same token",
    "span": "same span",
    "cosine": "mean cosine",
    "explained": "variance explained",
}
COUNTED: frozenset[Measure] = frozenset(["class", "token", "span"])
"""Those that count equal answers."""


def things_of(data: object) -> str:
    """What a data spec names several of.

    >>> things_of("text:few.tsv?text=a")
    'texts'
    """
    return "texts" if str(data).startswith("text:") else "images"


def measure_of(told: object) -> Measure:
    """What a record says that was measured; records of old say nothing and count classes."""
    for measure in NAMES:
        if measure == told:
            return measure
    return "class"


def shown(measure: Measure, agreement: float) -> str:
    """An agreement, never rounded up to 1.

    >>> shown("cosine", 0.99999), shown("explained", 0.99999)
    ('0.9999', '99.99 %')
    """
    if measure != "cosine":
        return percent(agreement)
    return "1" if agreement == 1 else f"{min(agreement, 0.9999):.4f}"


def percent(share: float) -> str:
    """A share as per cent, never rounded up to 100.

    >>> percent(0.9990), percent(0.99999), percent(1.0)
    ('99.9 %', '99.99 %', '100 %')
    """
    if share == 1:
        return "100 %"
    return f"{min(share * 100, 99.99):.{2 if share > 0.9995 else 1}f} %"


def counted(measure: Measure, things: str) -> str:
    """What there are several of: tokens where texts are answered token by token."""
    return "tokens" if measure == "token" else things


def alike(measure: Measure, agreement: float, n: int, things: str) -> str:
    """How far two forms answer alike, on `n` of `things`.

    >>> alike("class", 0.5, 20, "images"), alike("token", 1.0, 64, "texts")
    ('same class on 50.0 % of 20 images', 'same token on all 64 tokens')
    >>> alike("cosine", 0.98765, 20, "texts")
    'mean cosine 0.9877 over 20 texts'
    """
    each = f"{n} {counted(measure, things)}"
    if measure not in COUNTED:
        return f"{NAMES[measure]} {shown(measure, agreement)} over {each}"
    share = "all" if agreement == 1 else f"{shown(measure, agreement)} of"
    return f"{NAMES[measure]} on {share} {each}"
