"""The progress of a reconstruction on a terminal, and nothing at all elsewhere."""

import io
import sys

import pytest

from roadworthy.compress.engine import Step
from roadworthy.live import UnitProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STEPS = (
    Step("stem", 50, 100, 0.25, 0, 0.25),
    Step("stem", 100, 100, 0.125, 0, 0.5),
    Step("head", 100, 100, 0.5, 0, 1.0),
    Step("network", 10, 10, 0.0625, 1, 1.0),
)


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with UnitProgress("qdrop w4a4") as bar:
        for step in STEPS:
            bar.show(step)
    return stream.getvalue()


def test_a_terminal_sees_the_pass_and_every_finished_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(Terminal(), monkeypatch)
    for expected in ("stem: loss 0.125", "head: loss 0.5", "network: loss 0.0625", "pass 2"):
        assert expected in text
    assert "stem: loss 0.25" not in text


def test_a_file_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch) == ""
