"""Live progress of a reconstruction: unit, step, loss, time left."""

import sys
from types import TracebackType
from typing import Any


class UnitProgress:
    """A bar on a terminal, silence elsewhere; always on stderr."""

    def __init__(self, text: str) -> None:
        self._text, self._bar, self._tasks = text, None, dict[str, Any]()
        if sys.stderr.isatty():
            self._bar = _bar()

    def __enter__(self) -> "UnitProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, unit: str, step: int, steps: int, loss: float) -> None:
        """`step` of `steps` of `unit` are done, its loss is `loss`."""
        if self._bar is None:
            return
        if unit not in self._tasks:
            self._tasks[unit] = self._bar.add_task(f"{self._text} {unit}", total=steps, loss=loss)
        self._bar.update(self._tasks[unit], completed=step, loss=loss)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
