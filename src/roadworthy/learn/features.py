"""Features that are kept, so that another head on the same images costs no pass of the backbone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from roadworthy.core.runs import write_atomically


def weights_hash(module: nn.Module) -> str:
    """Hash of all weights, statistics and other buffers, saved or not, and of their names."""
    digest = hashlib.sha256()
    held = dict(module.named_buffers()) | module.state_dict()
    for name, each in sorted(held.items()):
        digest.update(f"{name} {list(each.shape)} {each.dtype}".encode())
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
