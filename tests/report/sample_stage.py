"""run.json, manifest.json, config.json and log.jsonl as a stage of learning writes them."""

import json
from pathlib import Path
from typing import Any

from sample_report import Run

SCENES = "scenes (synthetic)"
TASKS = {
    "classification": ("top1", 0.27, 100.0),
    "detection": ("map50", 0.021, 100.0),
    "depth": ("rmse", 8.5275, -100.0),
}


def cost(times: int = 1) -> Run:
    return {
        "images": 4800 * times,
        "macs": 607_297_929_216 * times,
        "cpu_seconds": 92.7 * times,
        "gpu_seconds": 0.0,
        "wall_seconds": 96.0 * times,
    }


def sample_stage(shift: float = 0.0) -> Run:
    """A generalist's record; `shift` is added to every metric."""
    learned = [[task, "shards:out/scenes"] for task in TASKS]
    return {
        "command": "learn generalist",
        "config": {
            "stage": "generalist",
            "model": "out/detection",
            "sources": {"learned": learned, "held": learned[:1], "choosing": [], "size": 64},
            "plan": {"steps": 100, "batch": 48, "rate": 0.001, "temperature": 2.0, "seed": 0},
            "machine": {"device": "auto", "precision": "32-true", "strategy": "ddp"},
            "out": "out/generalist",
            "auxiliaries": ["out/classification", "out/depth"],
        },
        "seed": 5,
        "data": {
            f"{SCENES} {task}": {"name": SCENES, "task": task, "n": 800, "sha256": "8761" * 16}
            for task in TASKS
        },
        "stage": "generalist",
        "parents": [{"folder": "out/detection", "sha256": "e29f" * 16}],
        "compute": cost(),
        "total_compute": cost(3),
        "held_out": [
            {"head": SCENES, "task": task, "judged_on": SCENES, "metric": metric}
            | {"value": value + shift, "points": points, "n": 200}
            for task, (metric, value, points) in TASKS.items()
        ],
        "versions": {"torch": "2.15.0"},
        "host": {"cpu": "AMD EPYC"},
    }


def sample_amateur() -> Run:
    """An amateur's record, judged by its captions."""
    held: list[Run] = [
        {"judged_on": SCENES, "metric": f"image to text recall@{k}", "n": 200}
        | {"value": 0.035 * k, "chance": 0.005 * k}
        for k in (1, 5)
    ]
    stage: Run = {"command": "learn amateur", "stage": "amateur", "held_out": held, "parents": []}
    config = {**sample_stage()["config"], "stage": "amateur", "model": "metanet:mn_xs@random"}
    config |= {"auxiliaries": [], "contrast": "declip"}
    config["sources"] = {"learned": [["captions", "shards:out/scenes"]], "size": 64}
    return {**sample_stage(), "config": config, **stage}


def sample_probes() -> Run:
    """What three probed backbones reach."""
    models = ["metanet:mn_xs@random", "out/distilled", "out/generalist"]
    return {
        "command": "learn probe",
        "config": {
            "models": models,
            "data": ["classification", "npz:train.npz"],
            "test": ["classification", "npz:test.npz"],
            "size": 32,
            "fraction": 0.1,
        },
        "seed": 0,
        "data": {"train": {"n": 800}, "test": {"spec": "npz:test.npz", "n": 200}},
        "probes": [
            {"model": model, "metric": "top1", "value": value, "points": 100.0, "n": 200}
            for model, value in zip(models, (0.41, 0.46, 0.44), strict=True)
        ],
    }


def write_beside(folder: Path, steps: int = 40) -> None:
    """The other files of a stage's folder, whose log ends with the half of a line."""
    manifest = {
        "files": {"model.safetensors": "fa72" * 16, "config.json": "0f09" * 16},
        "blend": {"share": 0.75},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text(json.dumps({"architecture": "metanet:mn_xs", "size": 64}))
    rows = [json.dumps(logged(step)) for step in range(steps)]
    (folder / "log.jsonl").write_text("\n".join([*rows, '{"step": 40, "lo']))


def logged(step: int) -> dict[str, Any]:
    """A row of the log: two tasks in turns, whose losses are 4 and 2 to begin with."""
    task = ("depth", "detection")[step % 2]
    loss = (4 if task == "depth" else 2) / (1 + step / 10)
    parts = {"answers": loss / 2, "features": loss / 3}
    told = {"step": step, "task": task, "source": SCENES, "rate": 0.001, "loss": loss, **parts}
    return {**told, "images_per_s": 50.0 + step, "seconds_left": 40 - step}
