"""Adaptation: what each protocol changes, what chooses, and a folder that every command opens."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn.stopping import interruption
from torch import Tensor, nn

from roadworthy.cli import main
from roadworthy.core.boxes import Finish, candidates, chosen, head_of
from roadworthy.core.capture import capture
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.adapt import low_rank
from roadworthy.learn.adapt.adapted import AdaptedModel, open_adapted
from roadworthy.learn.adapt.fit import Adapted, Adapting, adapt, apart
from roadworthy.learn.adapt.neighbours import NeighbourHead, best_count
from roadworthy.learn.adapt.protocols import (
    Descending,
    Descent,
    Frozen,
    Full,
    Linear,
    LowRank,
    Neighbours,
    Staged,
)
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Source, Task
from roadworthy.learn.draws import chosen as chosen_images
from roadworthy.learn.expert import Job, head_config, learn_expert, lend, reopened
from roadworthy.learn.heads import decode
from roadworthy.learn.loop import Learner, train
from roadworthy.learn.machine import Machine
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import source
from roadworthy.learn.tasks import head_of as task_head

BODY = "metanet:mn_xs@random"
SHORT = Descent(steps=2, batch=4, rates=(1e-3, 1e-30))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of eleven classes that their colours tell apart, and their names."""
    folder = tmp_path_factory.mktemp("colours")
    labels = np.arange(33) % 11
    random = np.random.default_rng(0)
    x = random.integers(0, 20, (33, 32, 32, 3)) + 20 * labels[:, None, None, None]
    np.savez(folder / "a.npz", x=x.astype(np.uint8), y=labels)
    return folder / "a.npz"


@pytest.fixture(scope="module")
def coloured(archive: Path) -> Source:
    return source(f"npz:{archive}?x=x&y=y", "classification", 32)


def test_a_low_rank_change_begins_as_nothing_and_is_merged() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6, 4))
    before, x = deepcopy(net), torch.randn(2, 3, 3, 3)
    assert low_rank.add(net, 2) == 2
    assert torch.equal(net(x), before(x))
    learned = [each for each in net.parameters() if each.requires_grad]
    assert sorted(tuple(each.shape) for each in learned) == [(2, 6), (2, 8), (4, 2), (6, 2)]
    for each in learned:
        nn.init.normal_(each)
    changed = net(x)
    low_rank.merge(net)
    assert net.state_dict().keys() == before.state_dict().keys()
    torch.testing.assert_close(net(x), changed)
    change = net[3].get_parameter("weight") - before[3].get_parameter("weight")
    assert torch.linalg.matrix_rank(change.detach()) == 2


def test_neighbours_vote_as_a_loop_counts() -> None:
    torch.manual_seed(0)
    known, labels, asked = torch.randn(12, 5), torch.arange(12) % 3, torch.randn(4, 5)
    head = NeighbourHead(known, labels, 3, 4, 0.1)
    for row, said in zip(asked, head(asked).exp(), strict=True):
        near = torch.cosine_similarity(row[None], known)
        order = near.argsort(descending=True)[:4]
        votes = torch.zeros(3)
        for each in order:
            votes[labels[each]] += (near[each] / 0.1).exp()
        torch.testing.assert_close(said, (votes / votes.sum()).clamp(min=1e-6))
    assert best_count(known, labels, known, labels, (1, 12), 0.1)[0] == 1


def test_who_chooses_is_not_learned_from(coloured: Source) -> None:
    learned, held = apart(coloured, 0)
    assert len(held) == 11  # one of each class
    assert len(learned) + len(held) == len(coloured)
    both = torch.cat([learned.content.images, held.content.images])
    assert torch.equal(
        both.sum((1, 2, 3)).sort()[0], coloured.content.images.sum((1, 2, 3)).sort()[0]
    )
    few = apart(coloured, 0)[1]
    with pytest.raises(BadData, match="11 labelled images of as many classes given"):
        apart(few, 0)


