"""Which MetaNets a search may find, and what each of them costs.

Operator, depth, width and entry of every stage are free; strides and expansions are given. Every
width is a multiple of the width of a head, so that any choice fits beside any other.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from roadworthy.core.cost import macs, parameters
from roadworthy.core.metanet import Down, MetaNetConfig, Op, Stage, block, entry
from roadworthy.errors import BadModel

FREE = ("op", "repeats", "channels", "down")
"""What of a stage is searched for."""


@dataclass(frozen=True)
class Choices:
    """What one stage may be: options of `op`, `repeats`, `channels` and `down`.

    Raises:
        BadModel: no option, one twice, or numbers that do not rise.
    """

    op: tuple[Op, ...]
    repeats: tuple[int, ...]
    channels: tuple[int, ...]
    down: tuple[Down, ...]
    stride: int
    expansion: int

    def __post_init__(self) -> None:
        for name in FREE:
            options = getattr(self, name)
            if not options or len({*options}) < len(options):
                raise BadModel(f"{name} of {options} given; one or more different ones are needed")
            if name in ("repeats", "channels") and list(options) != sorted(options):
                raise BadModel(f"{name} of {options} given; numbers that rise are needed")


@dataclass(frozen=True)
class Space:
    """All networks that take one option of each of their stages' choices.

    Args:
        stem: channels after the first convolution.
        head: width of the pooled features.
        head_dim: channels a head of attention.
        layer_scale: what attention and MLPs are first multiplied by.

    Raises:
        BadModel: widths that are no multiples of `head_dim`; what `MetaNetConfig` refuses.
    """

    stages: tuple[Choices, ...]
    stem: int
    head: int
    head_dim: int
    layer_scale: float = 0.1

    def __post_init__(self) -> None:
        widths = {self.stem, *(width for stage in self.stages for width in stage.channels)}
        odd = sorted(width for width in widths if width % self.head_dim)
        if odd:
            raise BadModel(f"widths {odd} given; multiples of head_dim {self.head_dim} are allowed")
        self.draw(np.random.default_rng(0))

    @property
    def count(self) -> int:
        """How many networks there are."""
        return math.prod(len(getattr(stage, name)) for stage in self.stages for name in FREE)

    def draw(self, random: np.random.Generator) -> MetaNetConfig:
        """A network, every option as likely as the others."""
        return self._network(
            [{name: _one(getattr(stage, name), random) for name in FREE} for stage in self.stages]
        )

    def fair(self, random: np.random.Generator) -> list[MetaNetConfig]:
        """As many networks as a stage has operators: in each stage every one of them comes once.

        So all operators are trained equally often, whatever is drawn (FairNAS, arXiv 1907.01845).
        """
        count = max(len(stage.op) for stage in self.stages)
        turns = [_turns(stage, count, random) for stage in self.stages]
        return [self._network([turn[number] for turn in turns]) for number in range(count)]

    def mutated(
        self, network: MetaNetConfig, share: float, random: np.random.Generator
    ) -> MetaNetConfig:
        """With each choice drawn anew at a chance of `share`."""
        picks = zip(network.stages, self.draw(random).stages, strict=True)
        return self._network(
            [
                {name: getattr(new if random.random() < share else old, name) for name in FREE}
                for old, new in picks
            ]
        )

    def crossed(
        self, one: MetaNetConfig, other: MetaNetConfig, random: np.random.Generator
    ) -> MetaNetConfig:
        """Each stage of either one or the other."""
        pairs = zip(one.stages, other.stages, strict=True)
        return replace(one, stages=tuple(pair[int(random.integers(2))] for pair in pairs))

    def own(self, network: MetaNetConfig) -> MetaNetConfig:
        """`network` with heads of this space's width, if it is of the space then; else BadModel."""
        stages = tuple(replace(each, head_dim=self.head_dim) for each in network.stages)
        found = replace(network, stages=stages, drop_path=0.0)
        self.check(found)
        return found

    def check(self, network: MetaNetConfig) -> None:
        """BadModel where `network` is not of this space."""
        if len(network.stages) != len(self.stages):
            raise BadModel(f"{len(network.stages)} stages given; {len(self.stages)} are needed")
        for number, (stage, choices) in enumerate(zip(network.stages, self.stages, strict=True)):
            for name in FREE:
                if getattr(stage, name) not in getattr(choices, name):
                    raise BadModel(
                        f"{name} {getattr(stage, name)} of stage {number} given; the space has "
                        f"{', '.join(map(str, getattr(choices, name)))}"
                    )
        if network != self._network([{n: getattr(s, n) for n in FREE} for s in network.stages]):
            raise BadModel("a network of another stem, head, stride or expansion than the space's")

    def corners(self) -> Iterator[MetaNetConfig]:
        """Networks of full depth which, between them, have every block that a network may have.

        The widest with every operator and entry; before them, as a first block has another shape
        where it changes the width, all pairs of widths of neighbours, even and odd stages.
        """
        most = {name: max(len(getattr(stage, name)) for stage in self.stages) for name in FREE}
        widths = itertools.product(range(most["op"]), *[range(most["channels"])] * 2)
        yield from (self._corner(op, "inside", even, odd) for op, even, odd in widths)
        for op, down in itertools.product(range(most["op"]), get_args(Down)):
            yield self._corner(op, down, None, None)

    def _corner(self, op: int, down: Down, *widths: int | None) -> MetaNetConfig:
        """Options by number, the last if None; an entry that a stage does not have is another."""
        picks: list[dict[str, Any]] = []
        for number, stage in enumerate(self.stages):
            width = widths[number % 2]
            pick = -1 if width is None else width % len(stage.channels)
            picks.append(
                {
                    "op": stage.op[op % len(stage.op)],
                    "repeats": max(stage.repeats),
                    "channels": stage.channels[pick],
                    "down": down if down in stage.down else stage.down[0],
                }
            )
        return self._network(picks)

    def _network(self, picks: list[dict[str, Any]]) -> MetaNetConfig:
        stages = (
            Stage(**pick, stride=each.stride, expansion=each.expansion, head_dim=self.head_dim)
            for pick, each in zip(picks, self.stages, strict=True)
        )
        return MetaNetConfig(tuple(stages), self.stem, self.head, self.layer_scale)


