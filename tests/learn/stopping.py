"""Stages that are stopped on their way, as by Ctrl-C or by whatever else a test does to them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from roadworthy.learn import loop
from roadworthy.learn.plan import Plan, rate_at


def interrupted() -> None:
    raise KeyboardInterrupt


def stopped(step: int, how: Callable[[], None]) -> Callable[[int, Plan], float]:
    """A stand-in for the rate that does `how` when step `step` asks for it."""

    def rate(now: int, plan: Plan) -> float:
        if now == step:
            how()
        return rate_at(now, plan)

    return rate


@contextmanager
def interruption(step: int) -> Generator[None]:
    """What learns in this block is interrupted at that step, and must be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "rate_at", stopped(step, interrupted))
        with pytest.raises(KeyboardInterrupt):
            yield
