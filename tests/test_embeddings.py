"""Sentence embeddings: pooled as the files say, compressed, and judged by their cosine."""

import json
from pathlib import Path

import pytest
import torch
from test_text_road import write_model, write_texts
from transformers import BertModel

from roadworthy.cli import main
from roadworthy.core.embeddings import Pooled, pool, pooled_of
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
def test_padding_on_either_side_takes_no_part(pooling) -> None:
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


def test_an_encoder_is_quantized_and_judged_by_cosine_without_labels(place: Path) -> None:
    assert load_model(f"hf:{place}/bert").embeds
    spec = f"text:{place}/texts.tsv?text=sentence"
    asked = ["quantize", f"hf:{place}/bert", "--data", spec, "--eval", spec, "--bits", "w8a8"]
    assert main([*asked, "--method", "smoothquant", "--out", str(place / "out")]) == 0
    metrics = json.loads((place / "out/run.json").read_text())
    assert metrics["float"]["value"] == pytest.approx(1.0)
    assert 0.9 < metrics["deployed"]["percentile_1"] <= metrics["deployed"]["value"] < 1.0
    assert metrics["parity"]["agreement"] >= 0.995
