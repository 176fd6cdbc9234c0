"""Weights from a file into a module: every key matches or the mismatches are listed."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadworthy.errors import BadModel

Weights = dict[str, Tensor]

# What training scripts wrap around the weights, outermost first.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_weights(path: Path) -> Weights:
    """Tensors of a ``.safetensors`` file or a torch checkpoint, freed of common wrappings.

    Raises:
        BadModel: no such file, not readable, or no tensors in it.
    """
    if not path.is_file():
        raise BadModel(f"weights {path} not found; give the path of a .pth or .safetensors file")
    if path.stat().st_size == 0:
        raise BadModel(f"weights {path} is empty (0 bytes)")
    # Damaged files raise RuntimeError, UnpicklingError, EOFError, SafetensorError ...
    try:
        loaded = _load(path)
    except Exception as error:
        raise BadModel(f"weights {path} cannot be read: {_fault(path, error)}") from error
    weights = _unwrapped(loaded)
    if not weights:
        raise BadModel(
            f"weights {path} holds no state_dict; write it by torch.save(model.state_dict(), FILE)"
        )
    return weights


def load_strictly(module: nn.Module, weights: Weights, source: str) -> None:
    """Copy `weights` into `module`.

    Raises:
        BadModel: keys are missing, unknown or of another shape; lists them.
    """
    own = module.state_dict()
    fitting = _without_prefix(weights, own)
    # Counters of batches seen, absent from old checkpoints, change no output in eval mode.
    missing = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    unknown = [k for k in fitting if k not in own]
    wrong = [
        f"{k} {list(fitting[k].shape)} instead of {list(own[k].shape)}"
        for k in own
        if k in fitting and fitting[k].shape != own[k].shape
    ]
    faults = [
        f"{len(keys)} {what}: {_some(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", wrong),
        )
        if keys
    ]
    if faults:
        raise BadModel(f"{source} does not fit the model; keys {'; '.join(faults)}")
    module.load_state_dict(fitting, strict=False)


def check_finite(module: nn.Module, source: str) -> None:
    """Raise BadModel, listing them, where weights are NaN or infinite."""
    bad = [k for k, v in module.state_dict().items() if not bool(v.isfinite().all())]
    if bad:
        raise BadModel(f"{source} has NaN or infinite values in {_some(bad)}; mend the checkpoint")


def class_count(weights: Weights, classifier: str) -> int | None:
    """Classes that a checkpoint's `classifier` layer tells apart, None where it has none."""
    found = (v for k, v in weights.items() if k.endswith(f"{classifier}.weight") and v.ndim >= 2)
    layer = next(found, None)
    return None if layer is None else layer.shape[0]


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # Where torch warns of what kind of file it is, it refuses the file next.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _fault(path: Path, error: Exception) -> str:
    """What the file is not and how to write one: torch's own words are advice on running code."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if path.suffix == ".safetensors":
        return (
            "it is no .safetensors file or a damaged one; save with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        )
    return f"{_unlike_weights(path, str(error))}; save with torch.save(model.state_dict(), path)"


def _unlike_weights(path: Path, words: str) -> str:
    held = re.search(r"GLOBAL ([\w.]+)", words)
    if held:
        return f"it holds a Python object ({held[1]}), not tensors alone"
    if "TorchScript" in words:
        return "it is a TorchScript archive, no state_dict"
    with path.open("rb") as file:
        known = file.read(2).startswith((b"PK", b"\x80"))
    return "it is damaged or not written by torch.save" if known else "it is no torch checkpoint"


def _unwrapped(loaded: Any) -> Weights:
    if not isinstance(loaded, Mapping):
        return {}
    nest = next((n for n in _NESTS if isinstance(loaded.get(n), Mapping)), None)
    if nest is not None:
        return _unwrapped(loaded[nest])
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


def _without_prefix(weights: Weights, own: Mapping[str, Tensor]) -> Weights:
    for prefix in _PREFIXES:
        wrapped = bool(weights) and all(k.startswith(prefix) for k in weights)
        if wrapped and not any(k in own for k in weights):
            stripped = {k.removeprefix(prefix): v for k, v in weights.items()}
            return _without_prefix(stripped, own)
    return weights


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return ", ".join(keys[:8]) + more
