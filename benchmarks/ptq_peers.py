"""Post-training quantization, side by side: roadworthy and the public tools on one model and data.

ResNet-20 (resnet_cifar.py) on the calibration set, test A and test B of cifar_sets.py.
First and last layer stay at 8 bit. Each peer lives in an environment of its own, made here with uv
and kept; each cell is a process of its own on one core. Finished cells are kept under --out, so an
interrupted run goes on where it stopped.

    python benchmarks/ptq_peers.py --out out/peers
    python benchmarks/ptq_peers.py --out out/peers --only nncf --columns w8a8 w4a8
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cifar_sets import calibration, test_a, test_b
from peer_table import Entry, Result, show, summary
from resnet_cifar import resnet20

PEERS = Path(__file__).resolve().parent / "peers"
COLUMNS = ("w8a8", "w4a8", "w4a4", "w3a3", "w2a4", "w2a2")


@dataclass(frozen=True)
class Peer:
    """A tool: its script is peers/peer_NAME.py; without pins it runs in this environment."""

    name: str
    pins: tuple[str, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One process: a peer's method at one column and seed."""

    peer: Peer
    method: str
    column: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.peer.name}-{self.method}-{self.column}-s{self.seed}"

    @property
    def bits(self) -> tuple[int, int]:
        weight, act = re.fullmatch(r"w(\d)a(\d)", self.column).groups()
        return int(weight), int(act)

    def entry(self, found: Result, cells: Path) -> Entry:
        predictions = cells / f"{self.key}.npz"
        return Entry(self.peer.name, self.method, self.column, self.seed, found, predictions)


# torch is the newest that a peer's own requirements admit; it decides nothing about accuracy.
ALL = (
    Peer("roadworthy", (), ("mse", "qdrop", "qdrop-plus")),
    Peer("onnxruntime", ("onnxruntime==1.32.0", "onnx", "sympy"), ("minmax", "percentile-99.9")),
    Peer("torchao", ("torchao==0.18.0", "torch==2.15.0", "numpy"), ("pt2e-xnnpack", "pt2e-x86")),
    Peer(
        "brevitas",
        # Its examples, which hold the pipeline, import what the package does not name.
        (
            *("brevitas==0.13.4", "torch==2.15.0", "torchvision==0.29.2", "numpy"),
            "accelerate",
            "tqdm",
        ),
        ("bias-correction", "learned-round"),
    ),
    Peer(
        "aimet",
        ("aimet-onnx==2.42.0", "torch==2.13.0", "numpy"),
        ("tf_enhanced", "adaround-500", "adaround"),
    ),
    Peer("nncf", ("nncf==3.4.0", "openvino==2026.4.1", "onnx"), ("ptq",)),
    Peer(
        "modelopt",
        ("nvidia-modelopt==0.47.0", "torch==2.15.0", "numpy", "requests", "huggingface_hub"),
        ("max", "mse"),
    ),
)


def prepare(work: Path) -> None:
    """Write what every peer is handed: data.npz and model.onnx."""
    if (work / "data.npz").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    (cal, _), (a, ya), (b, yb) = calibration(), test_a(), test_b()
    example = torch.from_numpy(cal[:2])
    torch.onnx.export(
        resnet20(),
        (example,),
        work / "model.onnx",
        opset_version=21,
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
    )
    np.savez(work / "data.npz", cal=cal, a=a, ya=ya, b=b, yb=yb)


def find_uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SystemExit("uv is needed to make the peers' environments: pip install uv")
    return found


def environment(peer: Peer, venvs: Path) -> Path:
    """The peer's interpreter; its environment is made if absent or pinned differently."""
    if not peer.pins:
        return Path(sys.executable)
    home = venvs / peer.name
    python, stamp = home / "bin" / "python", home / "pins.txt"
    if stamp.exists() and stamp.read_text().split() == list(peer.pins):
        return python
    uv = find_uv()
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(home)], check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(python), *peer.pins],
        check=True,
        capture_output=True,
        text=True,
    )
    stamp.write_text("\n".join(peer.pins))
    return python


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


def run(job: Job, venvs: Path, out: Path, timeout: float, do: str = "judge") -> Result:
    """One cell's numbers, or {'refuses': ...}, or {'failed': ...}; never an exception."""
    weight_bits, act_bits = job.bits
    try:
        done = subprocess.run(
            [
                str(environment(job.peer, venvs)),
                str(PEERS / f"peer_{job.peer.name}.py"),
                *("--method", job.method, "--seed", str(job.seed)),
                *("--weight-bits", str(weight_bits), "--act-bits", str(act_bits)),
                *("--work", str(out / "work"), "--do", do),
                *("--predictions", str(out / "cells" / f"{job.key}.npz")),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        (out / "cells" / f"{job.key}-{do}.log").write_text(done.stdout + done.stderr)
        if done.returncode < 0:
            return {"failed": f"ended by {signal.Signals(-done.returncode).name}"}
        if done.returncode:
            return {"failed": last_line(done.stderr)}
        return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    except subprocess.CalledProcessError as error:
        return {"failed": f"install: {last_line(error.stderr or '')}"}
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {timeout:.0f} s"}
    except ValueError:
        return {"failed": "printed no JSON line"}


def finished(job: Job, out: Path) -> Result | None:
    """What an earlier run left for this cell; failures are tried again."""
    path = out / "cells" / f"{job.key}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return None if "failed" in found else found


def jobs(given: argparse.Namespace) -> Iterator[Job]:
    for peer in ALL:
        if given.only and peer.name not in given.only:
            continue
        seeds = given.seeds if not peer.pins else given.seeds[:1]
        for method in (m for m in peer.methods if not given.methods or m in given.methods):
            for column in given.columns:
                yield from (Job(peer, method, column, seed) for seed in seeds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--venvs", type=Path, default=Path.home() / ".cache" / "roadworthy-peers")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in ALL], metavar="PEER")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these of each peer")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="ours; peers: the first")
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds for one cell")
    return parser.parse_args()


def write(entries: list[Entry], given: argparse.Namespace) -> str:
    with np.load(given.out / "work" / "data.npz") as store:
        truth = {name: store[name] for name in ("ya", "yb")}
    text = summary(entries, given.columns, truth)
    facts = [entry.facts() for entry in entries]
    (given.out / "peers.json").write_text(json.dumps(facts, indent=1))
    (given.out / "peers.md").write_text(text + "\n")
    return text


def main() -> None:
    given = arguments()
    cells = given.out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    prepare(given.out / "work")
    entries: list[Entry] = []
    for job in jobs(given):
        found = finished(job, given.out)
        if found is None and given.finished:
            continue
        if found is None:
            found = run(job, given.venvs, given.out, given.timeout)
            (cells / f"{job.key}.json").write_text(json.dumps(found))
        entries.append(job.entry(found, cells))
        print(f"{job.key}: {show(entries[-1:])}", file=sys.stderr, flush=True)
    print(write(entries, given))


if __name__ == "__main__":
    main()
