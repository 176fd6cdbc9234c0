"""Live progress of a reconstruction: time left of the pass, the unit at work, finished losses."""

import sys
from types import TracebackType
from typing import Any

from roadworthy.compress.engine import Step


class UnitProgress:
    """A bar on a terminal, silence elsewhere; always on stderr."""

    def __init__(self, text: str) -> None:
        self._text, self._bar = text, None
        self._last: Step | None = None
        self._pass: Any = None
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

    def show(self, step: Step) -> None:
        """Move the pass's bar; a unit that is done leaves a line with its loss."""
        if self._bar is None:
            return
        last, self._last = self._last, step
        if last is None or last.number != step.number or step.share < last.share:
            self._pass = self._bar.add_task("", total=1.0)
        text = f"{self._text}, pass {step.number + 1}: {step.unit}, loss {step.loss:.4g}"
        self._bar.update(self._pass, completed=step.share, description=text)
        if step.step == step.steps:
            self._bar.console.print(f"{step.unit}: loss {step.loss:.4g}", highlight=False)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeLeft()
    return Progress(*columns, console=Console(stderr=True))
