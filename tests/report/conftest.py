"""Folders with a run.json in them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_report import Run, picture, sample_run


@pytest.fixture
def run_json() -> Run:
    return sample_run()


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    def write(run: Run, name: str = "resnet20-w4a4", *, samples: bool = False) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run))
        if samples:
            said = [("Loafer", "Loafer"), ("jeep", "convertible"), ("drum", "drum")]
            rows = [
                {"image": picture(i), "label": a, "float": a, "deployed": b}
                for i, (a, b) in enumerate(said)
            ]
            (folder / "samples.json").write_text(json.dumps({"samples": rows}))
        return folder

    return write
