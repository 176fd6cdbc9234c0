"""Quantization-aware fine-tuning: weights and the steps of activations learned by the task itself,
or, of sentence embeddings, by those of the float model.

Source: LSQ (arXiv 1902.08153) and LSQ+ (2004.09576), as in the last part of Outlier Suppression
(2209.13325). It starts where a method without training ends, on the same graph: outliers dealt
with, ranges found. What it leaves is frozen to integers like any other quantized model.
"""

import hashlib
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.engine import Run, Step, whole_model
from roadworthy.compress.freeze import freeze
from roadworthy.compress.goals import Labelled, apart, check_goal, judged, loss, scored
from roadworthy.compress.learn import quantizers
from roadworthy.compress.quantize import Compressed, Plan, facts_of, learn
from roadworthy.compress.rounding import Bias, Table, WeightQuantizer
from roadworthy.core.padding import by_length
from roadworthy.core.predict import Inputs
from roadworthy.errors import BadData, BadInput

POOL = 32
"""Batches whose texts are sorted by length together."""
BETWEEN = 10
"""Steps from one word about progress to the next."""


@dataclass(frozen=True)
class FineTune:
    """How it is learned: Adam, cosine to zero.

    Attributes:
        steps, batch_size: steps, and samples drawn for each.
        weight_lr, step_lr: of weights and embedding tables, in units of their steps, and of
            activations' steps and zero points, in units of the step and of the whole grid.
        bias_lr: of biases.
        distil: share of the loss that is the KL divergence from the float model's answers.
        checks: judgements on the held-out samples; the best weights are kept.
        patience: judgements without gain after which it ends.
    """

    steps: int = 1000
    batch_size: int = 32
    weight_lr: float = 2e-3
    step_lr: float = 1e-3
    bias_lr: float = 1e-4
    distil: float = 0.0
    checks: int = 5
    patience: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checks, self.patience) < 1:
            raise BadInput("steps, batch size, checks and patience of at least 1 are needed")
        for rate in (self.weight_lr, self.step_lr, self.bias_lr):
            if not 0 < rate < 1:
                raise BadInput(f"a rate of {rate} given; more than 0 and less than 1 is allowed")
        if not 0 <= self.distil <= 1:
            raise BadInput(f"a share {self.distil} of distillation given; 0 to 1 is allowed")


Told = Callable[[dict[str, float]], None]
"""Given the step, and what `judged` finds of the held-out samples."""


