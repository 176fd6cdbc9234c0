"""The types that are written down hold at every call of the tests, and so do the axes."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from roadworthy.compress.ranges import from_limits
from roadworthy.core.grid import Grid, along


def test_plain_types_are_checked() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="axis"):
        along(torch.ones(2), "first", 2)  # pyright: ignore[reportArgumentType]


def test_fields_of_dataclasses_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="bits"):
        Grid("four")  # pyright: ignore[reportArgumentType]


def test_axes_of_one_name_are_equally_long() -> None:
    with pytest.raises(TypeCheckError, match="high"):
        from_limits(torch.zeros(2), torch.ones(3), Grid(4))
