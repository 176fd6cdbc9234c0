"""MNN, ncnn and LiteRT: the answers of onnxruntime, and one clear line where there are none."""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from by_hand import SmallNet, seeded, some_images
from onnx import TensorProto, helper

from roadworthy.core.predict import Predictor
from roadworthy.deploy.child import Child
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.extra_runtimes import Engine, ExtraPredictor, lacking
from roadworthy.deploy.runtimes import OpenVinoPredictor, OrtPredictor
from roadworthy.errors import BadInput, BadModel

ENGINES: tuple[Engine, ...] = ("mnn", "ncnn", "litert")
ALL = [
    pytest.param(e, marks=pytest.mark.skipif(lacking(e) is not None, reason=str(lacking(e))))
    for e in ENGINES
]
FAST = ALL[:2]
"""Those whose converter does not take twenty seconds."""
SEVERAL = [
    pytest.param(e.values[0], batch, marks=e.marks)
    for e, batch in [*((e, b) for e in FAST for b in ("b", 1)), (ALL[2], "b")]
]
MNN = pytest.mark.skipif(lacking("mnn") is not None, reason=str(lacking("mnn")))


def save(path: Path, nodes: list[onnx.NodeProto], outputs: list[str], batch: int | str) -> Path:
    """A file of one input ``x`` of three channels, 8 by 8."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [given], found)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(seeded(SmallNet), some_images(1), path)
    return path


def two(folder: Path, batch: int | str = "b") -> Path:
    """Maps and their means: two outputs, of which the first is the maps."""
    nodes = [
        helper.make_node("Relu", ["x"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
    ]
    return save(folder / "two.onnx", nodes, ["maps", "means"], batch)


@pytest.mark.parametrize("engine", ALL)
def test_logits_are_onnxruntimes(engine: Engine, path: Path) -> None:
    images, before = some_images(3), path.read_bytes()
    size = (images.shape[1], images.shape[2], images.shape[3])
    predictor = ExtraPredictor(engine, path, size, threads=1)
    assert isinstance(predictor, Predictor)
    torch.testing.assert_close(predictor(images), OrtPredictor(path, 1)(images))
    assert predictor.settings["threads"] == 1
    assert predictor.settings["runtime"].split()[0] in ("mnn", "ncnn", "ai-edge-litert")
    with pytest.raises(BadInput, match=r"images of shape \[1, 3, 8, 9\] given to a model that"):
        predictor(torch.zeros(1, 3, 8, 9))
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx"}


@pytest.mark.parametrize("engine", ALL)
def test_what_a_library_does_by_itself_is_recorded(engine: Engine, path: Path) -> None:
    images = some_images(2)
    size = (images.shape[1], images.shape[2], images.shape[3])
    how = "f16" if engine == "litert" else "default"
    predictor = ExtraPredictor(engine, path, size, 1, precision=how)
    exact = OrtPredictor(path, 1)(images)
    gap = float((predictor(images) - exact).abs().max() / exact.abs().max())
    halves = predictor.settings["precision"] == "float16"
    assert halves == (engine != "mnn")
    assert (1e-6 < gap < 1e-2) if halves else gap < 1e-5
    if engine == "mnn":
        assert "fp16:" in predictor.settings["cpu"]


@pytest.mark.parametrize(("engine", "batch"), SEVERAL)
def test_several_outputs_come_by_name(engine: Engine, batch: int | str, tmp_path: Path) -> None:
    images = torch.randn(3, 3, 8, 8)
    predictor = ExtraPredictor(engine, two(tmp_path, batch), (3, 8, 8), 1)
    found = predictor.everything(images)
    assert isinstance(found, dict)
    assert list(found) == ["maps", "means"]
    torch.testing.assert_close(found["maps"], images.relu())
    torch.testing.assert_close(found["means"], images.relu().mean((2, 3), keepdim=True))
    assert torch.equal(predictor(images), found["maps"])


@pytest.mark.parametrize("runtime", [OrtPredictor, OpenVinoPredictor])
def test_several_outputs_of_the_others_too(runtime: type, tmp_path: Path) -> None:
    images = torch.randn(5, 3, 8, 8)
    for batch in ("b", 2):
        found = runtime(two(tmp_path, batch), 1).everything(images)
        assert list(found) == ["maps", "means"]
        torch.testing.assert_close(found["means"], images.relu().mean((2, 3), keepdim=True))
    one = save(tmp_path / "one.onnx", [helper.make_node("Relu", ["x"], ["maps"])], ["maps"], "b")
    assert torch.equal(runtime(one, 1).everything(images), images.relu())


def test_as_many_rows_as_objects_come_image_by_image(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["boxes"]),
        helper.make_node("GlobalMaxPool", ["x"], ["best"]),
    ]
    found = OrtPredictor(save(tmp_path / "rows.onnx", nodes, ["boxes", "best"], 1)).everything(
        torch.eye(8).expand(2, 3, 8, 8) * torch.tensor([1.0, 0.0])[:, None, None, None]
    )
    assert isinstance(found, list)
    assert [tuple(each["boxes"].shape) for each in found] == [(24, 4), (0, 4)]
    assert [float(each["best"].max()) for each in found] == [1, 0]


@pytest.mark.parametrize("engine", FAST[1:])
def test_an_operator_that_a_runtime_lacks_is_told(engine: Engine, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unique", ["x"], ["u"]),
        helper.make_node("ReduceSum", ["u"], ["s"], keepdims=1),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    with pytest.raises(BadModel, match=r"cannot load .*(?i:unique)") as caught:
        ExtraPredictor(engine, save(tmp_path / "u.onnx", nodes, ["y"], "b"), (3, 8, 8), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ALL)
def test_broken_files_are_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage")
    with pytest.raises(BadModel, match="cannot load"):
        ExtraPredictor(engine, tmp_path / "bad.onnx", (3, 8, 8), 1)
    with pytest.raises(BadModel, match="no ONNX file at"):
        ExtraPredictor(engine, tmp_path / "none.onnx", (3, 8, 8), 1)


@pytest.mark.skipif(lacking("ncnn") is not None, reason=str(lacking("ncnn")))
def test_a_fixed_batch_is_no_file_for_one_image(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="takes batches of 2; ncnn runs images one by one"):
        ExtraPredictor("ncnn", two(tmp_path, 2), (3, 8, 8), 1)


@MNN
def test_a_fixed_batch_is_filled_up_by_mnn(tmp_path: Path) -> None:
    images = torch.randn(3, 3, 8, 8)
    predictor = ExtraPredictor("mnn", two(tmp_path, 2), (3, 8, 8), 1)
    torch.testing.assert_close(predictor(images), images.relu())


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_a_converter_that_writes_over_its_input_has_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx2tf does; a stand-in that only does that takes its place."""
    pytest.importorskip("ai_edge_litert", reason=str(lacking("litert")))
    tool = tmp_path / "tools" / "onnx2tf"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho spoilt > "$2"\necho "ERROR: no operator" >&2\nexit 3\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    path = two(tmp_path)
    before = path.read_bytes()
    with pytest.raises(BadModel, match="onnx2tf ended with exit code 3: ERROR: no operator"):
        ExtraPredictor("litert", path, (3, 8, 8), 1)
    assert path.read_bytes() == before


