"""Two local workers of Ray find what one process finds; what goes wrong there is told here."""

import json
import operator
import os
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from roadworthy import cluster
from roadworthy.cli import main
from roadworthy.core.images import Preprocess
from roadworthy.errors import BadInput, BadModel, RoadworthyError
from roadworthy.noise.sweep import sweep
from roadworthy.noise.systems import System
from roadworthy.requests import RoadChoice
from roadworthy.roadtest import open_bench

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is missing: pip install 'roadworthy[cluster]'"
)
MODEL = """
import os
from pathlib import Path
import torch
from torch import nn
PREPROCESS = {"resize": "pillow-bilinear", "geometry": "squash", "size": 16}
def build():
    with Path(__file__).with_name("pids.txt").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).eval()
"""
BASE = System(Preprocess(resize="pillow-bilinear", geometry="squash", size=(16, 16)))
OTHERS = [
    replace(BASE, preprocess=replace(BASE.preprocess, colour="bgr")),
    replace(BASE, preprocess=replace(BASE.preprocess, resize="pillow-nearest")),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network and 20 photos."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "net.py").write_text(MODEL)
    (folder / "spec.yaml").write_text("resize: pillow-bilinear\ngeometry: squash\nsize: 16\n")
    for i in range(20):
        file = folder / "photos" / "abc"[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        blobs = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(blobs).resize((48, 40), Image.Resampling.BICUBIC).save(file)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of 20 images."""
    monkeypatch.setattr("roadworthy.noise.sweep.SHARD", 8)


def run(place: Path, out: str, *more: str) -> list[str]:
    asked = ["--data", f"imagefolder:{place}/photos", "--stages", "colour,normalise"]
    return ["noise", f"py:{place}/net.py:build", *asked, "--out", str(place / out), *more]


def numbers(out: Path) -> dict[str, Any]:
    """What a run found, without what each run has of its own."""
    found = json.loads((out / "run.json").read_text())
    return {k: v for k, v in found.items() if k not in ("config", "seconds")}


@needs_ray
def test_two_workers_and_one_process_find_the_same(place: Path, two_workers: None) -> None:
    assert main(run(place, "serial")) == 0
    assert set((place / "pids.txt").read_text().split()) == {str(os.getpid())}
    assert main(run(place, "ray", "--workers", "ray")) == 0
    assert len(set((place / "pids.txt").read_text().split())) == 1 + 2
    serial, spread = place / "serial" / "noise.json", place / "ray" / "noise.json"
    assert spread.read_bytes() == serial.read_bytes()
    assert numbers(place / "ray") == numbers(place / "serial")
    assert any(row["flip_rate"] for row in json.loads(spread.read_text()))


@needs_ray
def test_a_module_goes_to_the_workers_and_arrays_come_back(place: Path, two_workers: None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).eval()
    road = RoadChoice(f"imagefolder:{place}/photos", str(place / "spec.yaml"), device="cpu")
    bench = open_bench(net, road)
    alone = sweep(bench, BASE, OTHERS, "")
    with cluster.ray_workers(partial(open_bench, net, road), gpu=False) as spread:
        shared = sweep(replace(bench, spread=spread), BASE, OTHERS, "")
    assert shared.indices.tolist() == list(range(20))
    for system in (BASE, *OTHERS):
        for field in ("evidence", "flips", "brief"):
            own, other = (getattr(found, field)[system] for found in (alone, shared))
            assert own.dtype == other.dtype
            assert np.array_equal(own, other)
    assert shared.flips[OTHERS[0]].any()


@needs_ray
def test_what_a_worker_dislikes_is_told_as_it_would_be_here(two_workers: None) -> None:
    opened = partial(open_bench, "py:none.py:build", RoadChoice("builtin:photos"))
    with (
        cluster.ray_workers(opened, gpu=False) as spread,
        pytest.raises(BadModel, match=r"none\.py"),
    ):
        list(spread(BASE, [BASE], [range(8)]))


@needs_ray
def test_a_task_has_as_many_threads_as_who_asks(two_workers: None) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.warns(UserWarning, match="a row takes all 2 processors"):
            found = dict(cluster.mapped(operator.call, [torch.get_num_threads] * 2, gpu=False))
        assert found == {0: 2, 1: 2}
        torch.set_num_threads(3)
        with pytest.raises(BadInput, match="3 threads a row and machines of 2 processors given"):
            list(cluster.mapped(operator.call, [torch.get_num_threads], gpu=False))
    finally:
        torch.set_num_threads(threads)


@needs_ray
def test_after_a_fault_no_task_goes_on(two_workers: None, tmp_path: Path) -> None:
    late = f"import time; time.sleep(2); open({str(tmp_path / 'late')!r}, 'w')"
    with pytest.raises(ValueError, match="invalid literal"):
        list(cluster.mapped(operator.call, [partial(int, "no"), partial(exec, late)], gpu=False))
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


@needs_ray
def test_a_worker_that_dies_is_told(two_workers: None) -> None:
    opened: Any = partial(os._exit, 1)
    with (
        cluster.ray_workers(opened, gpu=False) as spread,
        pytest.raises(RoadworthyError, match=r"a worker of Ray died.*same command goes on"),
    ):
        list(spread(BASE, [BASE], [range(8)]))


def test_without_ray_it_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert main(run(place, "missing", "--workers", "ray")) == 2
    said = capsys.readouterr().err.strip()
    assert said == "roadworthy noise: --workers ray needs Ray; pip install 'roadworthy[cluster]'"
    assert not (place / "missing").exists()


class FakeRay(SimpleNamespace):
    def __init__(self, is_open: bool, error: Exception | None = None) -> None:
        super().__init__(did=[], is_initialized=lambda: is_open, error=error)

    def init(self, **_: object) -> None:
        self.did.append("init")
        if self.error:
            raise self.error

    def shutdown(self) -> None:
        self.did.append("shutdown")


@pytest.mark.parametrize(("is_open", "did"), [(False, ["init", "shutdown"]), (True, [])])
def test_ray_is_left_as_it_was_found(
    monkeypatch: pytest.MonkeyPatch, is_open: bool, did: list[str]
) -> None:
    fake = FakeRay(is_open)
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    monkeypatch.setattr(cluster, "import_module", lambda name: fake)
    with pytest.raises(KeyboardInterrupt), cluster.session():
        raise KeyboardInterrupt
    assert fake.did == did


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(False, ConnectionError("Failed to connect\n to GCS"))
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    monkeypatch.setattr(cluster, "import_module", lambda name: fake)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(BadInput, match=r"RAY_ADDRESS 10\.0\.0\.1:6379 .*connect to GCS"):  # noqa: SIM117
        with cluster.session():
            pass


def test_another_kind_of_workers_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(run(place, "dask", "--workers", "dask"))
    assert "--workers: invalid choice: 'dask'" in capsys.readouterr().err


def test_models_get_folders_and_a_leaderboard(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, model, *asked = run(place, "board")
    assert main([command, model, model, *asked]) == 0
    said = capsys.readouterr().out
    assert said.count("points lost:") == 2
    assert said.endswith(f"written    {place}/board/report.html\n")
    first, second = place / "board" / "net.py-build", place / "board" / "net.py-build-2"
    assert (first / "noise.json").read_bytes() == (second / "noise.json").read_bytes()
    assert "Road tests" in (place / "board" / "report.html").read_text()


def test_a_model_s_folder_is_not_written_over(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, *asked = run(place, "photos")
    assert main(["noise", str(place / "photos"), *asked]) == 2
    assert "is the model's folder" in capsys.readouterr().err
