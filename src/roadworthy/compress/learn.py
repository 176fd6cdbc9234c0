"""Reconstruction of one unit: the loop that every method shares."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from roadworthy.compress.activation import ActQuantizer, mix
from roadworthy.compress.methods import Pass, Rounding
from roadworthy.compress.rounding import Bias, Table, WeightQuantizer
from roadworthy.core.padding import IMPOSSIBLE, cut, longest, used
from roadworthy.core.predict import answered


@dataclass(frozen=True)
class Samples:
    """What a unit learns from, first axis the samples: its inputs and its wanted output.

    `besides` is given to it unquantized as well; `valid` says which tokens of texts count.
    """

    fp: Shaped[Tensor, " n *s"]
    quantized: Shaped[Tensor, " n *s"]
    target: Float[Tensor, " n *r"]
    besides: tuple[Tensor, ...] = ()
    valid: Bool[Tensor, "n t"] | None = None

    def as_deployed(self) -> "Samples":
        """These samples where no input is kept in floating point."""
        return replace(self, fp=self.quantized)

    @property
    def tokens(self) -> Tensor:
        """Those of texts; of images, and of what has none beside it, the input."""
        return (*self.besides, self.fp)[0]

    def at(self, rows: Tensor) -> "Samples":
        """The samples at these indices; tokens that are padding in all of them are cut off."""
        valid = None if self.valid is None else self.valid.index_select(0, rows)
        mask = used(_draw(self.tokens, rows))
        length = None if valid is None else longest(valid if mask is None else mask)

        def draw(of: Tensor) -> Tensor:
            return _draw(of if length is None else cut(of, length), rows)

        fp = draw(self.fp)
        return Samples(
            fp,
            fp if self.quantized is self.fp else draw(self.quantized),
            draw(self.target),
            tuple(map(draw, self.besides)),
            None if valid is None else valid[:, :length],
        )


@dataclass(frozen=True)
class Outcome:
    """Loss of a unit before and after, and the seconds between."""

    first: float
    last: float
    seconds: float


Report = Callable[[int, float], None]
"""Called now and then with the step and the loss."""


def reconstruct(
    unit: nn.Module, samples: Samples, settings: Pass, seed: int, report: Report | None = None
) -> Outcome:
    """Learn the quantizers of `unit` so that its output comes close to `samples.target`.

    Modules of `unit` are changed in place; rounding is hard afterwards.
    """
    begin = time.perf_counter()
    generator = torch.Generator(samples.fp.device).manual_seed(seed)
    enable_weights(unit, not settings.float_weights)
    first = evaluate(unit, samples, settings)
    if not _learnable(unit, settings):
        enable_weights(unit, True)
        return Outcome(first, first, 0.0)
    take_step = stepper(unit, samples, settings, generator)
    for step in range(settings.iterations):
        loss = take_step(step)
        if report is not None and (step % 50 == 49 or step + 1 == settings.iterations):
            report(step + 1, float(loss))
    _harden(unit)
    last = evaluate(unit, samples, settings)
    enable_weights(unit, True)
    return Outcome(first, last, time.perf_counter() - begin)


def enable_weights(unit: nn.Module, enabled: bool) -> None:
    """Switch all quantizers of `unit` but those of activations."""
    for module in quantizers(unit):
        if not isinstance(module, ActQuantizer):
            module.enabled = enabled


def stepper(
    unit: nn.Module, samples: Samples, settings: Pass, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """Make `unit` learnable; the function returned takes one step and returns its loss."""
    optimiser, schedule = _prepare(unit, settings, generator)
    count, size, device = len(samples.fp), (settings.batch_size,), samples.fp.device
    unit.train()
    if settings.keep_quantized_input >= 1:
        samples = samples.as_deployed()

    def take(step: int) -> Tensor:
        schedule(step)
        index = torch.randint(count, size, generator=generator, device=device)
        drawn = samples.at(index)
        x = drawn.quantized
        if drawn.fp is not x:
            x = mix(drawn.fp, x, settings.keep_quantized_input, generator)
        out = unit(x, *drawn.besides)
        loss, grad = _loss(out, drawn, settings.loss)
        optimiser.zero_grad(set_to_none=True)
        out.backward(grad)
        optimiser.step()
        return loss

    return take


def _draw(rows: Tensor, index: Tensor) -> Tensor:
    """The rows ``[n c h w]`` at `index`, in memory as `rows` are: with channels last or not."""
    if rows.ndim != 4 or rows.is_contiguous():
        return rows.index_select(0, index)
    return rows.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


def _loss(out: Tensor, samples: Samples, kind: str) -> tuple[Tensor, Tensor]:
    """Loss and its gradient by `out`: squared error summed over channels, averaged over the rest
    (QDrop) without padding, or KL divergence of the logits averaged over samples, of texts that
    are answered by texts over the tokens asked for, of answers found in texts over both ends, of
    maps over their places."""
    result, target, valid = out.detach(), samples.target, samples.valid
    if kind == "kl" and valid is not None and out.ndim == 3 and not answered(samples.tokens):
        result, target = (_over_tokens(each, valid) for each in (result, target))
        loss, gradient = _loss(result, replace(samples, target=target, valid=None), kind)
        return loss, gradient.transpose(1, 2)
    classes = 1 if out.ndim == 4 else -1
    if kind == "kl" and out.shape[classes] > 1:  # one number has no softmax
        log_p, log_q = target.log_softmax(classes), result.log_softmax(classes)
        p = log_p.exp()
        apart, gradient = (p * (log_p - log_q)).sum(classes), log_q.exp() - p
        if valid is None or out.ndim != 3:
            return apart.mean(), gradient / apart.numel()
        rest = max(1, int(valid.sum()))
        return (apart * valid).sum() / rest, gradient * valid[..., None] / rest
    rest = out.numel() / out.shape[classes]
    error = result - target
    if valid is not None and out.ndim == 3:
        error, rest = error.mul_(valid[..., None]), max(1, int(valid.sum()))
    loss = torch.linalg.vector_norm(error).square() / rest
    return loss, error.mul_(2 / rest)


def _over_tokens(logits: Tensor, valid: Tensor) -> Tensor:
    return logits.masked_fill(~valid[..., None], IMPOSSIBLE).transpose(1, 2)


@torch.no_grad()
def evaluate(unit: nn.Module, samples: Samples, settings: Pass, limit: int = 256) -> float:
    """Loss of the unit as deployed (hard rounding, no drop) on the first samples."""
    unit.eval()
    losses: list[float] = []
    samples = samples.as_deployed()
    for rows in torch.arange(min(limit, len(samples.fp))).split(settings.batch_size):
        part = samples.at(rows.to(samples.fp.device))
        losses.append(float(_loss(unit(part.quantized, *part.besides), part, settings.loss)[0]))
    return sum(losses) / len(losses)


def quantizers(unit: nn.Module) -> Iterable[WeightQuantizer | ActQuantizer | Bias | Table]:
    """Every quantizer in `unit`."""
    for module in unit.modules():
        if isinstance(module, WeightQuantizer | ActQuantizer | Bias | Table):
            yield module


def _learnable(unit: nn.Module, settings: Pass) -> bool:
    """Whether this pass has anything to learn in `unit`."""
    found = {type(module) for module in quantizers(unit)}
    weights = settings.rounding is not None or settings.weight_scale_lr is not None
    return (
        (weights and WeightQuantizer in found)
        or (settings.act_scale is not None and ActQuantizer in found)
        or (settings.bias_lr is not None and Bias in found)
    )


def _prepare(
    unit: nn.Module, settings: Pass, generator: torch.Generator
) -> tuple[torch.optim.Optimizer, Callable[[int], None]]:
    """The optimiser over what this pass learns, and what to do ahead of every step."""
    groups: list[dict[str, object]] = []
    weights: list[WeightQuantizer] = []
    acts: list[ActQuantizer] = []

    def learn(parameter: nn.Parameter, lr: float | None, cosine: bool) -> None:
        parameter.requires_grad_(lr is not None)
        if lr is not None:
            groups.append({"params": [parameter], "lr": lr, "base": lr, "cosine": cosine})

    rounding, act = settings.rounding, settings.act_scale
    for module in quantizers(unit):
        match module:
            case WeightQuantizer():
                weights.append(module)
                module.begin(rounding.kind if rounding else None)
                cosine = rounding is not None and rounding.schedule == "cosine"
                learn(module.v, rounding.lr if rounding else None, cosine)
                learn(module.log_gain, settings.weight_scale_lr, True)
            case ActQuantizer():
                acts.append(module)
                module.generator = generator
                module.keep_quantized = settings.keep_quantized_inside
                rate = act.rate(float(module.scale.detach())) if act else None
                learn(module.scale, rate, True)
                shifts = act.rate(module.grid.qmax) if act and act.zero_point else None
                learn(module.zero_point, shifts, True)
            case Bias():
                learn(module.bias, settings.bias_lr, True)
            case Table():
                pass
    optimiser = torch.optim.Adam(groups, fused=True)

    def schedule(step: int) -> None:
        share = step / settings.iterations
        for group in optimiser.param_groups:
            if group["cosine"]:
                group["lr"] = group["base"] * (1 + math.cos(math.pi * share)) / 2
        for module in acts:
            module.finer = 2 ** (settings.anneal_bits * max(0.0, 1 - 2 * share))
        if rounding is not None:
            pull = _pull(rounding, share)
            for module in weights:
                module.pull = pull

    return optimiser, schedule


def _pull(rounding: Rounding, share: float) -> tuple[float, float]:
    """Strength and exponent of the regulariser at `share` of the steps."""
    if share < rounding.warmup:
        return 0.0, rounding.beta[0]
    first, last = rounding.beta
    return rounding.strength, first + (last - first) * (share - rounding.warmup) / (
        1 - rounding.warmup
    )


def _harden(unit: nn.Module) -> None:
    for module in quantizers(unit):
        if isinstance(module, WeightQuantizer | ActQuantizer):
            module.harden()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    unit.eval()
