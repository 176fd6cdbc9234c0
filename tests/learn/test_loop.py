"""A stage learns, goes on where it stood, says what it is, and stops when it cannot."""

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learn.stopping import interruption
from torch import Tensor

from roadworthy.errors import BadInput, BadModel, RoadworthyError
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Augmentation, Batch, Source, Task, draw_views, see, see_whole
from roadworthy.learn.expert import Headed, Job, learn_expert
from roadworthy.learn.holding import hold
from roadworthy.learn.loop import Feed, Machine, train
from roadworthy.learn.plan import Plan
from roadworthy.learn.sample import Sample
from roadworthy.learn.scenes import CLASSES, OBJECTS, render
from roadworthy.learn.sources import source

XS = "metanet:mn_xs@random"
PLAN = Plan(steps=5, batch=4, every=2)
CPU = Machine("cpu")


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Eight scenes as two tasks."""
    return [
        source("scenes:0-8", "detection", 64, OBJECTS),
        source("scenes:0-8", "segmentation", 64, CLASSES),
    ]


@pytest.fixture(scope="module")
def done(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stage") / "multitask"
    learn_expert(XS, sources, Job(out, PLAN, CPU, held_out=sources))
    return out


def weights(folder: Path) -> dict[str, Tensor]:
    return backbone(str(folder)).state_dict()


def test_a_killed_run_goes_on_to_the_same_weights(
    done: Path, sources: list[Source], tmp_path: Path
) -> None:
    job = Job(tmp_path / "again", PLAN, CPU)
    with interruption(3):
        learn_expert(XS, sources, job)
    told = learn_expert(XS, sources, job)
    assert told["compute"]["images"] == PLAN.steps * PLAN.batch
    wanted = weights(done)
    assert all(torch.equal(each, wanted[name]) for name, each in weights(job.out).items())
    rows = [json.loads(row) for row in (job.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(PLAN.steps))


def test_another_plan_is_no_continuation(done: Path, sources: list[Source]) -> None:
    with pytest.raises(BadInput, match="state of another run"):
        learn_expert(XS, sources, Job(done, Plan(steps=6, batch=4, every=2), CPU))


def test_another_backbone_of_the_same_shape_is_no_continuation(
    done: Path, sources: list[Source], tmp_path: Path
) -> None:
    job = Job(tmp_path / "child", PLAN, CPU)
    learn_expert(XS, sources[:1], job)
    with pytest.raises(BadInput, match="state of another run"):
        learn_expert(str(done), sources[:1], job)


def test_its_manifest_says_what_it_learned_from(done: Path, sources: list[Source]) -> None:
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["stage"] == "multitask"
    assert [each["sha256"] for each in manifest["data"]] == [each.sha256 for each in sources]
    assert manifest["compute"]["macs"] > 0
    assert [row["metric"] for row in manifest["held_out"]] == ["map50", "miou"]


def test_a_child_names_its_parent(done: Path, sources: list[Source], tmp_path: Path) -> None:
    told = learn_expert(str(done), sources[:1], Job(tmp_path / "child", PLAN, CPU))
    files = json.loads((done / "manifest.json").read_text())["files"]
    assert told["parents"][0]["sha256"] == files["model.safetensors"]
    assert told["total"]["images"] == 2 * PLAN.steps * PLAN.batch
    assert told["stage"] == "expert"


def test_a_file_that_was_cut_off_is_refused(done: Path, tmp_path: Path) -> None:
    for path in done.glob("*.*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    whole_file = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole_file[:-100])
    with pytest.raises(BadModel, match=r"model\.safetensors is not what manifest\.json says"):
        backbone(str(tmp_path))


def test_a_loss_that_is_no_number_stops_with_its_batch(
    sources: list[Source], tmp_path: Path
) -> None:
    learner = Headed(backbone(XS), sources[:1])
    with torch.no_grad():
        next(learner.parameters()).fill_(torch.nan)
    with pytest.raises(RoadworthyError, match="the loss at step 0 is no finite number"):
        train(learner, [Feed(sources[0])], PLAN, tmp_path, CPU)
    held = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert held["images"].shape == (PLAN.batch, 3, 64, 64)


def test_a_size_that_heads_cannot_read_is_refused() -> None:
    with pytest.raises(BadInput, match="50 pixels a side given; a multiple of 32 is needed"):
        source("scenes:0-2", "depth", 50)


def one_box(side: int = 32) -> Batch:
    """A box of class 1 on nothing, as picture, box, mask and depth."""
    mask = torch.zeros(1, side, side, dtype=torch.uint8)
    mask[:, 10:20, 8:24] = 1
    box = torch.tensor([[[8.0, 10.0, 24.0, 20.0]]])
    pixels = (mask * 255)[:, None].expand(1, 3, side, side)
    return Batch(pixels, None, box, torch.tensor([[0]]), mask, 1 + mask.float())


def test_a_whole_view_changes_nothing() -> None:
    held = one_box()
    seen = see_whole(held)
    for name in ("boxes", "box_labels", "masks", "depth"):
        torch.testing.assert_close(getattr(seen, name), getattr(held, name))
    still = Augmentation(crop=(1.0, 1.0), aspect=1.0, flip=0.0, colour=0.0)
    drawn = see(held, draw_views(1, still, torch.Generator()))
    for name in ("images", "boxes", "box_labels", "masks", "depth"):
        torch.testing.assert_close(getattr(seen, name), getattr(drawn, name), atol=1e-4, rtol=1e-4)
    tiny = replace(held, boxes=torch.tensor([[[8.0, 10.0, 8.5, 11.0]]]))
    assert see_whole(tiny).box_labels.tolist() == [[-1]]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_masks_go_where_the_pixels_go(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    seen = see(one_box(), draw_views(1, Augmentation(crop=(0.6, 1.0), colour=0.0), random))
    assert seen.masks is not None
    assert seen.boxes is not None
    rows, columns = np.nonzero(seen.masks[0].numpy() == 1)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(seen.boxes[0, 0].numpy() - extent).max() <= 1
    bright = seen.images[0, 0] > seen.images[0, 0].mean()
    assert float((bright == (seen.masks[0] == 1)).float().mean()) > 0.9


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation", "depth"])
def test_samples_are_held_one_at_a_time(task: Task) -> None:
    """Their files and full maps may be many times as large as what is held."""
    there: list[weakref.ref[Sample]] = []

    def shown() -> Iterator[Sample]:
        for number in range(6):
            assert sum(each() is not None for each in there) <= 1
            sample = render(number, 64)
            there.append(weakref.ref(sample))
            yield sample
            del sample

    known = {"detection": OBJECTS, "segmentation": CLASSES}
    names = tuple(dict.fromkeys(render(i, 64).labels[0] for i in range(6)))
    held = hold(shown(), task, 32, known.get(task, () if task == "depth" else names))
    assert len(held) == len(there) == 6
