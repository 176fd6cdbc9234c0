import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from roadworthy.core.runs import (
    RunRecord,
    host,
    output_room,
    peak_memory_mb,
    plain,
    versions,
    write_atomically,
)
from roadworthy.errors import BadData, BadInput, RoadworthyError


def made(**numbers: object) -> RunRecord:
    return RunRecord("quantize", {"bits": "w4a4"}, 7, {"eval": {"n": 3}}, numbers)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = made(float={"value": 0.9}, seconds=1.5)
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path).to_dict() == record.to_dict()
    assert RunRecord.load(tmp_path / "run.json") == RunRecord.load(tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    assert values["float"]["value"] == 0.9
    assert values["seed"] == 7
    assert values["host"]["cpu"]
    assert values["versions"]["torch"] == torch.__version__.split("+")[0]


def write_half_of(path: Path) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")


def test_numbers_may_not_hide_the_record() -> None:
    with pytest.raises(ValueError, match="seed"):
        made(seed=1)


def test_no_value_of_a_run_breaks_its_record(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Inner:
        path: Path
        values: torch.Tensor

    odd = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "count": np.int64(3),
        "inner": Inner(Path("a"), torch.ones(2)),
        1: {2},
        "dtype": torch.int8,
    }
    made(odd=odd).save(tmp_path / "run.json")
    found = RunRecord.load(tmp_path).numbers["odd"]
    assert found == {
        "nan": None,
        "inf": None,
        "count": 3,
        "inner": {"path": "a", "values": [1.0, 1.0]},
        "1": [2],
        "dtype": "torch.int8",
    }
    assert plain(True) is True


@pytest.mark.parametrize("text", ["", "{", "[]", '{"command": "x"}'])
def test_what_is_no_record_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadData, match=r"run\.json"):
        RunRecord.load(tmp_path)
    with pytest.raises(BadData, match="none"):
        RunRecord.load(tmp_path / "none.json")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.onnx"
    with write_atomically(path) as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_text("old")
    with pytest.raises(RoadworthyError, match="cannot be written: disk full"):
        write_half_of(path)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.onnx"]


def test_a_kill_leaves_no_half_written_file(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with write_atomically(tmp_path / "a.onnx") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "a.onnx").exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_host_facts() -> None:
    facts = host()
    assert facts["threads"] >= 1
    assert facts["memory_gb"] > 0.1
    assert isinstance(facts["instruction_sets"], list)
    assert {"python", "torch", "onnxruntime", "roadworthy"} <= set(versions())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_peak_memory_is_the_kernels_high_water_mark() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak_memory_mb() == pytest.approx(kilobytes / 1024, rel=0.05)


def fail_in(out: Path, *written: str) -> None:
    with output_room(out, "quantize"):
        for name in written:
            (out / name).write_text("kept")
        raise BadInput("no")


def test_a_refused_run_takes_the_parents_that_it_made_along(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput, match="no"):
        fail_in(tmp_path / "mine" / "a" / "b")
    assert [each.name for each in tmp_path.rglob("*")] == ["mine"]


def test_a_failed_run_keeps_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no"):
        fail_in(tmp_path / "a" / "b", "units.pt")
    assert (tmp_path / "a" / "b" / "units.pt").read_text() == "kept"
