"""The loop of every stage: one learner, many sources, one machine or several.

The sources' order, the images of a batch and their views are functions of seed and step, and are
drawn for all ranks together; each rank takes its part. So a run resumes exactly, and processes that
share a batch learn what one process does.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadworthy.core.memory import keep_freed_memory
from roadworthy.core.sources import reason
from roadworthy.errors import BadInput, RoadworthyError
from roadworthy.learn.batches import Augmentation, Batch, Source, draw_views, see
from roadworthy.learn.captions import Captioned, Tokens
from roadworthy.learn.draws import chosen, order, seed_of, visits
from roadworthy.learn.journal import Journal
from roadworthy.learn.machine import Machine
from roadworthy.learn.norms import share_norms
from roadworthy.learn.plan import Plan, rate_at
from roadworthy.learn.ranks import company

STATE = "state.pt"


class Learner(nn.Module, ABC):
    """What the loop trains; a stage says what its loss is."""

    @abstractmethod
    def forward(self, tensors: dict[str, Tensor], source: int) -> dict[str, Tensor]:
        """The parts of the loss of a batch (its `Batch.tensors()`), their sum under ``loss``."""


@dataclass(frozen=True)
class Feed:
    """A source and how it is learned from.

    Args:
        how: the views that are taken of its images.
        weight: how often it is drawn, beside what its size says.
        tokens: its captions; with them each image is seen twice.
    """

    source: Source | Captioned
    how: Augmentation = field(default_factory=Augmentation)
    weight: float = 1.0
    tokens: Tokens | None = None

    def batch(
        self, plan: Plan, step: int, numbers: Any, part: slice, device: torch.device
    ) -> Batch:
        """One rank's part of the images `numbers`, each in a view of its own."""
        random = torch.Generator().manual_seed(seed_of(plan, step) >> 1)
        views = draw_views(len(numbers), self.how, random).part(part).to(device)
        at = torch.from_numpy(numbers)[part]
        stored = self.source.content[at.to(self.source.content.images.device)].to(device)
        seen = replace(see(stored, views), numbers=at.to(device))
        if self.tokens is None:
            return seen
        views = draw_views(len(numbers), self.how, random).part(part).to(device)
        again = see(Batch(stored.images), views).images
        texts = self.tokens.drawn(numbers, part, random)
        return replace(seen, again=again, **{name: x.to(device) for name, x in texts.items()})


@dataclass(frozen=True)
class Compute:
    """What learning has cost so far."""

    images: int = 0
    macs: int = 0
    """Multiply-accumulates of forward and backward passes."""
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    def plus(self, **more: float) -> "Compute":
        """With more of it."""
        return Compute(**{k: v + type(v)(more.get(k, 0)) for k, v in asdict(self).items()})


@dataclass(frozen=True, eq=False)
class Trained:
    """A learner that has learned, on the CPU in eval mode.

    Args:
        first: whether this is the rank that writes files.
    """

    learner: Learner
    compute: Compute
    first: bool


def train(
    learner: Learner,
    feeds: Sequence[Feed],
    plan: Plan,
    out: Path,
    machine: Machine | None = None,
    resume: bool = True,
) -> Trained:
    """Train `learner`, in place where it is not sharded, and say what it cost.

    ``out/log.jsonl`` and ``out/tensorboard`` tell how it went; ``out/state.pt`` is where the same
    call goes on after an interruption, to the same weights.

    Raises:
        RoadworthyError: the loss is no number; its batch is in ``out/bad_batch.pt``.
        BadInput: `out` holds the state of another run, or as `share_norms` says.
    """
    keep_freed_memory()
    machine = machine or Machine()
    _check(feeds, plan, machine.world)
    fabric = machine.fabric()
    whole = deepcopy(learner) if machine.sharded else learner
    share_norms(learner)
    with company(out):
        run = _Run(fabric, learner, feeds, plan, out, machine.sharded)
        run.restore(resume)
        run.go()
    if machine.sharded:  # the weights lie in pieces on the ranks, and whole in the file
        whole.load_state_dict(_held(out / STATE)["model"])
    whole = whole.cpu().to(memory_format=torch.contiguous_format)
    return Trained(whole.eval(), run.compute, first=fabric.global_rank == 0)


