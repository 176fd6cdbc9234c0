"""The space of a search: what is in it, what it costs, how networks of it are drawn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from learn.spaces import small

from roadworthy.core.cost import macs, parameters
from roadworthy.core.metanet import POINTS, MetaNet
from roadworthy.errors import BadModel
from roadworthy.learn.space import FREE, Choices, Space, around, cost_of

OPS = ("mbconv", "fused", "attention", "xca")
DOWNS = ("inside", "local", "global", "local-global")


@pytest.mark.parametrize(
    ("space", "seed", "size"),
    [
        (around(POINTS["mn_xs"]), 2, 50),
        *((small(op=OPS, down=DOWNS), seed, size) for seed, size in ((0, 32), (1, 64))),
    ],
)
def test_a_cost_is_that_of_the_network_itself(space: Space, seed: int, size: int) -> None:
    network = space.draw(np.random.default_rng(seed))
    with torch.device("meta"):
        count = parameters(MetaNet(network, 7))
    assert cost_of(network, size, 7) == (macs(lambda: MetaNet(network, 7), 3, size, size), count)


def test_the_network_is_in_the_space_around_it() -> None:
    space = around(POINTS["mn_xs"])
    stages = tuple(replace(stage, head_dim=8) for stage in POINTS["mn_xs"].stages)
    space.check(replace(POINTS["mn_xs"], stages=stages))
    assert {stage.channels[-1] for stage in space.stages} == {16, 24, 48, 64, 128}


def test_a_space_counts_what_it_draws() -> None:
    space = small(op=("xca",), channels=(8,), down=("inside",))
    random = np.random.default_rng(0)
    assert len({space.draw(random) for _ in range(400)}) == space.count == 2**5


def test_every_operator_has_as_many_turns_as_the_others() -> None:
    space, random = around(POINTS["mn_xs"]), np.random.default_rng(0)
    group = space.fair(random)
    assert len(group) == 4
    for number, stage in enumerate(space.stages):
        for name in ("op", "down"):
            counts = Counter(getattr(each.stages[number], name) for each in group)
            assert set(counts.values()) == {4 // len(getattr(stage, name))}
    assert space.fair(random) != group


def test_children_are_of_their_parents() -> None:
    space, random = small(), np.random.default_rng(0)
    one, other = space.draw(random), space.draw(random)
    child = space.crossed(one, other, random)
    assert all(c in pair for c, *pair in zip(child.stages, one.stages, other.stages, strict=True))
    assert space.mutated(one, 1e-12, random) == one
    changed = Counter(_changes(one, space.mutated(one, 0.2, random)) for _ in range(300))
    # a choice of 20 is drawn anew at 0.2 and is another half of the time
    assert sum(n * times for n, times in changed.items()) / 300 == pytest.approx(2, abs=0.3)


def _changes(one: object, other: object) -> int:
    pairs = zip(one.stages, other.stages, strict=True)
    return sum(getattr(a, name) != getattr(b, name) for a, b in pairs for name in FREE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"op": ()}, "one or more different ones"),
        ({"down": ("inside", "inside")}, "one or more different ones"),
        ({"channels": (16, 8)}, "numbers that rise"),
        ({"channels": (8, 12)}, r"widths \[12\] given; multiples of head_dim 8"),
        ({"repeats": (0,)}, "repeats 0 given"),
    ],
)
def test_a_space_cannot_be_wrong(more: dict[str, object], message: str) -> None:
    with pytest.raises(BadModel, match=message):
        small(**more)


def test_what_is_not_of_the_space_is_told() -> None:
    space = small()
    inside = space.draw(np.random.default_rng(0))
    wide = (*inside.stages[:-1], replace(inside.stages[-1], channels=32))
    for network, message in (
        (replace(inside, stages=wide), "channels 32 of stage 4 given; the space has 8, 16"),
        (replace(inside, head=64), "another stem, head"),
        (POINTS["mn_xs"], "6 stages given; 5 are needed"),
    ):
        with pytest.raises(BadModel, match=message):
            space.check(network)


def test_strides_are_those_of_a_metanet() -> None:
    stages = small().stages[:-1]
    with pytest.raises(BadModel, match="32 must be there"):
        Space(stages, 8, 24, 8)
    assert Choices(("mbconv",), (1,), (8,), ("local",), 2, 2).down == ("local",)
