"""A generalist says at first what its experts say, resumes exactly, and is reopened as it was."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learn.stopping import interruption
from torch import Tensor

from roadworthy.core.models import load_model
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.backbones import Generalist, backbone
from roadworthy.learn.batches import Source, Task, see_whole
from roadworthy.learn.distill import distill
from roadworthy.learn.expert import Headed, Job, learn_expert, reopened, written
from roadworthy.learn.generalist import begun, learn_generalist
from roadworthy.learn.holding import hold
from roadworthy.learn.loop import Compute, Machine, Trained
from roadworthy.learn.plan import Plan
from roadworthy.learn.scenes import CLASSES, OBJECTS, scenes
from roadworthy.learn.tasks import AUGMENTATIONS, answer, held_out_loss, read

XS = "metanet:mn_xs@random"
PLAN = Plan(steps=3, batch=4, every=2)
CPU = Machine("cpu")


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Four scenes as four tasks."""
    samples = list(scenes(range(4), 64))
    classes: dict[Task, tuple[str, ...]] = {"detection": OBJECTS, "segmentation": CLASSES}
    return [hold(samples, task, 64, classes.get(task, ())) for task in AUGMENTATIONS]


@pytest.fixture(scope="module")
def experts(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What stages of no step at all have written."""
    out = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    for each in sources:
        (out / each.task).mkdir()
        new = Trained(Headed(backbone(XS), [each]).eval(), Compute(images=4), first=True)
        written(new, ("expert", XS), [each], Job(out / each.task, PLAN, CPU), [])
    return [out / each.task for each in sources]


@pytest.fixture(scope="module")
def distilled(done: Path, sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stage") / "distilled"
    distill(str(done), XS, sources[:2], Job(out, Plan(steps=2, batch=4), CPU, held_out=sources[:2]))
    return out


@pytest.fixture(scope="module")
def done(
    experts: list[Path], sources: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("stage") / "generalist"
    learn_generalist(
        experts[0], experts[1:2], sources[:2], Job(out, PLAN, CPU, held_out=sources[:2])
    )
    return out


def said(learner: Headed, number: int, images: Tensor) -> list[Tensor]:
    task = learner.says[number].task
    with torch.no_grad():
        found = answer(task, learner.heads[number], read(learner.backbone, task, images))
    return list(found) if isinstance(found, tuple) else [found]


def test_a_head_begins_as_the_best_of_several(experts: list[Path], sources: list[Source]) -> None:
    depth = sources[3:]
    three = [reopened(experts[number]) for number in (3, 3, 2)]
    torch.manual_seed(1)
    three[1] = Headed(three[1].backbone, depth)  # a head of its own that has learned nothing
    losses = [held_out_loss(each.backbone, each.heads[0], depth[0]) for each in three[:2]]
    better = losses.index(min(losses))
    images = see_whole(depth[0].content).images
    for choosing in (depth, ()):
        for order in ((0, 1), (1, 0)):
            both = [three[2], *(three[each] for each in order)]
            own = better if choosing else order[0]
            begins = begun(both, depth, choosing).eval()
            torch.testing.assert_close(said(begins, 0, images), said(three[own].eval(), 0, images))


@pytest.mark.parametrize(("main", "training"), [(1, True), (1, False), (0, True)])
def test_at_step_0_every_head_says_what_its_expert_says(
    experts: list[Path], sources: list[Source], main: int, training: bool
) -> None:
    order = [main, *(n for n in range(4) if n != main)]
    own = [reopened(experts[n]) for n in order]
    whole = begun([reopened(experts[n]) for n in order], [sources[n] for n in order])
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole.train(training)
    own[0].train(training)  # the others stay as they are
    for number, expert in enumerate(own):
        for ours, theirs in zip(said(whole, number, images), said(expert, 0, images), strict=True):
            assert torch.equal(ours, theirs)


def test_a_new_source_gets_a_new_head(experts: list[Path], sources: list[Source]) -> None:
    other = replace(sources[1], classes=OBJECTS[::-1])
    whole = begun([reopened(each) for each in experts[1:]], [sources[1], other])
    assert whole.head_for(other) is whole.heads[1]
    first, second = (head.pyramid.laterals[0][0].weight.detach() for head in whole.heads)
    own = whole.backbone.main.channels[0]
    assert float(first[:, own:].abs().max()) == 0 < float(second[:, own:].abs().min())


def test_it_is_reopened_as_it_was(done: Path, experts: list[Path], sources: list[Source]) -> None:
    learner = reopened(done)
    assert isinstance(learner.backbone, Generalist)
    auxiliary = backbone(str(experts[1])).state_dict()
    for name, each in learner.backbone.auxiliaries[0].state_dict().items():
        assert torch.equal(each, auxiliary[name])
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["stage"] == "generalist"
    assert [row["task"] for row in manifest["held_out"]] == [each.task for each in sources[:2]]
    assert [Path(each["folder"]) for each in manifest["parents"]] == experts[:2]
    assert manifest["total"]["images"] == 4 * (PLAN.steps + 2)


def test_it_is_a_backbone_for_the_next_stage(
    done: Path, sources: list[Source], tmp_path: Path
) -> None:
    learn_expert(str(done), sources[:1], Job(tmp_path, Plan(steps=1, batch=4), CPU))
    before, after = (backbone(str(each)).state_dict() for each in (done, tmp_path))
    changed = {k.split(".")[0] for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed == {"main", "transfers"}


def test_a_killed_run_goes_on_to_the_same_weights(
    done: Path, experts: list[Path], sources: list[Source], tmp_path: Path
) -> None:
    job = Job(tmp_path / "again", PLAN, CPU)
    with interruption(2):
        learn_generalist(experts[0], experts[1:2], sources[:2], job)
    learn_generalist(experts[0], experts[1:2], sources[:2], job)
    wanted = reopened(done).state_dict()
    found = reopened(job.out).state_dict()
    assert all(torch.equal(each, wanted[name]) for name, each in found.items())


def test_no_auxiliaries_are_told(
    experts: list[Path], sources: list[Source], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="0 auxiliaries and 4 sources given"):
        learn_generalist(experts[0], [], sources, Job(tmp_path, PLAN, CPU))
    assert not list(tmp_path.iterdir())


def altered(folder: Path, out: Path, **changes: object) -> Path:
    """A copy of a stage that says other things of itself, with the hash that goes with them."""
    from hashlib import sha256

    shutil.copytree(folder, out)
    config = json.dumps(json.loads((out / "config.json").read_text()) | changes)
    (out / "config.json").write_text(config)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["config.json"] = sha256(config.encode()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_experts_that_do_not_go_together_are_told(
    experts: list[Path], done: Path, sources: list[Source], tmp_path: Path
) -> None:
    larger = altered(experts[1], tmp_path / "larger", size=96)
    another = altered(experts[1], tmp_path / "another", architecture="metanet:mn_s@random")
    cut = altered(experts[1], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    for auxiliary, words in (
        (larger, "larger has learned from images of 96 pixels a side, .* of 64"),
        (another, r"model\.safetensors does not fit the model; keys .* missing"),
        (cut, r"model\.safetensors is not what manifest\.json says was written"),
        (done, "is a generalist itself; give the experts that it is made of"),
        (tmp_path, "is no finished stage"),
    ):
        with pytest.raises(BadModel, match=words):
            learn_generalist(experts[0], [auxiliary], sources, Job(tmp_path / "out", PLAN, CPU))
    assert not (tmp_path / "out").exists()


def test_another_auxiliary_is_no_continuation(
    done: Path, experts: list[Path], sources: list[Source], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(done, again)
    with pytest.raises(BadInput, match="state of another run"):
        learn_generalist(experts[0], experts[2:3], sources[:2], Job(again, PLAN, CPU))


def test_a_distilled_stage_is_one_ordinary_backbone(
    distilled: Path, done: Path, sources: list[Source]
) -> None:
    loaded = load_model(f"metanet:mn_xs@{distilled / 'model.safetensors'}")
    learner = reopened(distilled)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.module(images), learner.backbone(images))
    assert [each.task for each in learner.says] == [each.task for each in sources[:2]]
    assert all("adapters" not in name for name in learner.state_dict())
    manifest = json.loads((distilled / "manifest.json").read_text())
    assert manifest["stage"] == "distilled"
    assert [each["folder"] for each in manifest["parents"]] == [str(done)]
    assert [row["task"] for row in manifest["held_out"]] == [each.task for each in sources[:2]]
    row = json.loads((distilled / "log.jsonl").read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(row["features"] + row["answers"] + row["labels"], rel=1e-5)


def test_a_student_that_is_drawn_is_the_seeds(
    done: Path, sources: list[Source], tmp_path: Path
) -> None:
    job = Job(tmp_path / "out", Plan(steps=1, batch=4), CPU)
    torch.manual_seed(1)
    first = distill(str(done), XS, sources[:1], job)
    torch.manual_seed(2)  # another process; the same command goes on
    assert distill(str(done), XS, sources[:1], job)["files"] == first["files"]


def test_what_cannot_be_distilled_is_told(
    done: Path, sources: list[Source], tmp_path: Path
) -> None:
    job = Job(tmp_path / "out", PLAN, CPU)
    with pytest.raises(BadModel, match="is a generalist of several branches; give an expert"):
        distill(str(done), str(done), sources, job)
    with pytest.raises(BadInput, match="no source given"):
        distill(str(done), XS, [], job)
    with pytest.raises(BadInput, match=r"hints depth given, and .* has no head"):
        distill(str(done), XS, sources[:1], job, ["depth"])
    assert not job.out.exists()


def test_images_that_no_head_is_for_are_told_before_learning(
    experts: list[Path], sources: list[Source], tmp_path: Path
) -> None:
    begun, own = sources[:1], sources[1]
    job = Job(tmp_path / "out", PLAN, CPU)
    for other in (own, replace(sources[0], classes=sources[0].classes[::-1])):
        judged = replace(job, held_out=[*begun, other])
        words = re.escape(f"images {other.name} of {other.task} given")
        with pytest.raises(BadInput, match=f"held-out {words}"):
            learn_expert(XS, begun, judged)
        with pytest.raises(BadInput, match=f"held-out {words}"):
            distill(XS, XS, begun, judged)
        with pytest.raises(BadInput, match=f"held-out {words}"):
            learn_generalist(experts[0], experts[1:2], begun, judged)
        with pytest.raises(BadInput, match=f"choosing {words}"):
            learn_generalist(experts[0], experts[1:2], begun, job, choosing=[other])
    assert not job.out.exists()
