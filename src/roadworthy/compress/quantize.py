"""A captured model and calibration images in, a graph of integers out."""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, fx

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.calibrate import set_weight_ranges
from roadworthy.compress.clipping import clip_tokens
from roadworthy.compress.engine import Run, Task, calibrate, prepare, run_pass, whole_model
from roadworthy.compress.freeze import freeze
from roadworthy.compress.learn import Outcome
from roadworthy.compress.methods import Method
from roadworthy.compress.migrate import Migration
from roadworthy.compress.outliers import norm_outliers
from roadworthy.compress.place import Widths
from roadworthy.compress.rounding import WeightQuantizer
from roadworthy.compress.suppress import GammaMigration, Moved, suppress
from roadworthy.compress.thresholds import Written, records
from roadworthy.core.answers import check_compared
from roadworthy.core.backends import Backend
from roadworthy.core.padding import text_mask
from roadworthy.core.predict import Inputs, things
from roadworthy.errors import BadData, BadInput

EDGES = 81
"""Of the weight histograms in a record."""


@dataclass(frozen=True)
class Compressed:
    """The integer model, what is known about how it came to be, and the method that made it."""

    module: fx.GraphModule
    facts: dict[str, Any]
    method: Method


@dataclass(frozen=True)
class Plan:
    """How a model is to be compressed."""

    method: Method
    backend: Backend
    widths: Widths
    blocks: tuple[str, ...] = ()


def compress(
    graph: fx.GraphModule, images: Inputs, plan: Plan, run: Run | None = None
) -> Compressed:
    """Quantize a captured model.

    Args:
        graph: from `roadworthy.core.capture.capture`; not changed.
        images: preprocessed calibration images.
        plan: method, back end and widths.
        run: seed, progress, and where finished units are kept.

    Raises:
        BadData: fewer images than a step needs.
        BadInput: activations that are not finite.
    """
    learned = learn(graph, images, plan, run or Run())
    return Compressed(freeze(whole_model(learned.task)), facts_of(learned), plan.method)


@dataclass(frozen=True)
class Suppressed:
    """What became of the outliers: norms before and after migration, and clipping's losses."""

    moved: Moved
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]
    clipping: dict[float, float] | None


@dataclass(frozen=True)
class Learned:
    """Quantizers with their ranges, the passes' outcomes, and what was done about outliers."""

    task: Task
    outcomes: Sequence[dict[str, Outcome]]
    suppressed: Suppressed | None


def learn(graph: fx.GraphModule, images: Inputs, plan: Plan, run: Run) -> Learned:
    """Ranges and all passes of a method; the quantizers are still modules afterwards."""
    method = plan.method
    if any(each.loss == "kl" for each in method.passes):
        check_compared(graph, images, "a pass over the whole network (--method qdrop-plus)")
    _check_images(images, method)
    shown = images[: method.range_images]
    before, moved = (norm_outliers(graph, shown) if method.suppresses else {}), Moved()
    if method.suppress is not None:
        graph = deepcopy(graph)
        moved = suppress(graph, shown, method.suppress, _written(plan))
        _check_moved(moved.migrations, method)
    task = prepare(graph, plan.backend, plan.widths, plan.blocks)
    for module in task.quantizers.modules.values():
        module.to(images.device)
    losses = None
    if method.clip is None:
        calibrate(task, images, method, plan.backend)
    else:
        set_weight_ranges(task.quantizers.modules.values(), method, plan.backend.pair_limit)
        losses = clip_tokens(task, shown, method.clip)
    learned_from = augmented(images, method.augment, run.seed)
    outcomes = [
        run_pass(task, learned_from, settings, run, number)
        for number, settings in enumerate(method.passes)
    ]
    if not method.suppresses:
        return Learned(task, outcomes, None)
    after = norm_outliers(graph, shown) if moved.migrations else before
    return Learned(task, outcomes, Suppressed(moved, before, after, losses))


def _check_moved(moved: Sequence[Migration], method: Method) -> None:
    """Tell where no norm could be migrated; BadInput where the method does nothing else."""
    reasons = dict.fromkeys(m.refused for m in moved)
    if None in reasons:
        return
    told = f"no LayerNorm of the model can be migrated ({'; '.join(map(str, reasons)) or 'none'})"
    if not isinstance(method.suppress, GammaMigration):
        raise BadInput(
            f"{told}, which is what {type(method).__name__} needs; give --method mse for ranges "
            "without it, or outlier-suppression, which clips as well"
        )
    warnings.warn(f"{told}: ranges alone are set", stacklevel=2)


def _written(plan: Plan) -> Written:
    method, rules, widths = plan.method, plan.backend, plan.widths
    grids = rules.weight_grid(widths.weights), rules.activation_grid(widths.activations)
    return Written(*grids, method.weight_range, method.act_range, method.act_exponent)