PROTOCOLS = [Frozen(SHORT), LowRank(SHORT, rank=2), Full(SHORT), Staged(SHORT)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_changes_what_it_says(
    tmp_path: Path, coloured: Source, protocol: Descending
) -> None:
    torch.manual_seed(3)
    start = backbone(BODY)
    torch.manual_seed(3)
    found = adapt(BODY, coloured, protocol, tmp_path, seed=3, machine=Machine("cpu"))
    after, before = found.body.state_dict(), start.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    norms = {name for name in before if name.endswith(("running_mean", "running_var"))}
    match protocol:
        case Frozen():
            assert not changed
        case LowRank():
            assert changed
            assert not changed & norms
            assert all(before[name].ndim in (2, 4) for name in changed)
        case Full() | Staged():
            assert norms <= changed
    assert found.chosen == 1e-3
    assert found.compute.images == 3 * 2 * 4  # two trials and the last run


def staged(coloured: Source, out: Path) -> Adapted:
    three = Staged(Descent(steps=3, batch=4, rates=(1e-3, 1e-30)))
    return adapt(BODY, coloured, three, out, seed=3, machine=Machine("cpu"))


def model_of(stage: Path) -> dict[str, Tensor]:
    return torch.load(stage / "state.pt", weights_only=True)["model"]


def test_stages_learn_the_head_then_everything_from_there(
    tmp_path: Path, coloured: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[dict[str, Tensor], list[bool], Plan]] = []

    def noted(learner: Learner, feeds: Any, plan: Plan, *rest: Any) -> Any:
        state = {name: each.clone() for name, each in learner.state_dict().items()}
        begun.append((state, [each.requires_grad for each in learner.parameters()], plan))
        return train(learner, feeds, plan, *rest)

    monkeypatch.setattr("roadworthy.learn.adapt.fit.train", noted)
    staged(coloured, tmp_path)
    (_, learned, first), (start, everything, second) = begun[-2:]
    assert (sum(learned), all(everything)) == (2, True)  # weight and bias of the head
    assert (first.steps, second.steps) == (1, 2)
    orders = [chosen_images(each, 0, 0, len(coloured)).tolist() for each in (first, second)]
    assert orders[0] != orders[1]
    left = model_of(tmp_path / "all/frozen")
    assert left.keys() == start.keys()
    assert all(torch.equal(left[name], each) for name, each in start.items())


def test_every_protocol_begins_with_the_same_head(coloured: Source) -> None:
    heads: list[Tensor] = []
    for protocol in (Frozen(SHORT), LowRank(SHORT), Full(SHORT)):
        torch.manual_seed(0)
        learner = Adapting(backbone(BODY), coloured, protocol)
        heads.append(learner.headed.heads[0].get_parameter("linear.weight"))
    assert all(torch.equal(each, heads[0]) for each in heads)


def test_a_head_begins_as_the_one_that_the_stage_has(tmp_path: Path) -> None:
    streets = source("scenes:0-6", "detection", 32)
    stage = tmp_path / "stage"
    learn_expert(BODY, [streets], Job(stage, Plan(steps=1, batch=2), Machine("cpu")))
    known = reopened(stage).heads[0].state_dict()
    still = Frozen(Descent(steps=1, batch=2, rates=(1e-30,)))
    others = replace(streets, classes=streets.classes[::-1])
    numbers = replace(streets, classes=tuple(map(str, range(len(streets.classes)))))
    layer = {"classes.weight", "classes.bias"}
    for name, shown, anew in (("same", streets, set()), ("other", others, layer)):
        found = adapt(str(stage), shown, still, tmp_path / name, machine=Machine("cpu"))
        begun = found.head.state_dict()
        assert {n for n, each in known.items() if not torch.allclose(each, begun[n])} == anew
        assert found.lent
    head = task_head("detection", backbone(BODY), len(numbers.classes))
    learn_expert(BODY, [numbers], Job(tmp_path / "numbers", Plan(steps=1, batch=2), Machine("cpu")))
    drawn = head.get_parameter("classes.weight").clone()
    assert lend(head, head_config(numbers), tmp_path / "numbers")
    assert torch.equal(head.get_parameter("classes.weight"), drawn)  # numbers name no class
    room = source("scenes:0-6", "depth", 32)
    assert not adapt(str(stage), room, still, tmp_path / "room", machine=Machine("cpu")).lent


def test_stages_go_on_where_they_were_interrupted(tmp_path: Path, coloured: Source) -> None:
    whole = staged(coloured, tmp_path / "whole")
    head = tmp_path / "part/rate-0.001/frozen/state.pt"
    with interruption(1):  # of the second stage: the first has step 0 alone
        staged(coloured, tmp_path / "part")
    before = head.stat().st_mtime_ns
    part = staged(coloured, tmp_path / "part")
    assert head.stat().st_mtime_ns == before
    again = part.body.state_dict() | part.head.state_dict()
    known = whole.body.state_dict() | whole.head.state_dict()
    assert all(torch.equal(again[name], each) for name, each in known.items())
    assert part.compute.images == whole.compute.images == 3 * 3 * 4


def test_a_rate_that_breaks_is_not_chosen(tmp_path: Path, coloured: Source) -> None:
    wild = Full(Descent(steps=3, batch=4, rates=(1e30, 1e-3)))
    found = adapt(BODY, coloured, wild, tmp_path, machine=Machine("cpu"))
    assert found.chosen == 1e-3
    assert found.trials[1e30] is None


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation", "depth"])
def test_a_rate_after_which_no_number_is_left_is_not_chosen(tmp_path: Path, task: Task) -> None:
    wild = Full(Descent(steps=1, batch=2, rates=(1e30, 1e-3)))
    found = adapt(BODY, source("scenes:0-24", task, 32), wild, tmp_path, machine=Machine("cpu"))
    assert found.chosen == 1e-3
    assert found.trials[1e30] is None


def test_a_rate_is_chosen_by_images_that_say_something(tmp_path: Path) -> None:
    rooms = source("scenes:0-12", "depth", 32)
    assert rooms.content.depth is not None
    rooms.content.depth[1:] = float("nan")
    two = Frozen(Descent(steps=1, batch=2, rates=(1e-3, 2e-3)))
    with pytest.raises(BadData, match="have no depth to"):
        adapt(BODY, rooms, two, tmp_path, machine=Machine("cpu"))
    one = Frozen(Descent(steps=1, batch=2, rates=(1e-3,)))
    assert adapt(BODY, rooms, one, tmp_path, machine=Machine("cpu")).trials == {}


def test_one_rate_needs_no_trial(tmp_path: Path, coloured: Source) -> None:
    one = Full(Descent(steps=3, batch=4, rates=(1e-3,)))
    found = adapt(BODY, coloured, one, tmp_path, machine=Machine("cpu"))
    assert (found.chosen, found.trials, found.compute.images) == (1e-3, {}, 3 * 4)


def test_features_are_computed_once(
    tmp_path: Path, coloured: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adapt(BODY, coloured, Linear(), tmp_path, cache=tmp_path / "kept")
    monkeypatch.setattr("roadworthy.learn.probe.rows_of", None)
    again = adapt(BODY, coloured, Linear(), tmp_path, cache=tmp_path / "kept")
    assert first.trials == again.trials
    with pytest.raises(TypeError):
        adapt(BODY, coloured, Linear(), tmp_path, seed=1, cache=tmp_path / "kept")


@pytest.mark.filterwarnings("ignore:.*also stand among")
@pytest.mark.parametrize("protocol", ["knn", "linear", "frozen", "staged"])
def test_the_folder_answers_as_it_was_judged(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    spec, out = f"npz:{archive}?x=x&y=y", tmp_path / "out"
    how = ["--protocol", protocol, "--steps", "2", "--batch-size", "4", "--rates", "0.001"]
    sets = ["--task", "classification", "--data", spec, "--test", spec, "--fraction", "0.7"]
    rest = ["--size", "32", "--out", str(out), "--device", "cpu", "--json"]
    assert main(["adapt", BODY, *sets, *how, *rest]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["data"]["labelled"]["n"] == 22
    assert said["spec"] == f"py:{out / 'model.py'}:build"
    assert main(["evaluate", said["spec"], "--data", spec, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == said["value"]
    model, images = open_adapted(out), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(capture(model, images)(images), model(images))


@pytest.mark.parametrize("classes", [2, 5])
def test_boxes_are_answered_as_the_head_decodes_them(classes: int) -> None:
    torch.manual_seed(0)
    body = backbone(BODY).eval()
    head = task_head("detection", body, classes).eval()
    nn.init.normal_(head.get_parameter("classes.weight"), std=0.5)
    nn.init.zeros_(head.get_parameter("classes.bias"))
    images = torch.randn(1, 3, 64, 64)
    model = AdaptedModel(body, head, "detection", 64)
    with torch.no_grad():
        outputs = model(images)
        logits, places = head(body.forward_features(images))
        (wanted,) = decode(logits, places, (64, 64), least=0.3)
    assert head_of(outputs) == "xyxy-shares"
    (boxes,) = candidates("xyxy-shares", outputs)
    found: Tensor = boxes[chosen(boxes, Finish(nms=0.5, least=0.3))]
    torch.testing.assert_close(found[:, :4], wanted["boxes"])
    torch.testing.assert_close(found[:, 4], wanted["scores"])
    assert found[:, 5].tolist() == wanted["labels"].tolist()


def test_what_a_task_has_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], coloured: Source
) -> None:
    streets = source("scenes:0-6", "depth", 32)
    with pytest.raises(BadInput, match="neighbours of depth given"):
        adapt(BODY, streets, Neighbours(), tmp_path)
    with pytest.raises(BadData, match="4 labelled images given"):
        adapt(BODY, source("scenes:0-4", "depth", 32), Linear(), tmp_path)
    with pytest.raises(BadInput, match="no rate given"):
        Descent(rates=())
    with pytest.raises(BadInput, match="rank 0 given"):
        LowRank(rank=0)
    for kind in (Full, Staged):
        with pytest.raises(BadInput, match="batch 1 given; norms of a batch take 2"):
            kind(Descent(batch=1))
    with pytest.raises(BadInput, match="steps 1 given; two stages take 2"):
        Staged(Descent(steps=1))
    out = tmp_path / "out"
    words = ["--data", "scenes:0-6", "--task", "detection", "--size", "32", "--out", str(out)]
    assert main(["adapt", BODY, *words, "--fraction", "1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "a linear probe of detection given" in said[0]
    assert not out.exists()


@pytest.mark.parametrize("protocol", ["knn", "linear", "frozen", "staged"])
def test_a_backbone_of_a_fixed_size_says_which(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    words = ["--data", f"npz:{archive}?x=x&y=y", "--task", "classification", "--fraction", "1"]
    rest = ["--size", "32", "--protocol", protocol, "--device", "cpu", "--out", str(tmp_path / "o")]
    assert main(["adapt", "timm:vit_tiny_patch16_224@random", *words, *rest]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "32 pixels a side given, which VisionTransformer cannot be shown" in said[0]
    assert said[0].endswith("give --size 224")


def test_boxes_need_a_backbone_that_hands_out_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "scenes:0-6", "--task", "detection", "--fraction", "1", "--device", "cpu"]
    given = [*words, "--protocol", "frozen", "--out", str(tmp_path / "out")]
    assert main(["adapt", "torchvision:resnet18@random", *given]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "hands out no maps; metanet:NAME and models of timm" in said[0]
    vit = backbone("timm:vit_tiny_patch16_224@random")  # its only stride stands in for all four
    maps = vit.forward_features(torch.zeros(1, 3, 224, 224))
    assert task_head("detection", vit, 3)(maps)[0].shape == (1, 56**2 + 28**2 + 14**2 + 7**2, 3)