def around(network: MetaNetConfig, head_dim: int = 8) -> Space:
    """The space around a network: half of its widths to all, a block less or more.

    Every stage has all operators, and all but the first all ways of entering; the network itself,
    with heads of `head_dim` channels, is among them.

    >>> from roadworthy.core.metanet import POINTS
    >>> space = around(POINTS["mn_xs"])
    >>> space.stages[3].channels, space.stages[3].repeats, f"{space.count:.1e}"
    ((32, 48, 64), (1, 2, 3), '2.9e+11')
    """
    stages: list[Choices] = []
    for number, stage in enumerate(network.stages):
        sides = {round(stage.channels * share / head_dim) * head_dim for share in (0.5, 0.75)}
        widths = sorted({max(head_dim, side) for side in sides} | {stage.channels})
        depths = sorted({max(1, stage.repeats + more) for more in (-1, 0, 1)})
        downs: tuple[Down, ...] = get_args(Down) if number else ("inside",)
        fixed = stage.stride, stage.expansion
        stages.append(Choices(get_args(Op), tuple(depths), tuple(widths), downs, *fixed))
    return Space(tuple(stages), network.stem, network.head, head_dim, network.layer_scale)


class Cost(NamedTuple):
    """Multiply-accumulates for one image, as of `core.cost.macs`, and numbers that are learned."""

    macs: int
    parameters: int


def cost_of(network: MetaNetConfig, size: int, classes: int) -> Cost:
    """What `MetaNet(network, classes)` costs at images of `size` pixels a side.

    The sum over its blocks, each kind of which is looked at once: a search asks for thousands.
    """
    side, width = _half(size), network.stem
    head = network.head
    total = np.array([27 * width * side**2, 29 * width])
    for stage in network.stages:
        for module, cin, at, stride in _pieces(stage, width, side):
            total += _piece_cost(module, cin, at, stride)
        side, width = side if stage.stride == 1 else _half(side), stage.channels
    total += [width * head * side**2 + head * classes, (width + 2) * head + (head + 1) * classes]
    return Cost(*map(int, total))


def _pieces(stage: Stage, cin: int, side: int) -> Iterator[tuple[Stage, int, int, int]]:
    """Entry and blocks of a stage, with what each gets: channels, pixels a side; and its stride.

    What a piece does not depend on is the same of all, so that equal ones are known again.
    """
    small = side if stage.stride == 1 else _half(side)
    plain = replace(stage, repeats=1, stride=1, down="inside")
    first = (plain, stage.channels, small, 1)
    if stage.down == "inside":
        first = (plain, cin, side, stage.stride)
    else:
        yield replace(stage, repeats=1, op="mbconv", expansion=1), cin, side, stage.stride
    yield first
    yield from [(plain, stage.channels, small, 1)] * (stage.repeats - 1)


@cache
def _piece_cost(stage: Stage, cin: int, side: int, stride: int) -> Cost:
    with torch.device("meta"):
        before = entry(stage, cin)
        module = block(stage, cin, stride, 1.0, 0.0) if before is None else before
    return Cost(macs(lambda: module, cin, side, side), parameters(module))


def _half(side: int) -> int:
    return (side + 1) // 2


def _one(options: tuple[Any, ...], random: np.random.Generator) -> Any:
    return options[int(random.integers(len(options)))]


def _turns(stage: Choices, count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    ops, downs = (_shuffled(each, count, random) for each in (stage.op, stage.down))
    rest = ("repeats", "channels")
    return [
        {"op": op, "down": down} | {name: _one(getattr(stage, name), random) for name in rest}
        for op, down in zip(ops, downs, strict=True)
    ]


def _shuffled(options: tuple[Any, ...], count: int, random: np.random.Generator) -> list[Any]:
    """`count` options, none more than once oftener than another."""
    rounds = -(-count // len(options))
    order = np.concatenate([random.permutation(len(options)) for _ in range(rounds)])
    return [options[int(each)] for each in order[:count]]
