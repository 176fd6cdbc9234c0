"""What this machine and these libraries are: whatever may change the numbers, for the record."""

import os
import platform
from typing import Any

from roadworthy.core.colours import COLOURS
from roadworthy.core.decoders import DECODERS
from roadworthy.core.resizers import RESIZERS


def fingerprint() -> dict[str, Any]:
    """Library versions, the JPEG library behind Pillow, CPU instruction sets, threads."""
    import torch
    from PIL import features

    table = (*DECODERS, *RESIZERS, *COLOURS)
    return {
        "libraries": {entry.library: entry.version() for entry in table},
        "torch": torch.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "jpeg": features.version("jpg"),
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "flags": _flags(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _cpu() -> str:
    return _field("model name") or platform.processor() or platform.machine()


def _flags() -> list[str]:
    """The instruction sets that inference kernels choose by."""
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp")
    present = set((_field("flags") or _field("Features") or "").split())
    return [name for name in known if name in present]


def _field(name: str) -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            lines = [line.partition(":") for line in file]
    except OSError:
        return None
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)
