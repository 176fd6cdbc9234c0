"""The command line as a user meets it: exit codes, one clear line, JSON and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from roadworthy.cli import main
from roadworthy.options import EXAMPLES, parse, quantize_request
from roadworthy.requests import QuantizeRequest, StageName
from roadworthy.wording import say

NOISY = """
import os
from torch import nn

PREPROCESS = {}

def build():
    print("chatter")
    os.write(1, b"chatter of C code")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

def fails():
    return nn.Linear(3, 3)
"""


@pytest.fixture
def case(tmp_path: Path) -> tuple[str, str]:
    """A noisy model and images."""
    (tmp_path / "net.py").write_text(NOISY)
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(12) % 3)
    return f"py:{tmp_path / 'net.py'}:build", f"npz:{tmp_path / 'set.npz'}?x=x&y=y"


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_every_command_shows_an_example(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"example:\n  roadworthy {command}" in shown
    assert all(option in shown for option in ("--json", "--seed", "--device", "--debug"))


@pytest.mark.parametrize("lines", EXAMPLES.values())
def test_the_examples_are_understood(lines: list[str]) -> None:
    import shlex

    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        assert program == "roadworthy"
        given = parse(arguments)
        if given.command == "quantize":
            assert isinstance(quantize_request(given), QuantizeRequest)


def test_every_option_of_quantize_reaches_the_request(tmp_path: Path) -> None:
    line = (
        "quantize m --data d --eval e --out o --bits w3a5 --method brecq --effort paper "
        "--iterations 7 --batch-size 9 --calib-size 11 --keep-8bit last --backend academic "
        "--blocks a,b --memory 1GB --max-drop 0.5 --preprocess imagenet --skip-bad --no-resume "
        "--sensitivity --seed 3 --device cpu"
    )
    request = quantize_request(parse(line.split()))
    assert (request.model, request.out, request.seed) == ("m", Path("o"), 3)
    assert (request.device, request.resume, request.sensitivity) == ("cpu", False, True)
    data, scheme, solver = request.data, request.scheme, request.solver
    assert (data.calibration, data.evaluation, data.calib_size) == ("d", "e", 11)
    assert (data.preprocess, data.skip_bad) == ("imagenet", True)
    assert (scheme.bits, scheme.keep_8bit, scheme.backend) == ("w3a5", ("last",), "academic")
    assert scheme.max_drop == 0.5
    assert (solver.method, solver.effort, solver.iterations) == ("brecq", "paper", 7)
    assert (solver.batch_size, solver.memory, solver.blocks) == (9, 2**30, ("a", "b"))


def test_json_is_alone_on_stdout(case, capfd) -> None:
    model, data = case
    assert main(["evaluate", model, "--data", data, "--json", "--device", "cpu"]) == 0
    shown = capfd.readouterr()
    result = json.loads(shown.out)
    assert {"metric", "value", "n"} <= set(result)
    assert result["n"] == 12
    assert "chatter of C code" in shown.err


def test_a_result_for_people(case, capsys) -> None:
    model, data = case
    assert main(["evaluate", model, "--data", data]) == 0
    assert "of 12 images (95 % interval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["quantise"], "invalid choice: 'quantise'"),
        (["evaluate", "timm:resnet18@random"], "required: --data"),
        (["evaluate", "timm:resnet19@random", "--data", "builtin:photos"], "did you mean resnet18"),
        (["evaluate", "timm:resnet18@random", "--data", "/tmp"], "imagefolder:DIR"),
        (["quantize", "m", "--data", "d", "--out", "o", "--bits", "w1a1"], "w2a2 to w8a8"),
        (["quantize", "m", "--data", "d", "--out", "o", "--method", "gptq"], "qdrop-plus"),
        (["quantize", "m", "--data", "d", "--out", "o", "--memory", "much"], "4GB"),
        (["quantize", "m", "--data", "d", "--out", "o", "--iterations", "x"], "invalid int"),
        (["evaluate", "m", "--data", "d", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_input_exits_2_with_one_line(arguments, message: str, capsys) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_failing_model_exits_2_and_says_on_which_input(case, capsys) -> None:
    model, data = case
    assert main(["evaluate", model.replace(":build", ":fails"), "--data", data]) == 2
    assert "fails on float32 images of shape" in capsys.readouterr().err


def test_a_failure_exits_1_and_shows_its_trace_only_in_debug(case, capsys, monkeypatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("roadworthy.evaluate.evaluate", fails)
    arguments = ["evaluate", case[0], "--data", case[1]]
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("roadworthy evaluate: RuntimeError: ")
    assert "Traceback" not in shown
    with pytest.raises(RuntimeError):
        main([*arguments, "--debug"])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_too_little_memory_says_what_needs_less(error, case, capsys, monkeypatch) -> None:
    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr("roadworthy.evaluate.evaluate", fails)
    assert main(["evaluate", case[0], "--data", case[1]]) == 1
    assert "not enough memory; smaller images or batches" in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, roadworthy, roadworthy.cli\n"
        "try: roadworthy.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'timm', 'torchvision', 'transformers', 'onnx', 'onnxruntime',"
        " 'openvino', 'PIL', 'rich', 'matplotlib', 'jinja2', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert shown.stdout.splitlines()[-1] == "[]"


def test_stages_without_an_option_are_told() -> None:
    row = {"stage": "decode", "option": "opencv", "class": "opencv", "delta": -0.001, "ci_low": -1}
    row |= {"ci_high": 1.0, "flip_rate": 0.0, "missing": None}
    stages = ["decode", "resize", "padding", "post"]
    result = {"rows": [row], "metric": "top1", "value": 0.9, "n": 20, "advice": "None."}
    said = say("noise", result | {"config": {"stages": stages}})
    assert "decode opencv    0.00 (-1.00 to 1.00)" in said
    assert "nothing to change in resize, padding, post" in said
    said = say("noise", result | {"config": {"stages": get_args(StageName)}})
    assert "nothing to change in resize, geometry, colour, normalise, model, runtime, post" in said


def test_a_run_in_words() -> None:
    record = {
        "float": {"metric": "top1", "value": 0.9},
        "simulated": {"value": 0.89},
        "deployed": {"value": 0.8895},
        "parity": {"agreement": 0.999, "n": 1000},
        "files": {"float_onnx_bytes": 4 * 2**20, "quantized_onnx_bytes": 2**20},
        "latency": {"float_ms": 8.0, "quantized_ms": 3.5},
        "kernels": {"integer": 20, "float": 1, "pairs": 2, "ops": {}},
        "out": "out",
    }
    assert say("quantize", record).splitlines() == [
        "metric     float 90.00 %, simulated 89.00 %, deployed 88.95 %",
        "agreement  deployed and simulated: same class on 99.9 % of 1000 images",
        "size       4.00 MiB -> 1.00 MiB",
        "speed      8.00 ms -> 3.50 ms",
        "kernels    20 products in integers, 1 in floats; 2 quantizers without a kernel",
        "written    out",
    ]
    assert say("quantize", {}) == ""
    for slowest, told in ((3.9, "3.50 ms"), (22.0, "3.50 ms; single runs scatter widely")):
        detail = {"quantized": {"median_ms": 3.5, "p10": 3.4, "p90": slowest}}
        timed = {"latency": record["latency"] | {"detail": detail}}
        assert say("quantize", timed).startswith(f"speed      8.00 ms -> {told}")
    texts = {"config": {"data": "text:a.tsv?text=a"}}
    for measure, told in (
        ("cosine", "mean cosine 0.9960 over 9 texts"),
        ("explained", "variance explained 99.6 % over 9 texts"),
        ("token", "same token on 99.6 % of 9 tokens"),
    ):
        found = {**texts, "parity": {"agreement": 0.996, "n": 9, "measure": measure}}
        assert say("quantize", found) == f"agreement  deployed and simulated: {told}"
    units = [{"name": "layer1.0", "layers": ["conv1", "conv2"]}, {"name": "fc", "layers": ["fc"]}]
    assert say("blocks", units).splitlines() == ["layer1.0  conv1, conv2", "fc        fc"]
