"""What a long run keeps after every unit, so that a killed one goes on where it stood."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from roadworthy.core.runs import write_atomically


class Finished:
    """Learned quantizers of finished units in `folder`, valid for one fingerprint of the run.

    A different fingerprint (other settings, model or images) empties the folder; None for the
    folder keeps nothing.
    """

    def __init__(self, folder: Path | None, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        self._stamp = json.dumps(fingerprint, sort_keys=True, default=str).encode()
        path = folder / "fingerprint.json"
        if not path.is_file() or path.read_bytes() != self._stamp:
            self.clear()

    def load(self, key: str, unit: nn.Module) -> dict[str, Any] | None:
        """Restore `unit` and return what was recorded of it; None where it is not finished."""
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                unit.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
            return None  # written by another version or damaged: learn the unit again
        return facts

    def save(self, key: str, unit: nn.Module, facts: Mapping[str, Any]) -> None:
        """Keep `unit`'s state and `facts` under `key`, whole or not at all."""
        path = self._path(key)
        if path is not None:
            with write_atomically(path.with_name("fingerprint.json")) as temporary:
                temporary.write_bytes(self._stamp)
            state = {name: value.detach().contiguous() for name, value in unit.state_dict().items()}
            with write_atomically(path) as temporary:
                save_file(state, temporary, {"facts": json.dumps(dict(facts))})

    def clear(self) -> None:
        """Forget everything."""
        if self.folder is not None and self.folder.is_dir():
            shutil.rmtree(self.folder)
        elif self.folder is not None:
            self.folder.unlink(missing_ok=True)

    def _path(self, key: str) -> Path | None:
        return self.folder / f"{key}.safetensors" if self.folder is not None else None