def augmented(images: Tensor, copies: int, seed: int) -> Tensor:
    """`images` followed by mirrored and shifted copies (an eighth of the side at most), in memory
    with their channels last as all that units learn from; texts as they are."""
    if not images.is_floating_point():
        return images
    generator = torch.Generator().manual_seed(seed)
    reach = images.shape[-1] // 8
    parts = [images]
    for number in range(copies):
        changed = images.flip(-1) if number % 2 == 0 else images.clone()
        if number > 0:
            padded = torch.nn.functional.pad(changed, [reach] * 4, mode="reflect")
            shifts = torch.randint(0, 2 * reach + 1, (len(images), 2), generator=generator)
            height, width = images.shape[-2:]
            changed = torch.stack(
                [
                    image[:, y : y + height, x : x + width]
                    for image, (y, x) in zip(padded, shifts.tolist(), strict=True)
                ]
            )
        parts.append(changed)
    joined = torch.cat(parts)
    return joined.contiguous(memory_format=torch.channels_last)


def _check_images(images: Tensor, method: Method) -> None:
    needed = max((settings.batch_size for settings in method.passes), default=1)
    if len(images) < needed:
        raise BadData(
            f"{len(images)} calibration {things(images)} given and a step draws {needed}; "
            f"give more {things(images)} or a smaller --batch-size"
        )
    mask = text_mask(images)
    if mask is not None and not bool(mask.any(1).all()):
        raise BadData(
            f"{int((~mask.any(1)).sum())} of {len(images)} calibration texts are padding alone; "
            "check the tokenizer and the attention mask"
        )
    if not bool(torch.isfinite(images).all()):
        raise BadData("calibration images hold NaN or infinite values; check the preprocessing")


def facts_of(learned: Learned) -> dict[str, Any]:
    """What a record says of layers, units and outliers."""
    facts = _facts(learned.task, learned.outcomes)
    if learned.suppressed is not None:
        facts["suppression"] = _suppression(learned.suppressed)
    return facts


def _facts(task: Task, outcomes: Sequence[dict[str, Outcome]]) -> dict[str, Any]:
    units: list[dict[str, Any]] = []
    for number, names in enumerate(outcomes):
        for name, outcome in names.items():
            loss = asdict(outcome)
            units.append(
                {
                    "name": name,
                    "pass": number,
                    "loss_first": loss["first"],
                    "loss_last": loss["last"],
                    "seconds": loss["seconds"],
                }
            )
    layers = [_layer_facts(task, index) for index in range(len(task.quantizers.layers))]
    histograms = [found for layer in layers if (found := layer.pop("histogram")) is not None]
    return {
        "units": units,
        "layers": layers,
        "float_ops": [f"{name} x{n}" for name, n in task.quantizers.float_ops.items()],
        "weight_histograms": histograms[:: max(1, len(histograms) // 6)],
    }


def _suppression(found: Suppressed) -> dict[str, Any]:
    norms = [
        {"norm": name, "before": told, "after": found.after.get(name)}
        for name, told in found.before.items()
    ]
    errors = found.clipping or {}
    losses = [{"ratio": r, "loss": e if isfinite(e) else None} for r, e in errors.items()]
    best = min(errors, key=lambda ratio: errors[ratio], default=None)
    moved = [asdict(migration) for migration in found.moved.migrations]
    searched = records(found.moved.searched)
    told = {"migrations": moved, "norms": norms, "clipping": losses, "clip_ratio": best}
    return {**told, "searched": searched} if searched else told


def _layer_facts(task: Task, index: int) -> dict[str, Any]:
    layer = task.quantizers.layers[index]
    modules = task.quantizers.modules
    acts = [m.grid.bits for m in map(modules.get, layer.inputs) if isinstance(m, ActQuantizer)]
    facts: dict[str, Any] = {
        "name": layer.name,
        "op": str(layer.node.target).removeprefix("aten.").split(".")[0],
        "weight_bits": None,
        "act_bits": min(acts) if acts else None,
        "histogram": None,
    }
    weight = modules[layer.weight] if layer.weight else None
    if isinstance(weight, WeightQuantizer):
        facts |= _weight_facts(layer.name, weight)
    return facts


@torch.no_grad()
def _weight_facts(name: str, module: WeightQuantizer) -> dict[str, Any]:
    fp, quantized = module.weight, module()
    noise = (fp - quantized).square().sum().clamp(min=1e-30)
    edges = torch.linspace(float(fp.min()), float(fp.max()), EDGES)
    return {
        "weight_bits": module.grid.bits,
        "scheme": ("symmetric" if module.grid.signed else "asymmetric") + " per channel",
        "weight_sqnr_db": float(10 * torch.log10(fp.square().sum() / noise)),
        "numel": fp.numel(),
        "histogram": {
            "layer": name,
            "edges": edges.tolist(),
            "float_counts": torch.histogram(fp.cpu(), edges)[0].tolist(),
            "quantized_counts": torch.histogram(quantized.detach().cpu(), edges)[0].tolist(),
        },
    }
