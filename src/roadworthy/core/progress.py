"""A progress bar on a terminal, silence elsewhere; always on stderr, so that stdout stays data."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], text: str | None, total: int | None = None) -> Iterator[T]:
    """Yield from `items`, with a bar named `text` where stderr is a terminal.

    >>> list(track([1, 2], "counting"))
    [1, 2]
    """
    if text is None or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(items, text, total=total, console=Console(stderr=True), transient=True)
