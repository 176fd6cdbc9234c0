"""Quantization-aware fine-tuning: weights and the steps of activations learned by the task itself.

Source: LSQ (arXiv 1902.08153) and LSQ+ (2004.09576), as in the last part of Outlier Suppression
(2209.13325). It starts where a method without training ends, on the same graph: outliers dealt
with, ranges found. What it leaves is frozen to integers like any other quantized model.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, fx, nn

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.engine import Run, whole_model
from roadworthy.compress.freeze import freeze
from roadworthy.compress.learn import quantizers
from roadworthy.compress.quantize import Compressed, Plan, facts_of, learn
from roadworthy.compress.rounding import Bias, Table, WeightQuantizer
from roadworthy.core.padding import in_batches, shortened
from roadworthy.core.predict import Inputs
from roadworthy.errors import BadData, BadInput


@dataclass(frozen=True)
class FineTune:
    """How it is learned: Adam, cosine to zero.

    Attributes:
        steps, batch_size: steps, and samples drawn for each.
        weight_lr, step_lr: of weights, in units of their steps, and of activations' steps and zero
            points, in units of the step and of the whole grid.
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
        if not 0 <= self.distil <= 1:
            raise BadInput(f"a share {self.distil} of distillation given; 0 to 1 is allowed")


@dataclass(frozen=True)
class Labelled:
    """Samples and their classes."""

    inputs: Inputs
    labels: Int[Tensor, " n"]


Told = Callable[[int, float, float], None]
"""Given the step, the held-out samples' loss and their share of right answers."""


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
    """Quantize a captured classifier by `plan` and learn on from there.

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
        BadData: too few samples for a step.
    """
    if len(train.inputs) < settings.batch_size:
        raise BadData(
            f"{len(train.inputs)} samples given and a step draws {settings.batch_size}; "
            "give more samples or a smaller batch size"
        )
    learned = learn(graph, inputs, plan, run)
    model = whole_model(learned.task)
    optimiser = _begin(model, settings)
    best, kept = _judged(model, held), _copy(model)
    history = [{"step": 0, "loss": best[0], "right": best[1]}]
    random, since = torch.Generator().manual_seed(run.seed), 0
    every = max(1, settings.steps // settings.checks)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * (1 + math.cos(math.pi * step / settings.steps)) / 2
        rows = torch.randint(len(train.inputs), (settings.batch_size,), generator=random)
        _step(model, graph, optimiser, _at(train, rows), settings.distil)
        if (step + 1) % every:
            continue
        now = _judged(model, held)
        history.append({"step": step + 1, "loss": now[0], "right": now[1]})
        if told is not None:
            told(step + 1, *now)
        since += 1
        if now[0] < best[0]:
            best, kept, since = now, _copy(model), 0
        if since >= settings.patience:
            break
    model.load_state_dict(kept)
    _end(model)
    return Compressed(freeze(model), {**facts_of(learned), "fine_tuning": history}, plan.method)


def _at(samples: Labelled, rows: Tensor) -> Labelled:
    return Labelled(shortened(samples.inputs[rows]), samples.labels[rows])


def _begin(model: nn.Module, settings: FineTune) -> torch.optim.Optimizer:
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
                pass
    return torch.optim.Adam(groups)


def _step(
    model: nn.Module,
    float_model: nn.Module,
    optimiser: torch.optim.Optimizer,
    drawn: Labelled,
    distil: float,
) -> None:
    model.train()
    logits = model(drawn.inputs)
    loss = nn.functional.cross_entropy(logits, drawn.labels)
    if distil > 0:
        with torch.no_grad():
            wanted = float_model(drawn.inputs).log_softmax(-1)
        apart = nn.functional.kl_div(
            logits.log_softmax(-1), wanted, reduction="batchmean", log_target=True
        )
        loss = (1 - distil) * loss + distil * apart
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _judged(model: nn.Module, held: Labelled) -> tuple[float, float]:
    """Cross entropy and share of right answers, all rounded as it will be deployed."""
    rounded = deepcopy(model)
    _end(rounded)
    said = in_batches(rounded, held.inputs)
    right = float((said.argmax(1) == held.labels).float().mean())
    return float(nn.functional.cross_entropy(said, held.labels)), right


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _end(model: nn.Module) -> None:
    for module in quantizers(model):
        if isinstance(module, WeightQuantizer | ActQuantizer):
            module.harden()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    model.eval()
