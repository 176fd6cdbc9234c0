"""Text models and tokenizers as users have them: foreign, in half precision, no norms."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_texts import SPECIAL, WORDS, write_model, write_texts
from torch import Tensor, nn

from roadworthy.cli import main
from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Auto, Method, OutlierSuppression, SmoothQuant
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan
from roadworthy.compress.select import compress_best
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.hf import stored_type
from roadworthy.core.models import load_model
from roadworthy.errors import BadInput


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_model(folder / "bert")
    write_texts(folder / "texts.tsv", rows=40)
    return folder


def with_tokenizer(place: Path, folder: Path, words: list[str]) -> Path:
    shutil.copytree(place / "bert", folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    hf.BertTokenizer(vocab=vocabulary, model_max_length=16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", ["evaluate", "quantize", "noise"])
def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = with_tokenizer(place, tmp_path / "foreign", [*SPECIAL, *WORDS, "zebra"])
    data = f"text:{place}/texts.tsv?text=sentence&label=label"
    assert main([command, f"hf:{folder}", "--data", data, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.strip()
    assert "makes ids up to 23 and the model knows 23 tokens; give the tokenizer that" in told
    assert "\n" not in told


def test_a_tokenizer_of_far_fewer_tokens_is_warned_of(place: Path, tmp_path: Path) -> None:
    folder = with_tokenizer(place, tmp_path / "other", [*SPECIAL, *WORDS[:6]])
    with pytest.warns(UserWarning, match="ids up to 10 and the model knows 23 .*belong to the mod"):
        load_model(f"hf:{folder}").chosen(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(f"hf:{place}/bert").chosen(None).length == 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_compute_in_float32(
    place: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = shutil.copytree(place / "bert", tmp_path / "half")
    rounded = load_model(f"hf:{place}/bert").module.model.to(dtype)
    rounded.save_pretrained(folder)
    loaded = load_model(f"hf:{folder}")
    assert {value.dtype for value in loaded.module.parameters()} == {torch.float32}
    x = loaded.example(())
    wanted = rounded.float()(x[:, 0], x[:, 1], x[:, 2]).logits
    torch.testing.assert_close(loaded.module(x), wanted)
    assert stored_type(f"hf:{folder}") == str(dtype).removeprefix("torch.")
    assert stored_type(f"hf:{place}/bert") == "float32"
    assert stored_type("timm:resnet10t@random") is None


class Bag(nn.Module):
    """A text classifier without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.words(x[:, 0])).relu().mean(1))


def bag_of_words(method: Method) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    x = torch.stack([torch.randint(0, 9, (32, 6), generator=draw), torch.ones(32, 6).long()], 1)
    graph = capture(Bag(), x[:1])
    return compress_best(graph, x, Plan(method, ACADEMIC, Widths(8, 8, ())), Run()).facts


def test_without_a_norm_smoothing_is_refused_and_clipping_says_what_it_does() -> None:
    with pytest.raises(
        BadInput,
        match=r"no LayerNorm of the model can be migrated .*SmoothQuant needs; give --method mse",
    ):
        bag_of_words(SmoothQuant(8, 8))
    with pytest.warns(UserWarning, match=r"no LayerNorm .*ranges alone are set"):
        facts = bag_of_words(OutlierSuppression(8, 8, passes=()))
    assert facts["suppression"]["clip_ratio"] is not None
    tried = bag_of_words(Auto(8, 8))["tries"]
    assert [(row["method"], row["suppress"]) for row in tried] == [("Mse", None)]


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"folder {tmp_path}/none not found"):
        load_model(f"hf:{tmp_path}/none")
