import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import BadInput
from roadworthy.requests import (
    DataChoice,
    EvaluateRequest,
    Scheme,
    Solver,
    parse_bits,
    parse_kept,
    parse_memory,
)


@given(st.integers(2, 8), st.integers(2, 8))
def test_bits_read_as_they_are_written(weight: int, act: int) -> None:
    assert parse_bits(Scheme(weight, act).bits) == (weight, act)


@pytest.mark.parametrize("text", ["", "w4", "4", "w1a4", "w4a9", "w4a4a4", "int8", "w16a4"])
def test_other_bits_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="w2a2 to w8a8"):
        parse_bits(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 2**32), ("512 mb", 2**29), ("0.5GB", 2**29), ("1048576", 2**20), ("2TB", 2**41)],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "lots", "0", "12", "4 GiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="4GB"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["middle", "first,", "first;last", ""])
def test_other_layers_to_keep_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="first, last"):
        parse_kept(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DataChoice("x", calib_size=0),
        lambda: Scheme(1, 4),
        lambda: Scheme(4, 9),
        lambda: Scheme(max_drop=-1.0),
        lambda: Solver(iterations=0),
        lambda: Solver(batch_size=-3),
        lambda: Solver(tries=0),
        lambda: EvaluateRequest("m", "d", batch_size=0),
        lambda: EvaluateRequest("m", "d", limit=0),
    ],
)
def test_no_request_exists_invalid(build) -> None:
    with pytest.raises(BadInput, match="allowed"):
        build()
