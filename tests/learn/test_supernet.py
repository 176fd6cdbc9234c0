"""A supernet: each of its paths is exactly the network that is cut out of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learn.spaces import small
from torch import Tensor
from torch.nn import functional as F

from roadworthy.core.metanet import MetaNet, MetaNetConfig
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.space import Space
from roadworthy.learn.supernet import Judge, PathLearner, Supernet, calibrate, learn_supernet

OPS = ("mbconv", "fused", "attention", "xca")
DOWNS = ("inside", "local", "global", "local-global")


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """With no weight at zero, as after training."""
    torch.manual_seed(0)
    net = Supernet(small(op=OPS, down=DOWNS), num_classes=5)
    with torch.no_grad():
        for each in net.parameters():
            each += 0.1 * torch.randn_like(each)
    return net


def paths(space: Space, count: int) -> list[MetaNetConfig]:
    random = np.random.default_rng(0)
    return [path for _ in range(count) for path in space.fair(random)]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_path_is_the_network_that_is_cut_out(supernet: Supernet) -> None:
    for path in paths(supernet.space, 2):
        net = supernet.cut(path).train()
        assert net.config == path
        assert torch.equal(supernet(images(), path), net(images()))


def test_a_path_learns_what_the_network_would(supernet: Supernet) -> None:
    labels = torch.arange(4)
    for path in paths(supernet.space, 1):
        supernet.zero_grad()
        F.cross_entropy(supernet(images(), path), labels).backward()
        net = supernet.cut(path).train()
        F.cross_entropy(net(images()), labels).backward()
        asked = sum(float(p.grad.abs().sum()) for p in net.parameters())
        given = sum(float(p.grad.abs().sum()) for p in supernet.parameters() if p.grad is not None)
        assert given == pytest.approx(asked, rel=1e-5)
        grads = {name: p.grad for name, p in net.named_parameters()}
        shared = {k: supernet.shared[k].grad for k in supernet.shared if k.startswith("head/0")}
        width = path.stages[-1].channels
        torch.testing.assert_close(shared["head/0/weight"][:, :width], grads["head.0.weight"])


def test_a_cut_network_goes_its_own_way(supernet: Supernet) -> None:
    path = paths(supernet.space, 1)[0]
    before = supernet(images(), path)
    with torch.no_grad():
        for each in supernet.cut(path).parameters():
            each.zero_()
    assert torch.equal(supernet(images(), path), before)


def test_narrow_networks_are_the_first_heads_of_wide_ones(supernet: Supernet) -> None:
    """Queries are shared with queries, and keys with keys, though they lie in one matrix."""
    path = paths(supernet.space, 1)[0]
    row = [replace(s, op="attention", repeats=2, down="inside") for s in path.stages]
    nets = []
    for width in (8, 16):
        row[-1] = replace(row[-1], channels=width)
        nets.append(supernet.cut(replace(path, stages=tuple(row))))
    narrow, wide = (net.stages[-1][1].mixer.qkv.weight.unflatten(0, (3, -1)) for net in nets)
    assert narrow.shape == (3, 8, 8)
    assert torch.equal(wide[:, :8, :8], narrow)


def test_depths_share_and_operators_do_not(supernet: Supernet) -> None:
    path = paths(supernet.space, 1)[0]
    last = replace(path.stages[-1], op="xca", repeats=2, down="local")
    cuts = {
        each: supernet.cut(replace(path, stages=(*path.stages[:-1], each))).stages[-1]
        for each in (last, replace(last, repeats=1), replace(last, op="attention"))
    }
    deep, shallow, other = cuts.values()
    assert torch.equal(deep[1].mixer.qkv.weight, shallow[1].mixer.qkv.weight)
    assert not torch.equal(deep[1].mixer.qkv.weight, other[1].mixer.qkv.weight)
    assert torch.equal(deep[0].body[0].weight, other[0].body[0].weight)


def test_the_way_past_all_choices_is_one(supernet: Supernet) -> None:
    """Pool and 1x1 into a stage: the same weights whatever it is and however it is entered."""
    path = paths(supernet.space, 1)[0]
    first, second = (replace(s, channels=w) for s, w in zip(path.stages, (8, 16), strict=False))
    found = []
    for op, down in zip(OPS, DOWNS, strict=True):
        stages = (first, replace(second, op=op, down=down), *path.stages[2:])
        found.append(supernet.cut(replace(path, stages=stages)).stages[1][0].shortcut[1].weight)
    assert all(torch.equal(each, found[0]) for each in found)


def test_every_path_begins_as_a_new_network_does() -> None:
    """No path has a weight that no corner of the space has drawn."""
    supernet = Supernet(small(op=OPS, down=DOWNS), num_classes=5)
    for path in paths(supernet.space, 3):
        new = dict(MetaNet(path, 5).named_parameters())
        for name, each in supernet.cut(path).named_parameters():
            assert torch.equal(each == 0, new[name] == 0), name


def test_what_is_random_elsewhere_stays(supernet: Supernet) -> None:
    path = paths(supernet.space, 1)[0]
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    supernet(images(), path)
    supernet.cut(path)
    assert torch.equal(torch.rand(2), wanted)


def test_calibration_gives_the_mean_statistics_of_its_batches(supernet: Supernet) -> None:
    net = supernet.cut(paths(supernet.space, 1)[0])
    batches = [Batch(images(6)[:3] * 2 + 1), Batch(images(6)[3:])]
    with torch.no_grad():
        seen = [net.stem[0](batch.images) for batch in batches]
        after = [supernet(batch.images, net.config) for batch in batches]
    calibrate(net, batches)
    norm = net.stem[1]
    assert not net.training
    assert norm.momentum == 0.1
    mean = torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0)
    variance = torch.stack([each.var((0, 2, 3)) for each in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    calibrate(net, batches[:1])
    # a single batch normalises itself, but that the kept variance is the unbiased one
    assert F.cosine_similarity(net(batches[0].images), after[0]).min() > 0.9


def test_every_operator_learns_at_every_step() -> None:
    learner = PathLearner(Supernet(small(op=OPS, repeats=(1,), channels=(8,)), num_classes=5))
    learner({"images": images(), "labels": torch.arange(4)}, 0)["loss"].backward()
    keys = {name for name, each in learner.supernet.shared.items() if each.grad is not None}
    ops = {tuple(key.split("/")[:2]) for key in keys if key[0].isdigit()}
    assert {(str(stage), op) for stage in range(5) for op in OPS} <= ops


def noise(count: int) -> Source:
    pixels = torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    return Source(
        "noise", "classification", ("a", "b"), Batch(pixels.byte(), torch.arange(count) % 2)
    )


def test_it_learns_and_is_judged(tmp_path: Path) -> None:
    few, space = noise(8), small(repeats=(1,))
    plan = Plan(steps=2, batch=4)
    learned, compute = learn_supernet(space, few, plan, tmp_path, Machine("cpu"))
    state = {name: each.clone() for name, each in learned.state_dict().items()}
    torch.manual_seed(plan.seed)
    fresh = Supernet(space, 2).state_dict()
    assert any(not torch.equal(each, state[name]) for name, each in fresh.items())
    assert compute.images == 8
    judge = Judge(learned, few, few)
    path = paths(space, 1)[0]
    assert judge(path) == judge(path)
    assert judge(path) * 8 in range(9)
    assert all(torch.equal(each, state[name]) for name, each in learned.state_dict().items())


def test_what_does_not_fit_is_told(supernet: Supernet, tmp_path: Path) -> None:
    path = paths(supernet.space, 1)[0]
    with pytest.raises(BadModel, match="another stem"):
        supernet(images(), replace(path, stem=16))
    depth = replace(noise(2), task="depth")
    with pytest.raises(BadInput, match="a source of depth given; classification"):
        learn_supernet(supernet.space, depth, Plan(steps=1), tmp_path)