def test_what_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadworthy.deploy.extra_runtimes.installed_version", lambda _: None)
    assert lacking("mnn") == "mnn is not installed; pip install 'roadworthy[mnn]'"
    with pytest.raises(BadInput, match="ncnn is not installed"):
        ExtraPredictor("ncnn", Path("any.onnx"), (3, 8, 8))
    monkeypatch.setattr("roadworthy.deploy.extra_runtimes.installed_version", lambda _: "1")
    monkeypatch.setenv("PATH", "")
    assert "uv tool install --python 3.12 onnx2tf" in str(lacking("litert"))


class Faulty:
    """Opened by a child process; request 0 crashes it, request 1 raises."""

    @staticmethod
    def opened(mark: str):
        def answer(request: int) -> str:
            if request == 0:
                print("Check failed: kernel", file=sys.stderr, flush=True)
                os.abort()
            if request == 1:
                raise ValueError("one is too many")
            return f"{mark}{request}"

        return answer, {"mark": mark}


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """The class above in a module that another process can import."""
    lines = Path(__file__).read_text().split("class Faulty:")[1].split("\n\n\n")[0]
    (tmp_path / "faulty.py").write_text(f"import os\nimport sys\n\n\nclass Faulty:{lines}\n")
    (tmp_path / "opener.py").write_text("from faulty import Faulty\n\nopened = Faulty.opened\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Child("opener:opened", mark="m")


def test_a_crash_is_an_error_and_the_next_request_is_answered(faulty: Child) -> None:
    assert faulty.facts == {"mark": "m"}
    assert faulty(7) == "m7"
    with pytest.raises(ChildProcessError, match=r"crashed \(SIGABRT\): Check failed: kernel"):
        faulty(0)
    assert faulty(8) == "m8"
    with pytest.raises(RuntimeError, match="one is too many"):
        faulty(1)
    assert faulty(9) == "m9"


def test_arrays_pass_whole() -> None:
    child = Child("roadworthy.deploy.child:echo", greeting="hello")
    array = np.random.default_rng(0).random((64, 3, 32, 32), dtype=np.float32)
    assert np.array_equal(child(array)[0], array)
