"""Shapes and types of every call are checked in tests; real data comes from ROADWORTHY_DATA."""

import inspect
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import get_args

import jaxtyping
import pytest
import torch
from hypothesis import settings
from jaxtyping import AbstractArray, install_import_hook

_with_axes = jaxtyping.jaxtyped


def _names_axes(annotation: object) -> bool:
    """Whether it holds an array type with axes, or a name that is known only later."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(_names_axes(part) for part in get_args(annotation))


def _jaxtyped(*, typechecker: Callable[..., object]) -> Callable[[object], object]:
    """Types are checked at every call; axes are compared where a function names some.

    What compares axes takes 0.13 ms a call, also where it has none to compare; the check of plain
    types takes half a microsecond, and one test has made 150 000 calls.
    """

    def decorate(function: object) -> object:
        hints = inspect.get_annotations(function) if inspect.isfunction(function) else {"": "axes"}
        if any(map(_names_axes, hints.values())):
            return _with_axes(function, typechecker=typechecker)
        return typechecker(function)

    return decorate


jaxtyping.jaxtyped = _jaxtyped

# As PEP 484 has it, an int is good where a float is asked for.
install_import_hook(
    "roadworthy", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

# The networks here are too small to share among threads, and a busy machine makes threads wait.
torch.set_num_threads(1)
# A slow machine is no failure.
settings.register_profile("roadworthy", deadline=None, max_examples=50)
settings.load_profile("roadworthy")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real data sets."""
    folder = os.environ.get("ROADWORTHY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ROADWORTHY_DATA does not name a folder with the real data sets")
    return Path(folder)


@pytest.fixture(scope="module")
def two_workers() -> Generator[None]:
    """A session of Ray with two processors, which the runs of a file find open."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()