def fine_tune(
    graph: fx.GraphModule,
    inputs: Inputs,
    plan: Plan,
    run: Run,
    *,
    train: Labelled,
    held: Labelled,
    settings: FineTune,
    told: Told | None = None,
) -> Compressed:
    """Quantize a captured model by `plan` and learn on from there.

    A run that was killed goes on from its last judgement where ``run.finished`` keeps it.

    Args:
        graph: from `roadworthy.core.capture.capture`; not changed.
        inputs: calibration samples.
        plan: the method that is begun with; its passes run first.
        run: the seed of every random choice.
        train: samples learned from.
        held: samples that choose the weights kept.
        settings: how it is learned.
        told: called at each judgement.

    Raises:
        BadData: too few samples, or labels that are none of the model's classes.
        BadModel: the model answers something else than its samples have labels for.
    """
    _check(graph, (train, held), settings)
    learned = learn(graph, inputs, plan, run)
    standing = _Standing(whole_model(learned.task), settings)
    model, history = standing.model, [_row(0, standing.model, held)]
    name = f"fine-tuning-{_digest(plan, train, held, settings)}"
    known = run.finished.load(name, standing)
    history = known["history"] if known else history
    every = max(1, settings.steps // settings.checks)
    for step, rows in enumerate(_drawn(train.inputs, settings, run.seed), 1):
        if step <= history[-1]["step"]:
            continue
        loss = standing.learn(graph, train.at(rows), settings, (step - 1) / settings.steps)
        if run.progress is not None and step % BETWEEN == 0:
            done = step / settings.steps
            run.progress(Step("network", step, settings.steps, loss, len(plan.method.passes), done))
        if step % every:
            continue
        history.append(_row(step, model, held))
        if told is not None:
            told(history[-1])
        best = min(range(len(history)), key=lambda i: history[i]["loss"])
        if best == len(history) - 1:
            standing.keep()
        run.finished.save(name, standing, {"history": history})
        if len(history) - 1 - best >= settings.patience:
            break
    model.load_state_dict(standing.best.state_dict())
    _end(model)
    tuned = {"settings": asdict(settings), "judged": history}
    return Compressed(freeze(model), {**facts_of(learned), "fine_tuning": tuned}, plan.method)


def _check(graph: fx.GraphModule, sets: tuple[Labelled, Labelled], settings: FineTune) -> None:
    """BadData where a set cannot teach or judge, and what `check_goal` raises."""
    for samples, needed in zip(sets, (settings.batch_size, 1), strict=True):
        if len(samples.inputs) < needed:
            what = "a step draws" if samples is sets[0] else "judging needs"
            raise BadData(
                f"{len(samples.inputs)} samples given and {what} {needed}; "
                "give more samples or a smaller batch size"
            )
        check_goal(graph, samples, settings.distil)


def _row(step: int, model: nn.Module, held: Labelled) -> dict[str, float]:
    """A judgement, all rounded as it will be deployed."""
    rounded = deepcopy(model)
    _end(rounded)
    return {"step": step, **judged(rounded, held)}


def _digest(plan: Plan, train: Labelled, held: Labelled, settings: FineTune) -> str:
    """What a killed run has to have in common with the one that goes on from it."""
    total = hashlib.sha256(repr((plan.method, settings)).encode())
    for values in (train.inputs, train.labels, held.inputs, held.labels):
        total.update(values.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


class _Standing(nn.Module):
    """All that a killed run goes on from: the model, the best one so far, Adam's moments."""

    def __init__(self, model: fx.GraphModule, settings: FineTune) -> None:
        super().__init__()
        self.optimiser = _optimiser(model, settings)
        self.model, self.best = model, deepcopy(model)
        learned = [p for group in self.optimiser.param_groups for p in group["params"]]
        for number, parameter in enumerate(learned):
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            moments["step"] = parameter.new_zeros(())
            self.optimiser.state[parameter] = moments
            for key, value in moments.items():
                self.register_buffer(f"{key}_{number}", value)

    def keep(self) -> None:
        """The model as it is now is the best one."""
        self.best.load_state_dict(self.model.state_dict())

    def learn(self, fp: fx.GraphModule, drawn: Labelled, settings: FineTune, share: float) -> float:
        """One step at `share` of all; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * (1 + math.cos(math.pi * share)) / 2
        self.model.train()
        total = _loss(self.model(drawn.inputs), fp, drawn, settings.distil)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return float(total.detach())


def _drawn(inputs: Inputs, settings: FineTune, seed: int) -> list[Tensor]:
    """Rows of every step: each sample once before any twice, texts of like length together."""
    random, wanted = torch.Generator().manual_seed(seed), settings.steps * settings.batch_size
    epochs = -(-wanted // len(inputs))
    order = torch.cat([torch.randperm(len(inputs), generator=random) for _ in range(epochs)])
    pools = order[:wanted].split(POOL * settings.batch_size)
    found = [pool[r] for pool in pools for r in by_length(inputs[pool], settings.batch_size)]
    return [found[i] for i in torch.randperm(len(found), generator=random).tolist()]


def _optimiser(model: nn.Module, settings: FineTune) -> torch.optim.Optimizer:
    """Make all that is learned learnable."""
    groups: list[dict[str, object]] = []

    def learned(parameter: nn.Parameter, lr: float) -> None:
        parameter.requires_grad_(True)
        groups.append({"params": [parameter], "lr": lr, "base": lr})

    for module in quantizers(model):
        match module:
            case WeightQuantizer():
                module.begin("straight-through")
                learned(module.v, settings.weight_lr)
                learned(module.log_gain, settings.step_lr)
            case ActQuantizer():
                learned(module.scale, settings.step_lr * float(module.scale.detach()))
                learned(module.zero_point, settings.step_lr * module.grid.qmax)
            case Bias():
                learned(module.bias, settings.bias_lr)
            case Table():
                learned(module.weight, settings.weight_lr * float(module.scale.mean()))
    return torch.optim.Adam(groups, fused=True)


def _loss(
    said: Float[Tensor, " b *k"], fp: fx.GraphModule, drawn: Labelled, distil: float
) -> Tensor:
    """That of the goal, in part the divergence from the float model's answers."""
    said = scored(said, drawn.inputs)
    if distil == 0:
        return loss(said, drawn)
    with torch.no_grad():
        wanted = scored(fp(drawn.inputs), drawn.inputs)
    return (1 - distil) * loss(said, drawn) + distil * apart(said, wanted)


def _end(model: nn.Module) -> None:
    for module in quantizers(model):
        if isinstance(module, WeightQuantizer | ActQuantizer):
            module.harden()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    model.eval()
