"""Two processes learn what one learns, say when the other is gone, and leave a whole state."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learn.stopping import interruption, stopped
from torch import Tensor, nn

from roadworthy.cli import main
from roadworthy.errors import RoadworthyError
from roadworthy.learn import contrastive as terms
from roadworthy.learn import loop
from roadworthy.learn.amateur import DeCLIP, learn_amateur
from roadworthy.learn.backbones import backbone
from roadworthy.learn.expert import Job, learn_expert
from roadworthy.learn.machine import Machine, Precision, Strategy
from roadworthy.learn.plan import Plan
from roadworthy.learn.ranks import gathered
from roadworthy.learn.scenes import CLASSES, OBJECTS
from roadworthy.learn.sources import captioned, source

XS = "metanet:mn_xs@random"
PLAN = Plan(steps=4, batch=4, every=2)


def expert(out: Path, strategy: Strategy = "ddp", precision: Precision = "32-true") -> None:
    """Two tasks, so that a head of each step has no gradient."""
    sources = [
        source("scenes:0-8", "detection", 32, OBJECTS),
        source("scenes:0-8", "segmentation", 32, CLASSES),
    ]
    learn_expert(XS, sources, Job(out, PLAN, Machine("cpu", precision, strategy)))


def amateur(out: Path) -> None:
    job = Job(out, PLAN, Machine("cpu"))
    learn_amateur(XS, [captioned("scenes:0-8", 32)], job, DeCLIP(queue=6))


class Pair(nn.Module):
    """Two towers and all terms that see other ranks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(5, 3), nn.Linear(5, 3)
        self.temperature = terms.Temperature()
        self.bias = nn.Parameter(torch.tensor(-3.0))
        self.queue = terms.TextQueue(16, 3)
        self.queue.push(terms.Texts(torch.randn(10, 3), torch.arange(10)))

    def forward(self, images: Tensor, texts: terms.Texts, gather: terms.Gather) -> Tensor:
        one, scale = self.image(images), self.temperature()
        said = terms.Texts(self.text(texts.features), texts.keys)
        again = terms.Texts(said.features - 1, said.keys)
        near = self.queue.nearest(said)
        return (
            terms.info_nce(one, said, scale, gather)
            + terms.siglip(one, said, scale, self.bias, gather)
            + terms.multi_view((one, one + 1), (said, again), scale, gather)
            + terms.nearest_neighbour((one, one * 2), near, scale, gather)
        )


def gradients(model: nn.Module, gather: terms.Gather, rows: slice) -> list[Tensor]:
    """The loss of some rows of a batch, and the gradient of each weight."""
    one, other = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(7))
    keys = torch.tensor([0, 1, 2, 0, 2, 5, 6, 7])  # equal ones on one rank and across ranks
    loss = model(one[rows], terms.Texts(other[rows], keys[rows]), gather)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def one_of_two(rank: int, port: int, out: Path) -> None:
    """What each of the processes does, told by the variables that torchrun sets."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "two",
    }
    torch.set_num_threads(1)
    amateur(out / "amateur")
    pair = nn.parallel.DistributedDataParallel(Pair())
    found = gradients(pair, gathered, slice(4 * rank, 4 * rank + 4))
    torch.save(found, out / f"gradients{rank}.pt")
    with interruption(3):
        expert(out / "fsdp", "fsdp")
    expert(out / "fsdp", "fsdp")
    if rank == 1:
        loop.rate_at = stopped(3, killed)
    with pytest.raises(RoadworthyError) as told:
        expert(out / "lost")
    (out / "told.txt").write_text(str(told.value))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["roadworthy.learn.amateur", "lightning_fabric"])
    ranks = [context.Process(target=one_of_two, args=(rank, port, out)) for rank in range(2)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(500)
    assert [each.exitcode for each in ranks] == [0, -signal.SIGKILL]
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process has left."""
    out = tmp_path_factory.mktemp("one")
    expert(out / "expert")
    amateur(out / "amateur")
    return out


