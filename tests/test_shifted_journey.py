"""Outlier Suppression+ by the command line: the folder that it leaves, and what it tells."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_texts import write_model, write_texts

from roadworthy.cli import main
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import load_data
from roadworthy.core.texts import TextInput
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.journey import load_quantized


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose norms have a channel far off and a loud one, quantized."""
    folder = tmp_path_factory.mktemp("shifted")
    path = write_model(folder / "bert") / "model.safetensors"
    weights = load_file(path)
    for name, value in weights.items():
        if name.endswith("LayerNorm.bias"):
            value[3] = 5.0
        elif name.endswith("LayerNorm.weight"):
            value[7] = 20.0
    save_file(weights, path, {"format": "pt"})
    write_texts(folder / "texts.tsv", rows=64)
    spec = f"text:{folder}/texts.tsv?text=sentence&label=label"
    more = ["--bits", "w8a8", "--method", "outlier-suppression-plus", "--out", f"{folder}/out"]
    assert main(["quantize", f"hf:{folder}/bert", "--data", spec, "--eval", spec, *more]) == 0
    return folder


def test_the_folder_evaluates_and_reloads_as_it_was_proven(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, spec = place / "out", f"text:{place}/texts.tsv?text=sentence&label=label"
    told = json.loads((out / "run.json").read_text())
    assert told["parity"]["agreement"] >= 0.995
    assert main(["evaluate", str(out), "--data", spec, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == told["deployed"]["value"]
    x = load_tensor(load_data(spec), TextInput(f"{place}/bert", length=16))[0]
    stored = IntegerPredictor(load_quantized(out))(x)
    torch.testing.assert_close(OrtPredictor(out / "model.onnx")(x), stored, rtol=1e-3, atol=1e-3)


def test_the_record_and_the_page_tell_shifts_and_thresholds(place: Path) -> None:
    told = json.loads((place / "out" / "run.json").read_text())["suppression"]["searched"]
    assert len(told) == 2  # embeddings and attention; the last norm stays
    for row in told:
        assert max(map(abs, row["shift"])) > 1
        assert max(row["scale"]) > 1 or row["threshold"] == max(
            t["threshold"] for t in row["losses"]
        )
    page = (place / "out" / "report.html").read_text()
    assert "Thresholds, norm by norm" in page
