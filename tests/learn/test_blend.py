"""How far a generalist goes from its experts: the start is never left for something worse."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from roadworthy.errors import BadInput
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Source
from roadworthy.learn.blend import SHARES, best, between, blend
from roadworthy.learn.expert import Headed, Job, learn_expert
from roadworthy.learn.generalist import learn_generalist
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import source
from roadworthy.learn.tasks import held_out_loss


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    return [source("scenes:0-12", task, 32) for task in ("segmentation", "depth")]


def test_the_ends_of_the_way_are_the_weights_themselves() -> None:
    start, end = nn.BatchNorm2d(3).state_dict(), nn.BatchNorm2d(3).state_dict()
    end["weight"] = torch.rand(3)
    end["num_batches_tracked"] = torch.tensor(7)
    for share, whose in ((0.0, start), (1.0, end)):
        for name in ("weight", "running_var"):
            assert torch.equal(between(start, end, share)[name], whose[name])
    assert between(start, end, 0.5)["num_batches_tracked"] == 7


def test_one_worse_task_outweighs_gains_of_others() -> None:
    gains = {0.0: (0.0, 0.0), 0.5: (0.0, 0.1), 1.0: (-0.001, 9.0)}
    assert best(gains) == 0.5


def test_ruined_weights_are_left(sources: list[Source]) -> None:
    torch.manual_seed(0)
    learner = Headed(backbone("metanet:mn_xs@random"), sources).eval()
    start = {name: each.clone() for name, each in learner.state_dict().items()}
    judges = [(learner.backbone, h, s) for h, s in zip(learner.heads, sources, strict=True)]
    before = [held_out_loss(*each) for each in judges]
    with torch.no_grad():
        for each in learner.parameters():
            each.mul_(-3)
    found = blend(learner, start, judges)
    assert set(found.gains) == set(SHARES)
    after = [held_out_loss(*each) for each in judges]
    assert all(now <= then for now, then in zip(after, before, strict=True))
    assert all(each >= 0 for each in found.gains[found.share])


def test_nothing_to_choose_by_is_told(sources: list[Source]) -> None:
    learner = Headed(backbone("metanet:mn_xs@random"), sources)
    with pytest.raises(BadInput, match="no images to choose by given"):
        blend(learner, learner.state_dict(), [])


def test_a_generalist_says_how_far_it_went(sources: list[Source], tmp_path: Path) -> None:
    plan, machine = Plan(steps=2, batch=4), Machine("cpu")
    for each in sources:
        learn_expert("metanet:mn_xs@random", [each], Job(tmp_path / each.task, plan, machine))
    main, other = (tmp_path / each.task for each in sources)
    job = Job(tmp_path / "all", plan, machine, held_out=sources)
    told = learn_generalist(main, [other], sources, job, choosing=sources)["blend"]
    assert told == json.loads((tmp_path / "all" / "manifest.json").read_text())["blend"]
    assert told["share"] in SHARES
    assert min(told["gains"][str(told["share"])]) >= 0