def learned(folder: Path) -> Tensor:
    """All of the state in one row: weights of every part, what norms and the queue remember."""
    state = torch.load(folder / "state.pt", weights_only=True)["model"]
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def away(found: Path, wanted: Path) -> float:
    """How far weights are from those wanted, as a share of the way that was learned."""
    torch.manual_seed(PLAN.seed)
    first = backbone(XS).state_dict()
    states = [torch.load(f / "state.pt", weights_only=True)["model"] for f in (found, wanted)]
    names = [name for name in first if first[name].is_floating_point()]
    rows = [
        torch.cat([state[prefix + name].double().flatten() for name in names])
        for prefix, state in [("", first), *(("backbone.", each) for each in states)]
    ]
    start, here, there = rows
    return float((here - there).norm() / (there - start).norm())


def losses(folder: Path) -> list[float]:
    return [json.loads(row)["loss"] for row in (folder / "log.jsonl").read_text().splitlines()]


def test_terms_of_two_ranks_and_their_gradients_are_those_of_the_whole_batch(two: Path) -> None:
    one, other = (torch.load(two / f"gradients{rank}.pt") for rank in range(2))
    whole = gradients(Pair(), terms.alone, slice(0, 8))
    assert len(whole) == len(one) == 1 + 6
    torch.testing.assert_close((one[0] + other[0]) / 2, whole[0])
    for a, b, wanted in zip(one[1:], other[1:], whole[1:], strict=True):
        torch.testing.assert_close(a, wanted)
        torch.testing.assert_close(b, wanted)


@pytest.mark.parametrize(("name", "like"), [("amateur", "amateur"), ("fsdp", "expert")])
def test_two_processes_learn_what_one_learns(name: str, like: str, one: Path, two: Path) -> None:
    """Batch norms, rows of other ranks and the queue are those of the whole batch.

    The sharded one was interrupted and went on. Adam makes a whole step of a gradient that is
    nothing but rounding, so a weight in a hundred thousand may be elsewhere.
    """
    assert losses(two / name) == pytest.approx(losses(one / like), rel=1e-4)
    assert away(two / name, one / like) < 0.01
    close = torch.isclose(learned(two / name), learned(one / like), rtol=0.01, atol=1e-3)
    assert (~close).double().mean() <= 1e-5


def test_the_last_one_says_that_it_is_alone_in_one_line(two: Path) -> None:
    told = (two / "told.txt").read_text()
    assert told.startswith("another process of this run has stopped; what ")
    assert "\n" not in told


def test_what_a_killed_process_leaves_is_whole_and_one_process_goes_on(
    one: Path, two: Path
) -> None:
    """To where one process would have come, had it learned all of it."""
    assert torch.load(two / "lost" / "state.pt", weights_only=True)["step"] == 2
    expert(two / "lost")
    assert losses(two / "lost") == pytest.approx(losses(one / "expert"), rel=1e-4)
    assert away(two / "lost", one / "expert") < 0.01


def test_bfloat16_is_near_float32(one: Path, tmp_path: Path) -> None:
    expert(tmp_path, precision="bf16-mixed")
    found, wanted = losses(tmp_path), losses(one / "expert")
    assert found == pytest.approx(wanted, rel=0.02)
    assert found != wanted
    assert 0 < away(tmp_path, one / "expert") < 0.5
    kept = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    assert {each.dtype for each in kept.values()} == {torch.float32, torch.int64}


def test_torchrun_starts_the_command_and_one_process_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--source", "depth=scenes:0-8", "--held", "depth=scenes:8-10", "--size", "32"]
    command = ["learn", "expert", XS, *shown, "--batch-size", "4", "--steps", "2", "--json"]
    command += ["--device", "cpu", "--out"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    two = subprocess.run(
        [*launcher, "-m", "roadworthy", *command, str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert main([*command, str(tmp_path / "one")]) == 0
    found, wanted = (json.loads(each)["held_out"] for each in (two.stdout, capsys.readouterr().out))
    assert found[0]["value"] == pytest.approx(wanted[0]["value"], rel=1e-3)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
