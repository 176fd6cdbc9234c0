"""Sentence embeddings: pooled as the files say, compressed, and judged by their cosine."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_texts import write_model, write_texts
from transformers import BertModel

from roadworthy.cli import main
from roadworthy.core.embeddings import Pooled, Pooling, longest, pool, pooled_of
from roadworthy.core.models import load_model
from roadworthy.errors import BadModel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    write_model(folder / "bert")
    BertModel.from_pretrained(folder / "bert").save_pretrained(folder / "bert")
    write_texts(folder / "texts.tsv", rows=32)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_on_either_side_takes_no_part(pooling: Pooling) -> None:
    states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1))
    alone = pool(states, torch.ones(1, 3, dtype=torch.long), pooling)
    expected = {"mean": states.mean(1), "cls": states[:, 0], "max": states.amax(1)}
    assert torch.allclose(alone, expected[pooling])
    junk = torch.full((1, 2, 4), 50.0)
    right = pool(torch.cat([states, junk], 1), torch.tensor([[1, 1, 1, 0, 0]]), pooling)
    left = pool(torch.cat([junk, states], 1), torch.tensor([[0, 0, 1, 1, 1]]), pooling)
    assert torch.allclose(right, alone)
    assert torch.allclose(left, alone)


def test_the_files_beside_a_model_choose_the_pooling(tmp_path: Path) -> None:
    assert pooled_of(str(tmp_path)) == Pooled("mean", False)
    (tmp_path / "1_Pooling").mkdir()
    stated = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(stated))
    kinds = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Pooling", "Normalize")]
    (tmp_path / "modules.json").write_text(json.dumps(kinds))
    assert pooled_of(str(tmp_path)) == Pooled("cls", True)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(BadModel, match="asks for Dense"):
        pooled_of(str(tmp_path))
    assert longest(str(tmp_path), 512) == 512
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    assert [longest(str(tmp_path), most) for most in (512, 128, None)] == [256, 128, 256]


def test_a_pooler_that_nothing_reads_may_be_missing(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "bert", tmp_path / "bare")
    BertModel.from_pretrained(place / "bert", add_pooling_layer=False).save_pretrained(
        tmp_path / "bare"
    )
    whole, bare = (load_model(f"hf:{folder}") for folder in (place / "bert", tmp_path / "bare"))
    tokens = whole.example((3, 16))
    assert torch.equal(whole.module(tokens), bare.module(tokens))


@pytest.mark.parametrize("command", ["evaluate", "noise", "quantize"])
def test_what_counts_answers_refuses_embeddings(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    spec = f"text:{place}/texts.tsv?text=sentence&label=label"
    more = {"noise": ["--out", "x"], "quantize": ["--max-drop", "1", "--out", "x"]}
    asked = [command, f"hf:{place}/bert", "--data", spec, *more.get(command, [])]
    asked = [str(tmp_path / "x") if each == "x" else each for each in asked]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert "embeddings" in said
    assert len(said.strip().splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_encoder_is_quantized_and_judged_by_cosine_without_labels(place: Path) -> None:
    assert load_model(f"hf:{place}/bert").embeds
    spec = f"text:{place}/texts.tsv?text=sentence"
    asked = ["quantize", f"hf:{place}/bert", "--data", spec, "--eval", spec, "--bits", "w8a8"]
    assert main([*asked, "--method", "smoothquant", "--out", str(place / "out")]) == 0
    metrics = json.loads((place / "out/run.json").read_text())
    assert metrics["float"]["value"] == pytest.approx(1.0)
    assert 0.9 < metrics["deployed"]["percentile_1"] <= metrics["deployed"]["value"] < 1.0
    assert metrics["parity"]["agreement"] >= 0.995
    assert metrics["parity"]["measure"] == "cosine"
    assert main(["evaluate", str(place / "out"), "--data", f"{spec}&label=label"]) == 2
