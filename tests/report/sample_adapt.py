"""run.json and the files beside it as an adaptation and a search write them."""

import json
from pathlib import Path
from typing import Any

from sample_report import Run
from sample_stage import cost

OUT = "out/adapted"


def sample_adapt() -> Run:
    """A linear layer's record, as `roadworthy adapt` writes it."""
    return {
        "command": "adapt",
        "config": {
            "model": "out/distilled",
            "data": "npz:train.npz",
            "task": "classification",
            "out": OUT,
            "protocol": {},
            "test": "npz:test.npz?x=x&y=y",
            "fraction": 0.1,
            "size": 32,
            "seed": 4,
            "machine": {"device": "auto", "precision": "32-true", "strategy": "ddp"},
        },
        "seed": 4,
        "data": {
            "labelled": {"spec": "npz:train.npz", "n": 2500, "sha256": "97e4" * 16},
            "test": {"spec": "npz:test.npz?x=x&y=y", "n": 1017, "sha256": "58ef" * 16},
        },
        "task": "classification",
        "judged_on": "npz:test.npz?x=x&y=y",
        "metric": "top1",
        "value": 0.342,
        "points": 100.0,
        "n": 1017,
        "protocol": "Linear",
        "fraction": 0.1,
        "chosen": 0.1,
        "trials": {"0.01": 2.053, "0.1": 1.936, "1": 1.98},
        "spec": f"py:{OUT}/model.py:build",
        "versions": {"torch": "2.15.0"},
        "host": {"cpu": "AMD EPYC"},
    }


def sample_depth() -> Run:
    """A head's record of depth that no test images judged, one of whose rates failed."""
    descent = {"steps": 200, "batch": 32, "rates": [0.0005, 0.008]}
    run = sample_adapt()
    config = {**run["config"], "task": "depth", "test": "", "protocol": {"descent": descent}}
    for key in ("judged_on", "metric", "value", "n", "points"):
        del run[key]
    told = {"protocol": "Frozen", "chosen": 0.0005, "trials": {"0.0005": 1.25, "0.008": None}}
    data = {"labelled": run["data"]["labelled"]}
    return {**run, "config": config, "task": "depth", "data": data, **told}


def write_manifest(folder: Path) -> None:
    """The manifest of an adaptation that began with a stage."""
    manifest = {
        "files": {"model.safetensors": "74e1" * 16},
        "parents": [{"folder": "out/distilled", "sha256": "fa72" * 16}],
        "compute": cost(),
        "total": {**cost(3), "ancestors": {}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


TRIALS = ((1_200_000, 0.16), (1_800_000, 0.21), (1_500_000, 0.18), (1_700_000, 0.23))


def network(score: float, macs: int) -> Run:
    stages = ["mbconv 2x16 inside", "xca 1x24 global"]
    return {"score": score, "macs": macs, "parameters": 538_039, "stages": stages}


def sample_search() -> Run:
    """A search's record, whose third trial was worse than the second."""
    sources = [["classification", "npz:train.npz"]], [["classification", "npz:held.npz"]]
    ranked = sorted(TRIALS, key=lambda each: -each[1])
    return {
        "command": "learn search",
        "config": {
            "model": "metanet:mn_xs",
            "sources": {"learned": sources[0], "held": sources[1], "choosing": [], "size": 32},
            "plan": {"steps": 40, "batch": 32, "rate": 0.003, "temperature": 2.0, "seed": 0},
            "machine": {"device": "auto", "precision": "32-true", "strategy": "ddp"},
            "out": "out/search",
            "evaluations": 4,
            "budget": None,
            "method": "evolution",
        },
        "seed": 0,
        "data": {
            "train": {"spec": "npz:train.npz", "n": 1024, "sha256": "6d41" * 16},
            "held": {"spec": "npz:held.npz", "n": 300, "sha256": "49bd" * 16},
        },
        "budget": 1_914_304,
        "networks": 293_534_171_136,
        "evaluations": 4,
        "itself": network(0.17, 1_914_304),
        "best": [network(score, macs) for macs, score in ranked],
        "stage": "searched",
        "compute": cost(),
        "held_out": [],
        "versions": {"torch": "2.15.0"},
        "host": {"cpu": "AMD EPYC"},
    }


def write_trials(folder: Path) -> None:
    """The journal of a search, whose first line says what it is of, and its supernet's log."""
    rows: list[dict[str, Any]] = [{"goal": {"budget": 1_914_304}, "seed": 0}]
    rows += [{"network": {}, "macs": macs, "score": score} for macs, score in TRIALS]
    lines = [json.dumps(row) for row in rows]
    (folder / "trials.jsonl").write_text("\n".join([*lines, '{"network": {"sta']))
    (folder / "supernet").mkdir()
    log = [{"step": step, "source": "train", "loss": 2.5 - step / 50} for step in range(40)]
    (folder / "supernet" / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
