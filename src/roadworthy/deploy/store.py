"""The simulated model on disk: integers in safetensors, what they mean in JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import nn

from roadworthy.core.runs import write_atomically

WEIGHTS, MEANING = "model.safetensors", "quantization.json"


def save_quantized(module: nn.Module, meaning: Mapping[str, Any], out: Path) -> None:
    """Write every buffer of `module`, and `meaning`, which says how to build it again."""
    with write_atomically(out / WEIGHTS) as temporary:
        tensors = {k: v.detach().contiguous() for k, v in module.state_dict().items()}
        temporary.write_bytes(save(tensors))  # save_file makes a file that others may not read
    with write_atomically(out / MEANING) as temporary:
        temporary.write_text(json.dumps(meaning, indent=1) + "\n")


def load_meaning(folder: Path) -> dict[str, Any]:
    """What `save_quantized` wrote about the model in `folder`."""
    return json.loads((folder / MEANING).read_text())


def fill(module: nn.Module, folder: Path) -> None:
    """Load the integers of `folder` into a module of the same structure."""
    module.load_state_dict(load_file(folder / WEIGHTS))
