"""What this machine and these libraries are: whatever may change the numbers, for the record."""

from typing import Any

from roadworthy.core.colours import COLOURS
from roadworthy.core.decoders import DECODERS
from roadworthy.core.resizers import RESIZERS
from roadworthy.core.runs import host


def fingerprint() -> dict[str, Any]:
    """Library versions, the JPEG library behind Pillow, CPU instruction sets, threads."""
    import torch
    from PIL import features

    machine = host()
    table = (*DECODERS, *RESIZERS, *COLOURS)
    return {
        "libraries": {entry.library: entry.version() for entry in table},
        "torch": torch.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "jpeg": features.version("jpg"),
        "cpu": machine["cpu"],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "flags": machine["instruction_sets"],
        "threads": machine["threads"],
        "cores": machine["cores"],
    }
