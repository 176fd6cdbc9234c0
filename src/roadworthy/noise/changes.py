"""What runtimes get wrong inside a network: pooling's rounding and how maps are enlarged.

Changed in the calls that a module makes while it runs, so that any architecture can be asked: one
that `torch.export` refuses, as detectors are, and one that is captured afterwards.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Call = dict[str, Any]
"""Arguments by name, but for the first."""

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_SIZES = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    F.max_pool2d: _MAX,
    F.max_pool2d_with_indices: _MAX,
    torch.max_pool2d: _MAX,
    F.avg_pool2d: _AVG,
    F.interpolate: _SIZES,
}


class Changed(nn.Module):
    """A module with a change in every place where it applies; the module itself stays as it is.

    Args:
        module: any.
        name: of the change.

    >>> net = nn.MaxPool2d(2)
    >>> Changed(net, "ceil-mode")(torch.zeros(1, 1, 5, 5)).shape, net(torch.zeros(1, 1, 5, 5)).shape
    (torch.Size([1, 1, 3, 3]), torch.Size([1, 1, 2, 2]))
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self._change = module, CHANGES[name]

    def forward(self, images: Tensor) -> Any:
        """What the module answers then."""
        with _Change(self._change):
            return self.module(images)


def changes(module: nn.Module, example: Tensor) -> tuple[str, ...]:
    """The changes that `module` admits, found by running it on `example`.

    >>> net = nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    >>> changes(net, torch.zeros(1, 3, 7, 7))
    ('ceil-mode', 'upsample-bilinear')
    """
    seen: list[tuple[Any, Call]] = []
    with torch.no_grad(), _Change(lambda function, call: seen.append((function, call))):
        module(example)
    return tuple(name for name, change in CHANGES.items() if any(change(*each) for each in seen))


class _Change(TorchFunctionMode):
    """Calls in it get the arguments that `change` makes of theirs, where it makes any."""

    def __init__(self, change: Callable[[Any, Call], Call | None]) -> None:
        self._change = change

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Call | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _ARGUMENTS and args:
            call = dict(zip(_ARGUMENTS[func], args[1:], strict=False)) | given
            if (new := self._change(func, call)) is not None:
                return func(args[0], **new)
        return func(*args, **given)


def _ceil_mode(function: Any, call: Call) -> Call | None:
    """Pools round the size of their output up; those that do already, or keep the size, stay."""
    stride = call.get("stride") or call.get("kernel_size", 1)
    steps = stride if isinstance(stride, tuple | list) else (stride,)
    if function is F.interpolate or call.get("ceil_mode") or max(steps) == 1:
        return None
    return call | {"ceil_mode": True}


def _bilinear(function: Any, call: Call) -> Call | None:
    if function is not F.interpolate or call.get("mode", "nearest") not in _NEAREST:
        return None
    return call | {"mode": "bilinear", "align_corners": False}


def _nearest(function: Any, call: Call) -> Call | None:
    if function is not F.interpolate or call.get("mode") != "bilinear":
        return None
    return call | {"mode": "nearest", "align_corners": None, "antialias": False}


def _corners(function: Any, call: Call) -> Call | None:
    if function is not F.interpolate or call.get("mode") != "bilinear" or call.get("antialias"):
        return None
    return call | {"align_corners": not call.get("align_corners")}


_NEAREST = ("nearest", "nearest-exact")
CHANGES: dict[str, Callable[[Any, Call], Call | None]] = {
    "ceil-mode": _ceil_mode,
    "upsample-bilinear": _bilinear,
    "upsample-nearest": _nearest,
    "align-corners": _corners,
}
"""Each makes new arguments of a call's, None where it does not apply."""
