"""Ranges of every quantizer, from the float network alone."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.learn import quantizers
from roadworthy.compress.methods import Method
from roadworthy.compress.ranges import activation_range, histogram, weight_range
from roadworthy.compress.rounding import Table, WeightQuantizer
from roadworthy.core.padding import tokens_of
from roadworthy.core.predict import Inputs, things
from roadworthy.errors import BadData, BadInput

WORDS = 4096
"""Rows of an embedding table, evenly spread, that its range is searched on."""


def set_weight_ranges(modules: Iterable[nn.Module], method: Method, pair_limit: int | None) -> None:
    """Search the range of every weight and put its rounding at the float weight."""
    for module in modules:
        if isinstance(module, Table):
            words = module.weight[:: max(1, len(module.weight) // WORDS)].T
            module.set_range(*weight_range(words, module.grid, method.weight_range))
        if not isinstance(module, WeightQuantizer):
            continue
        rows = module.weight.flatten(1)
        scale, zero = weight_range(rows, module.grid, method.weight_range)
        if pair_limit is not None and module.grid.bits == 8:
            scale = torch.maximum(scale, _largest_pair(rows) / pair_limit)
        module.set_range(scale, zero)


def _largest_pair(rows: Tensor) -> Tensor:
    """Largest sum of two weights of one sign in each row; what two 8-bit products must not pass."""
    two = min(2, rows.shape[1])
    up = rows.clamp(min=0).topk(two, 1).values.sum(1)
    down = (-rows).clamp(min=0).topk(two, 1).values.sum(1)
    return torch.maximum(up, down)


@torch.no_grad()
def set_act_ranges(unit: nn.Module, batches: Iterable[tuple[Tensor, ...]], method: Method) -> None:
    """Search the range of every activation quantizer in `unit`, fed with `batches` in float.

    The last tensor of each batch says what is padding, where they are texts.
    """
    found = [module for module in quantizers(unit) if isinstance(module, ActQuantizer)]
    kept: list[list[Tensor]] = [[] for _ in found]
    set_enabled(unit, False)
    for batch in batches:
        for module in found:
            module.seen = []
        unit(*batch)
        for module, tensors in zip(found, kept, strict=True):
            tensors += [tokens_of(x, batch[-1], module.row) for x in module.seen or []]
    set_enabled(unit, True)
    for module, tensors in zip(found, kept, strict=True):
        module.seen = None
        check_finite(*tensors)
        seen = histogram(tensors)
        module.set_range(
            *activation_range(seen, module.grid, method.act_range, exponent=method.act_exponent)
        )


def check_finite(*activations: Tensor) -> None:
    """BadInput where a value is NaN or infinite."""
    if not all(bool(torch.isfinite(each).all()) for each in activations):
        raise BadInput(
            "the model computes NaN or infinite activations on the calibration data; "
            "check its weights and the preprocessing"
        )


def set_enabled(unit: nn.Module, enabled: bool) -> None:
    """Switch all quantizers of `unit`; off, it computes what the float network computes."""
    for module in quantizers(unit):
        module.enabled = enabled


def held_out(inputs: Inputs, one_in: int, what: str) -> Tensor:
    """Which of the calibration images judge and are not learned from, one in `one_in`.

    Raises:
        BadData: there are too few for even one; `what` is what they would judge.
    """
    count = len(inputs)
    if count < one_in:
        raise BadData(
            f"{count} calibration {things(inputs)} given and one in {one_in} judges {what}; "
            f"give at least {one_in}"
        )
    return torch.arange(count) % one_in == one_in - 1
