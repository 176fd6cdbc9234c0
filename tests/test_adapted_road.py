"""Models of `roadworthy adapt` on the whole road: quantized, evaluated, road-tested; all tasks."""

import json
from pathlib import Path

import pytest
from tiny_scenes import write_scenes

from roadworthy.cli import main
from roadworthy.core.metanet import POINTS, MetaNetConfig, Stage

TASKS = {
    "classification": ("linear", "top1", "class"),
    "segmentation": ("linear", "miou", "explained"),
    "depth": ("linear", "rmse", "explained"),
    "detection": ("frozen", "map50", "explained"),
}
SHORT = ["--fraction", "1", "--steps", "3", "--rates", "0.002", "--size", "32", "--device", "cpu"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """A backbone of four blocks."""
    stages = tuple(Stage("mbconv", 1, 64, 2, 2, 8) for _ in range(4))
    monkeypatch.setitem(POINTS, "tiny", MetaNetConfig(stages, stem=8, head=64))
    return "metanet:tiny@random"


@pytest.mark.parametrize("task", TASKS)
def test_a_quantized_model_of_each_task_is_judged_as_deployed(
    tiny: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol, metric, measure = TASKS[task]
    data, out, adapted = write_scenes(tmp_path)[task], tmp_path / "small", tmp_path / "adapted"
    given = ["--task", task, "--data", data, "--protocol", protocol, *SHORT, "--out", str(adapted)]
    assert main(["adapt", tiny, *given]) == 0
    given = ["--data", data, "--bits", "w8a8", "--method", "minmax", "--out", str(out)]
    assert main(["quantize", f"py:{adapted}/model.py:build", *given, "--eval", data]) == 0
    told = json.loads((out / "run.json").read_text())
    assert told["parity"]["measure"] == measure
    assert told["parity"]["agreement"] >= 0.995
    assert told["files"]["quantized_onnx_bytes"] < told["files"]["float_onnx_bytes"]
    fp, low = told["float"], told["deployed"]
    assert {fp["metric"], low["metric"], told["simulated"]["metric"]} == {metric}
    assert low["value"] == pytest.approx(fp["value"], abs=0.1)
    won = told["change"]
    assert won["delta"] == pytest.approx(low["value"] - fp["value"])
    assert won["low"] <= won["delta"] <= won["high"]
    assert told["against_float"]["agreement"] >= 0.8
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(low["value"], abs=1e-6)
    road_test = ["--stages", "colour", "--out", str(tmp_path / "noise")]
    assert main(["noise", str(out), "--data", data, *road_test]) == 0
    rows = json.loads((tmp_path / "noise" / "noise.json").read_text())
    assert all(row["delta"] is not None for row in rows)