def _check(feeds: Sequence[Feed], plan: Plan, ranks: int) -> None:
    if plan.batch % ranks:
        raise BadInput(f"batch {plan.batch} given; a multiple of {ranks} ranks is needed")
    sides = sorted({feed.source.content.side for feed in feeds})
    if len(sides) > 1:
        raise BadInput(f"sources of {sides} pixels a side given; the same for all is needed")


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        fabric: Any,
        learner: Learner,
        feeds: Sequence[Feed],
        plan: Plan,
        out: Path,
        sharded: bool,
    ) -> None:
        self.fabric, self.learner, self.plan, self.out = fabric, learner, plan, out
        self.sharded = sharded
        device = fabric.device
        self.macs = [macs_of(learner, feed, n, plan, device) for n, feed in enumerate(feeds)]
        self.identity = {**_identity(learner, feeds, plan), "sharded": sharded}
        self.feeds = _near(feeds, device)
        if not sharded:  # FSDP takes weights in their plain layout alone
            learner.to(memory_format=torch.channels_last)
        model = fabric.setup_module(learner)
        self.model, self.optimizer = model, fabric.setup_optimizers(_adamw(model, plan))
        self.compute, self.step = Compute(), 0

    def restore(self, resume: bool) -> None:
        path = self.out / STATE
        held: dict[str, Any] = {"step": 0}
        if resume and path.is_file():
            held = _held(path)
        first = self.fabric.broadcast(held["step"])
        if held["step"] != first:
            raise BadInput(
                f"{path} is at step {held['step']} here and at step {first} where the first "
                "process runs; give an --out that all of them share"
            )
        if not first:
            return
        if held["identity"] != self.identity:
            raise BadInput(
                f"{path} is the state of another run; give the same backbones and options, another "
                "--out, or remove it"
            )
        state = {"model": self.model, "optimizer": self.optimizer}
        rest = self.fabric.load(path, state, strict=not self.sharded, weights_only=True)
        if self.sharded:  # where nothing was held, loading has made it up
            known = held["optimizer"]["state"]
            for name, each in self.learner.named_parameters():
                if name not in known:
                    self.optimizer.state.pop(each, None)
        self.step, self.compute = rest["step"], Compute(**rest["compute"])

    def go(self) -> None:
        share = self.plan.batch // self.fabric.world_size
        part = slice(share * self.fabric.global_rank, share * (self.fabric.global_rank + 1))
        sources = order(
            self.plan,
            [len(feed.source) for feed in self.feeds],
            [feed.weight for feed in self.feeds],
        )
        visit = visits(sources)
        journal = Journal(self.out, self.plan.steps, self.step, active=self.fabric.global_rank == 0)
        self.model.train()
        clocks, waiting = _clocks(), None
        while self.step < self.plan.steps:
            source = int(sources[self.step])
            feed = self.feeds[source]
            numbers = chosen(self.plan, source, int(visit[self.step]), len(feed.source))
            batch = feed.batch(self.plan, self.step, numbers, part, self.fabric.device)
            parts = self.update(batch, source)
            self.tell(journal, waiting)
            waiting = (self.step, source, batch, parts)
            self.step += 1
            if self.step % self.plan.every == 0 or self.step == self.plan.steps:
                self.tell(journal, waiting)
                waiting = None
                clocks = self.clock(clocks)
                self.save()
        journal.close()

    def update(self, batch: Batch, source: int) -> dict[str, Tensor]:
        torch.manual_seed(seed_of(self.plan, self.step, 1 + self.fabric.global_rank) >> 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, self.plan)
        parts = self.model(batch.tensors(), source)
        self.fabric.backward(parts["loss"])
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.plan.clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.compute = self.compute.plus(
            images=self.plan.batch, macs=self.macs[source] * self.plan.batch
        )
        return {name: each.detach() for name, each in parts.items()}

    def tell(
        self, journal: Journal, done: tuple[int, int, Batch, dict[str, Tensor]] | None
    ) -> None:
        """Look at a step when the next one is under way: a GPU is not kept waiting."""
        if done is None:
            return
        step, source, batch, parts = done
        names = sorted(parts)
        values = torch.stack([parts[name].float() for name in names])
        shared = self.fabric.all_reduce(values, reduce_op="mean").tolist()
        numbers = dict(zip(names, shared, strict=True))
        if not all(value == value and abs(value) != float("inf") for value in shared):
            self.stop(step, source, batch, numbers)
        seen = self.feeds[source].source
        told = {"task": seen.task, "source": seen.name, "rate": rate_at(step, self.plan)}
        journal.tell(step, self.plan.batch, {**told, **numbers})

    def stop(self, step: int, source: int, batch: Batch, numbers: dict[str, float]) -> None:
        path = self.out / f"bad_batch{self.fabric.global_rank or ''}.pt"
        torch.save(
            {"step": step, "source": source, **batch.to(torch.device("cpu")).tensors()}, path
        )
        raise RoadworthyError(
            f"the loss at step {step} is no finite number ({numbers}); its batch, of "
            f"{self.feeds[source].source.name}, is in {path}: look at it, or lower the rate "
            f"{self.plan.rate}"
        )

    def clock(self, before: tuple[float, float]) -> tuple[float, float]:
        now = _clocks()
        wall, cpu = now[0] - before[0], now[1] - before[1]
        ranks = self.fabric.world_size
        gpu = ranks * wall if self.fabric.device.type == "cuda" else 0.0
        self.compute = self.compute.plus(
            wall_seconds=wall, cpu_seconds=ranks * cpu, gpu_seconds=gpu
        )
        return now

    def save(self) -> None:
        """Put the state in place whole: a kill leaves the old one."""
        temporary = self.out / f".{STATE}"
        state = {
            "model": self.model,
            "optimizer": self.optimizer,
            "step": self.step,
            "compute": asdict(self.compute),
            "identity": self.identity,
        }
        self.fabric.save(temporary, state)
        if self.fabric.global_rank == 0:
            temporary.replace(self.out / STATE)
        self.fabric.barrier()


