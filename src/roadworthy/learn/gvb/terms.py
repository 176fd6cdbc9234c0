"""On which terms backbones are compared. Read by the command line too: nothing heavy here."""

from dataclasses import dataclass, field

from roadworthy.learn.adapt.protocols import Descent
from roadworthy.learn.machine import Machine


@dataclass(frozen=True)
class Terms:
    """What is the same for every backbone.

    Args:
        fraction: of the training images, of each class.
        protocol: name of `protocols.NAMES`; see `suited`.
        descent: budget of protocols that descend.
        size: pixels a side.
        cache: folder of features; "" keeps none.
    """

    fraction: float = 0.1
    protocol: str = "linear"
    descent: Descent = field(default_factory=Descent)
    size: int = 64
    machine: Machine = field(default_factory=Machine)
    cache: str = ""
