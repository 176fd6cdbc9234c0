"""What every image is at the border between two units: in memory while it fits, else on disk."""

import os
import tempfile
import weakref
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from roadworthy.errors import RoadworthyError

BATCH = 64


class Cache:
    """Makes tensors of a row per image, at most `memory` bytes of them in memory.

    What does not fit is mapped from a file that has no name any more: the system pages it in and
    out, and it is gone with the tensor, even after a kill. Pictures ``[n c h w]`` lie in memory
    with their channels last, the layout that convolutions are fastest in.
    """

    def __init__(self, memory: int, folder: Path | None = None) -> None:
        self.memory, self.folder = memory, folder
        self.used = self.spilled = 0

    def collect(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`function` over tensors ``[n ...]`` in batches, results joined along the first axis."""
        kept: Tensor | None = None
        with torch.no_grad():
            for start in range(0, len(rows[0]), BATCH):
                part = function(*(each[start : start + BATCH] for each in rows))
                if kept is None:
                    kept = self._empty((len(rows[0]), *part.shape[1:]), part)
                kept[start : start + len(part)] = part
        assert kept is not None
        return kept

    def _empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        size = prod(shape) * like.element_size()
        if like.device.type != "cpu" or self.used + size <= self.memory:
            layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
            made = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
            self.used += size
            weakref.finalize(made, self._release, size)
            return made
        self.spilled += size
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            _reserve(file.fileno(), size, Path(file.name).parent)
            flat = torch.from_file(file.name, shared=True, size=prod(shape), dtype=like.dtype)
        if len(shape) != 4:
            return flat.view(shape)
        n, c, h, w = shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)

    def _release(self, size: int) -> None:
        self.used -= size


def _reserve(file: int, size: int, folder: Path) -> None:
    """Make room on disk now: on a full one, writing to a mapped file would end the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        raise RoadworthyError(
            f"{folder} has no room for {size / 2**20:.0f} MB of activations that do not fit into "
            f"--memory ({error.strerror}); free that much there, or give more memory"
        ) from error
