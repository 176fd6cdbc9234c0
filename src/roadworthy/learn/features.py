"""Features that are kept, so that another head on the same images costs no pass of the backbone."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from roadworthy.core.runs import write_atomically


def network_hash(module: nn.Module) -> str:
    """Hash of what a network's answers come from: layers, their settings and code, all weights,
    statistics and other buffers, saved or not.
    """
    digest = hashlib.sha256(f"{torch.__version__} {module!r}".encode())
    for path in sorted({code_of(each) for each in module.modules()}):
        digest.update(path.read_bytes() if path.is_file() else b"")
    held = dict(module.named_buffers()) | module.state_dict()
    for name, each in sorted(held.items()):
        digest.update(f"{name} {list(each.shape)} {each.dtype}".encode())
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def code_of(module: nn.Module) -> Path:
    """The file that says what a layer does; what Torch's own do is told by its version.

    >>> code_of(nn.Linear(1, 1)).name
    'linear.py'
    """
    forward = inspect.unwrap(type(module).forward)
    return Path(forward.__code__.co_filename if inspect.isfunction(forward) else "")


def kept(cache: Path, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` makes, or has made for this key before; a damaged file is made again."""
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    try:
        return load_file(path)
    except Exception:  # missing, cut off, or anything that safetensors finds wrong
        made = make()
    with write_atomically(path) as temporary:
        save_file({name: each.contiguous() for name, each in made.items()}, temporary)
    return made