def _adamw(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": plan.decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=plan.rate, fused=True)


def _near(feeds: Sequence[Feed], device: torch.device) -> list[Feed]:
    """The feeds with their images on the device, where they take less than half of its memory."""
    if device.type != "cuda":
        return list(feeds)
    need = sum(e.nbytes for feed in feeds for e in feed.source.content.tensors().values())
    if need > torch.cuda.mem_get_info(device)[0] / 2:
        return list(feeds)
    return [replace(feed, source=_moved(feed.source, device)) for feed in feeds]


def _moved(source: Source | Captioned, device: torch.device) -> Source | Captioned:
    return replace(source, content=source.content.to(device))


def _identity(learner: nn.Module, feeds: Sequence[Feed], plan: Plan) -> dict[str, Any]:
    """What must be the same for a run to go on; a learner's `extra_repr` is its settings."""
    shapes = {name: list(each.shape) for name, each in learner.state_dict().items()}
    said = [[feed.source.sha256, asdict(feed.how), feed.weight] for feed in feeds]
    how = [learner.extra_repr(), _weights(learner)]
    return {"plan": asdict(plan), "shapes": shapes, "feeds": said, "learner": how}


def _weights(learner: nn.Module) -> str:
    """Hash of what the run begins with, and of what stays so: teachers, auxiliaries."""
    digest = hashlib.sha256()
    for each in learner.parameters():
        digest.update(each.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _held(path: Path) -> dict[str, Any]:
    """What a state file holds, read where it is looked at."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        assert {"step", "identity", "model"} <= held.keys()
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise BadInput(f"{path} is damaged: {reason(error)}; remove it to begin anew") from error
    return held


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def macs_of(learner: Learner, feed: Feed, number: int, plan: Plan, device: torch.device) -> int:
    """Multiply-accumulates of forward and backward for one image of a feed."""
    from torch.utils.flop_counter import FlopCounterMode

    images = 2
    numbers = chosen(plan, number, 0, len(feed.source))[:images]
    while len(numbers) < images:
        numbers = numbers.repeat(images)
    batch = feed.batch(plan, 0, numbers, slice(0, images), device)
    trial = deepcopy(learner).to(device).train()
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        trial(batch.tensors(), number)["loss"].backward()
    return counter.get_total_flops() // 2 // images
