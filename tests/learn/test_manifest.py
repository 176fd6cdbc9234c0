"""A stage's folder: what may begin with it, and that this never overwrites it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from roadworthy.adapting import adapt_to_dir
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.adapt.protocols import Linear
from roadworthy.learn.amateur import learn_amateur
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Source
from roadworthy.learn.distill import distill
from roadworthy.learn.expert import Headed, Job, learn_expert, reopened, written
from roadworthy.learn.generalist import learn_generalist
from roadworthy.learn.loop import Compute, Trained
from roadworthy.learn.machine import Machine
from roadworthy.learn.manifest import Made, StageConfig, read_manifest, write_stage
from roadworthy.learn.plan import Plan
from roadworthy.learn.sources import captioned, source
from roadworthy.learn_requests import AdaptRequest

XS = "metanet:mn_xs@random"
PLAN, CPU = Plan(steps=1, batch=2), Machine("cpu")


@pytest.fixture(scope="module")
def depth() -> Source:
    return source("scenes:0-4", "depth", 32)


@pytest.fixture
def stages(depth: Source, tmp_path: Path) -> tuple[Path, Path]:
    """Two experts that no step has changed, without a state to go on from."""
    folders = tmp_path / "one", tmp_path / "two"
    for each in folders:
        each.mkdir()
        new = Trained(Headed(backbone(XS), [depth]).eval(), Compute(), first=True)
        written(new, ("expert", XS), [depth], Job(each, PLAN, CPU), [])
    return folders


def adapted(model: Path, out: Path) -> None:
    adapt_to_dir(
        AdaptRequest(str(model), "scenes:0-8", "depth", out, Linear(), fraction=1.0, size=32)
    )


RUNS: dict[str, Callable[[Path, Path, Path, Source], object]] = {
    "begin": lambda a, b, out, depth: learn_expert(str(a), [depth], Job(out, PLAN, CPU)),
    "weights": lambda a, b, out, depth: learn_expert(
        f"{XS.removesuffix('random')}{a / 'model.safetensors'}", [depth], Job(out, PLAN, CPU)
    ),
    "amateur": lambda a, b, out, depth: learn_amateur(
        str(a), [captioned("scenes:0-4", 32)], Job(out, PLAN, CPU)
    ),
    "main": lambda a, b, out, depth: learn_generalist(a, [b], [depth], Job(out, PLAN, CPU)),
    "auxiliary": lambda a, b, out, depth: learn_generalist(b, [a], [depth], Job(out, PLAN, CPU)),
    "teacher": lambda a, b, out, depth: distill(str(a), XS, [depth], Job(out, PLAN, CPU)),
    "student": lambda a, b, out, depth: distill(str(b), str(a), [depth], Job(out, PLAN, CPU)),
    "backbone": lambda a, b, out, depth: adapted(a, out),
}


@pytest.mark.parametrize("role", RUNS)
def test_what_a_run_begins_with_is_no_folder_to_write_to(
    role: str, stages: tuple[Path, Path], depth: Source
) -> None:
    begun, other = stages
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(BadInput, match="which this run begins with and would overwrite"):
        RUNS[role](begun, other, begun.parent / "two" / ".." / "one", depth)
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_weights_of_ones_own_are_not_overwritten(
    stages: tuple[Path, Path], tmp_path: Path, depth: Source
) -> None:
    mine = tmp_path / "mine" / "model.safetensors"
    mine.parent.mkdir()
    mine.write_bytes((stages[0] / mine.name).read_bytes())
    with pytest.raises(BadInput, match="which this run begins with and would overwrite"):
        RUNS["weights"](mine.parent, stages[1], mine.parent, depth)


def test_a_finished_adaptation_is_not_replaced_by_another(
    stages: tuple[Path, Path], tmp_path: Path
) -> None:
    adapted(stages[0], tmp_path / "mine")
    adapted(stages[0], tmp_path / "mine")
    before = (tmp_path / "mine/model.safetensors").read_bytes()
    with pytest.raises(BadInput, match="holds a finished adaptation of another model; give a"):
        adapted(stages[1], tmp_path / "mine")
    assert (tmp_path / "mine/model.safetensors").read_bytes() == before


def test_parents_are_looked_at_before_anything_is_written(
    stages: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.save({}, stages[0] / "heads.safetensors")
    made = Made([stages[0]], [], None, Compute())
    with pytest.raises(BadModel, match=r"heads\.safetensors is not what manifest\.json says"):
        write_stage(stages[1], StageConfig("expert", XS, 32), nn.Conv2d(1, 1, 1), nn.Module(), made)
    assert read_manifest(stages[1])["stage"] == "expert"


def test_a_probe_leaves_no_head_to_go_on_from(stages: tuple[Path, Path], tmp_path: Path) -> None:
    adapted(stages[0], tmp_path / "probe")
    with pytest.raises(BadModel, match="was adapted by linear, which leaves no head to go on from"):
        reopened(tmp_path / "probe")
