"""What a stage tells while it runs: JSON lines, TensorBoard, and a line on a terminal."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from roadworthy.core.runs import plain, write_atomically

LINES = "log.jsonl"


@final
class Journal:
    """Writes a row for each told step; rows of steps from `start` on are of a lost attempt and go.

    Args:
        folder: of the stage.
        steps: how many there will be.
        start: first step of this attempt.
        active: False on ranks that stay silent.
    """

    def __init__(self, folder: Path, steps: int, start: int, active: bool = True) -> None:
        self._steps, self._start, self._active = steps, start, active
        self._began, self._images = time.perf_counter(), 0
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LINES
        rows = path.read_text().splitlines() if path.is_file() else []
        kept = [row for row in rows if _step(row) < start]
        with write_atomically(path) as temporary:
            temporary.write_text("".join(row + "\n" for row in kept))
        self._lines = path.open("a")
        self._board = _board(folder, start)

    def tell(self, step: int, images: int, numbers: Mapping[str, Any]) -> None:
        """One step: `images` since the last call, and what was measured."""
        self._images += images
        if not self._active:
            return
        passed = max(time.perf_counter() - self._began, 1e-9)
        left = passed / (step + 1 - self._start) * (self._steps - step - 1)
        speed = self._images / passed
        row = {"step": step, **plain(numbers), "images_per_s": round(speed, 1)}
        print(json.dumps({**row, "seconds_left": round(left)}), file=self._lines, flush=True)
        for name, value in numbers.items():
            if self._board is not None and isinstance(value, float):
                self._board.add_scalar(name, value, step)
        if sys.stderr.isatty():
            text = f"step {step + 1} of {self._steps}, loss {numbers['loss']:.3f}, "
            text += f"{speed:.0f} images/s, {left:.0f} s left"
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing more to tell."""
        if not self._active:
            return
        self._lines.close()
        if self._board is not None:
            self._board.close()
        if sys.stderr.isatty():
            print(file=sys.stderr)


def _step(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the half of a row that a kill left


def _board(folder: Path, start: int) -> Any:
    """A writer of TensorBoard's files, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start)
