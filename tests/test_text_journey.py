"""A text model from a Hugging Face folder to an ONNX file of integers, and back."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from tiny_texts import WORDS, write_model, write_texts

from roadworthy.cli import main
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import load_data
from roadworthy.core.texts import TextInput
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.journey import load_quantized

# Each with the layers of its network: of many candidates each costs what a layer costs.
METHODS = {"outlier-suppression": 2, "auto": 1, "qdrop-plus": 2}


def arguments(place: Path, *more: str, data: str = "texts.tsv", layers: int = 2) -> list[str]:
    spec = f"text:{place}/{data}?text=sentence"
    judge = f"text:{place}/texts.tsv?text=sentence&label=label"
    return ["quantize", f"hf:{place}/bert-{layers}", "--data", spec, "--eval", judge, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for layers in (1, 2):
        write_model(folder / f"bert-{layers}", layers=layers)
    write_texts(folder / "texts.tsv", rows=64)
    return folder


@pytest.fixture(scope="module", params=METHODS)
def done(place: Path, request: pytest.FixtureRequest) -> Path:
    method = request.param
    out = place / method
    more = ["--bits", "w8a8", "--method", method, "--iterations", "8", "--out", str(out)]
    assert main(arguments(place, *more, layers=METHODS[method])) == 0
    return out


def tokens(place: Path) -> torch.Tensor:
    dataset = load_data(f"text:{place}/texts.tsv?text=sentence&label=label")
    return load_tensor(dataset, TextInput(f"{place}/bert-1", length=16))[0]


def test_the_record_tells_accuracy_parity_and_distance_to_float(done: Path) -> None:
    metrics = json.loads((done / "run.json").read_text())
    assert metrics["parity"]["agreement"] >= 0.995
    assert metrics["parity"]["n"] == 64
    assert metrics["against_float"]["agreement"] > 0.8
    assert metrics["against_float"]["logit_error"] < 0.3
    assert metrics["deployed"]["metric"] == "top1"
    assert metrics["kernels"]["integer"] > 0
    assert metrics["kernels"]["float"] == 0
    assert metrics["kernels"]["pairs"] == 0


@pytest.mark.parametrize("done", ["outlier-suppression"], indirect=True)
def test_the_record_lists_the_norms_whose_gains_moved(done: Path) -> None:
    rows = json.loads((done / "run.json").read_text())["suppression"]["migrations"]
    moved = [row for row in rows if row["absorbed"]]
    assert len(moved) == 4, rows  # embeddings, attention and feed-forward norms but the last
    assert not [
        row for row in rows if row["norm"].endswith("layer.1.output.LayerNorm") and row["absorbed"]
    ]


@pytest.mark.parametrize("done", ["auto"], indirect=True)
def test_auto_takes_what_is_closest_to_float_on_held_out_texts(done: Path) -> None:
    tries = json.loads((done / "run.json").read_text())["tries"]
    meaning = json.loads((done / "quantization.json").read_text())["settings"]
    best = min(tries, key=lambda row: row["kl"])
    assert len(tries) == 6
    assert meaning["suppress"] == best["suppress"]


def test_the_stored_model_is_the_deployed_one(place: Path, done: Path) -> None:
    x = tokens(place)
    stored = IntegerPredictor(load_quantized(done))
    deployed = OrtPredictor(done / "model.onnx")
    torch.testing.assert_close(deployed(x), stored(x), rtol=1e-3, atol=1e-3)


def test_a_file_takes_texts_of_any_length(place: Path, done: Path) -> None:
    deployed = OrtPredictor(done / "model.onnx")
    x = tokens(place)[:3]
    short = int(x[:, 1].sum(1).max())
    torch.testing.assert_close(deployed(x[..., :short]), deployed(x), rtol=1e-3, atol=1e-3)


def test_tables_stay_integers_and_are_looked_up_as_such(done: Path) -> None:
    graph = onnx.load(done / "model.onnx").graph
    shapes = {each.name: (list(each.dims), each.data_type) for each in graph.initializer}
    table = [len(WORDS) + 5, 16]
    kinds = [kind for dims, kind in shapes.values() if dims == table]
    assert kinds in ([onnx.TensorProto.INT8], [onnx.TensorProto.UINT8])
    floats = [dims for dims, kind in shapes.values() if kind == onnx.TensorProto.FLOAT]
    assert max(len(dims) for dims in floats) == 1  # scales, biases and norms alone


def test_half_of_a_byte_holds_a_code_of_a_table_at_four_bits(place: Path) -> None:
    out = place / "narrow"
    more = ["--bits", "w4a8", "--method", "mse", "--keep-8bit", "none", "--out", str(out)]
    assert main(arguments(place, *more, layers=1)) == 0
    graph = onnx.load(out / "model.onnx").graph
    nibble = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
    matrices = [t for t in graph.initializer if len(t.dims) == 2 and min(t.dims) > 1]
    assert len(matrices) == 3 + 6 + 2  # tables, the layer, pooler and head
    assert [t.name for t in matrices if t.data_type not in nibble] == []
    x = tokens(place)
    stored = IntegerPredictor(load_quantized(out))
    torch.testing.assert_close(OrtPredictor(out / "model.onnx")(x), stored(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("sentence\nthe film\n", [], "1 calibration texts given and a step draws 32"),
        ("sentence\n" + "the film\n" * 40 + "  \n", [], "line 42 is empty"),
        ("sentence\n" + "the film\n" * 40, ["--calib-size", "41"], "holds 40 texts"),
        ("sentence\n" + "the film\n" * 40, ["--calib-noise"], "decoders of images"),
        ("words\n" + "the film\n" * 40, [], "no column 'sentence'"),
    ],
)
def test_bad_texts_are_one_line(
    place: Path, content: str, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "bad.tsv").write_text(content)
    options = ["--method", "outlier-suppression", "--out", str(place / "bad"), *more]
    assert main(arguments(place, *options, data="bad.tsv")) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told
