"""A student that is its teacher has nothing to learn from it; any other has."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from roadworthy.learn.backbones import single
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.distill import Distilling, channels, five, spread, standardised
from roadworthy.learn.expert import Headed
from roadworthy.learn.holding import hold
from roadworthy.learn.mimic import answer_loss
from roadworthy.learn.scenes import OBJECTS, scenes

TASKS: tuple[Task, ...] = ("classification", "detection", "segmentation", "depth")


def said(task: Task, seed: int) -> Any:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, 3, generator=random)
    corners = torch.rand(2, 5, 4, generator=random).cumsum(2)[..., [0, 1, 2, 3]]
    return {
        "classification": x[:, :, 0],
        "detection": (x, corners),
        "segmentation": x[..., None],
        "depth": x[:, :1, :, None].exp(),
    }[task]


@pytest.mark.parametrize("task", TASKS)
def test_only_another_answer_costs(task: Task) -> None:
    own, other = said(task, 0), said(task, 1)
    assert float(answer_loss(task, own, own)) == pytest.approx(0, abs=1e-6)
    assert float(answer_loss(task, own, other)) > 0.1


@pytest.mark.parametrize("task", TASKS)
def test_halves_of_a_batch_weigh_as_the_whole(task: Task) -> None:
    own, other = said(task, 0), said(task, 1)

    def part(of: Any, at: slice) -> Any:
        return of[at] if isinstance(of, Tensor) else tuple(each[at] for each in of)

    halves = [
        answer_loss(task, part(own, at), part(other, at)) for at in (slice(0, 1), slice(1, 2))
    ]
    torch.testing.assert_close(answer_loss(task, own, other), sum(halves) / 2)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    samples = list(scenes(range(4), 64))
    return [
        hold(samples, "detection", 64, OBJECTS),
        hold(samples, "classification", 64, OBJECTS),
    ]


@pytest.fixture
def teacher(sources: list[Source]) -> Headed:
    torch.manual_seed(0)
    return Headed(single("metanet:mn_xs@random"), sources).eval()


def test_features_are_compared_in_units_of_their_spread(
    teacher: Headed, sources: list[Source]
) -> None:
    body = teacher.backbone
    known = spread(body, sources)
    assert [tuple(each.shape) for each in known] == [(2, c) for c in channels(body)]
    images = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        seen = five(body.forward_both(images))
    for x in seen:
        own = torch.stack([x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).std(1)])
        scaled = standardised(x, own)
        torch.testing.assert_close(
            scaled.mean((0, 2, 3)), torch.zeros(x.shape[1]), atol=1e-4, rtol=0
        )
        assert float(scaled.std()) == pytest.approx(1, abs=0.1)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(
    teacher: Headed, sources: list[Source]
) -> None:
    student = deepcopy(teacher)
    known = spread(teacher.backbone, sources)
    learner = Distilling(teacher, student, known)
    for adapter, (mean, deviation) in zip(learner.adapters, known, strict=True):
        scale = 1 / deviation.maximum(0.1 * deviation.mean())
        with torch.no_grad():
            adapter.weight.copy_(torch.diag(scale)[:, :, None, None])
            adapter.bias.copy_(-mean * scale)
    batch = {
        "images": torch.randn(2, 3, 64, 64),
        "labels": torch.tensor([0, 1]),
    }
    with torch.no_grad():
        parts = learner.eval()(batch, 1)
        next(student.parameters()).mul_(1.5)
        changed = learner(batch, 1)
    assert float(parts["features"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["answers"]) == pytest.approx(0, abs=1e-5)
    assert float(parts["labels"]) > 0.1
    assert float(changed["features"]) > 1e-3 < float(changed["answers"])


def test_no_gradient_reaches_the_teacher(teacher: Headed, sources: list[Source]) -> None:
    student = Headed(single("metanet:mn_xs@random"), sources)
    learner = Distilling(teacher, student, spread(teacher.backbone, sources)).train()
    assert not any(module.training for module in teacher.modules())
    learner({"images": torch.randn(2, 3, 64, 64), "labels": torch.tensor([0, 1])}, 1)[
        "loss"
    ].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)


def test_only_what_is_asked_of_the_teacher_is_learned(
    teacher: Headed, sources: list[Source]
) -> None:
    torch.manual_seed(1)
    student = Headed(single("metanet:mn_xs@random"), sources)
    batch = {"images": torch.randn(2, 3, 64, 64), "labels": torch.tensor([0, 1])}
    parts: dict[str, dict[str, float]] = {}
    every = ("features", "detection", "classification")
    for hints in (every, ("detection",), ("classification",), ("features",)):
        learner = Distilling(teacher, student, spread(teacher.backbone, sources), hints).eval()
        with torch.no_grad():
            parts[hints[0] if hints != every else "every"] = {
                name: float(each) for name, each in learner(batch, 1).items()
            }
    assert "features" not in parts["detection"]
    assert parts["features"].keys() == {"loss", "labels", "features"}
    assert parts["features"]["features"] > 0
    both = parts["detection"]["answers"] + parts["classification"]["answers"]
    assert parts["every"]["answers"] == pytest.approx(both, rel=1e-5)
    assert len({each["labels"] for each in parts.values()}) == 1
