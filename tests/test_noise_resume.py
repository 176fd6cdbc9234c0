"""A sweep that is killed goes on where it stopped, and ends as if nothing had happened."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadworthy.cli import main
from roadworthy.noise.sweep import SHARD

# Every batch is noted, and slow where a test wants to be in time to kill.
MODEL = """
import os, time
from pathlib import Path
import torch
from torch import nn
PREPROCESS = {"resize": "pillow-bilinear", "geometry": "squash", "size": 8}
class Net(nn.Linear):
    def forward(self, x):
        with Path(__file__).with_name("batches.txt").open("a") as file:
            file.write(f"{len(x)}\\n")
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().forward(x.flatten(1))
def build():
    torch.manual_seed(1)
    return Net(192, 3).eval()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    for i in range(SHARD + 20):
        file = tmp_path / "photos" / "abc"[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 9, 3), np.uint8)).save(file)
    return tmp_path


def command(place: Path, out: str) -> list[str]:
    asked = ["--data", f"imagefolder:{place}/photos", "--out", str(place / out)]
    return ["noise", f"py:{place}/net.py:build", *asked, "--stages", "colour"]


def judged(place: Path) -> int:
    """Images that the network has seen since the last call."""
    file = place / "batches.txt"
    seen = sum(map(int, file.read_text().split()))
    file.unlink()
    return seen


def kept(place: Path) -> list[Path]:
    return list((place / "killed" / ".unfinished").rglob("0*.npz"))


def kill_after_the_first_part(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "roadworthy", *command(place, "killed")],
        env={**os.environ, "SLOW": "0.05"},
    )
    try:
        while not kept(place):
            assert process.poll() is None, "the sweep ended before it was killed"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def test_a_killed_sweep_goes_on_where_it_stopped(place: Path) -> None:
    assert main(command(place, "whole")) == 0
    all_of_it = judged(place)
    kill_after_the_first_part(place)
    judged(place)
    assert len(kept(place)) == 1
    assert not (place / "killed" / "noise.json").exists()
    assert main(command(place, "killed")) == 0
    whole, resumed = place / "whole" / "noise.json", place / "killed" / "noise.json"
    assert resumed.read_bytes() == whole.read_bytes()
    # The training system is among those that were spared the images of the part that was kept.
    assert judged(place) <= all_of_it - 2 * SHARD
    assert not (place / "killed" / ".unfinished").exists()
