import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertTokenizer, PreTrainedTokenizerFast

from roadworthy.core import texts
from roadworthy.core.images import IMAGENET
from roadworthy.core.inputs import preprocess_from, stages_from, tensor_of
from roadworthy.core.texts import TextInput, of_folder
from roadworthy.errors import BadData, BadPreprocess

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "play", "##ing", "!"]
PAD, UNK, CLS, SEP, _, A, GOOD, FILM, PLAY, ING, MARK = range(11)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=12).save_pretrained(folder)
    return str(folder)


def rows(stages: TextInput, *texts: str) -> list[list[int]]:
    return stages(texts).tolist()


def test_a_text_becomes_ids_mask_and_types(files: str) -> None:
    ids, mask, types = rows(TextInput(files, length=8), "A good film!")
    assert ids == [CLS, A, GOOD, FILM, MARK, SEP, PAD, PAD]
    assert mask == [1] * 6 + [0] * 2
    assert types == [0] * 8


def test_a_pair_has_two_types(files: str) -> None:
    for kind in ("fast", "slow"):
        ids, mask, types = rows(TextInput(files, tokenizer=kind, length=8), "good", "a film")
        assert ids == [CLS, GOOD, SEP, A, FILM, SEP, PAD, PAD]
        assert mask == [1] * 6 + [0] * 2
        assert types == [0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_each_stage_changes_what_it_says(files: str, kind) -> None:
    own = TextInput(files, tokenizer=kind, length=6)
    text = "a good film playing"
    assert rows(own, text)[0] == [CLS, A, GOOD, FILM, PLAY, SEP]
    assert rows(replace(own, truncation="left"), text)[0] == [CLS, GOOD, FILM, PLAY, ING, SEP]
    assert rows(replace(own, length=4), text)[0] == [CLS, A, GOOD, SEP]
    assert rows(replace(own, padding="left"), "film")[0] == [PAD, PAD, PAD, CLS, FILM, SEP]
    assert rows(replace(own, padding="left"), "film")[1] == [0, 0, 0, 1, 1, 1]
    assert rows(replace(own, casing="cased"), "Good film")[0] == [CLS, UNK, FILM, SEP, PAD, PAD]
    for casing in ("lower", "upper", "capital"):
        assert rows(replace(own, casing=casing), text) == rows(own, text)


def test_casing_changes_the_text_before_the_tokenizer(tmp_path: Path) -> None:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "word", "WORD", "Word"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    for casing, wanted in (("as-is", 2), ("lower", 2), ("upper", 3), ("capital", 4), ("cased", 2)):
        assert rows(TextInput(str(tmp_path), casing=casing, length=4), "word")[0][0] == wanted
    with pytest.raises(BadPreprocess, match=r"no slow form.*WordLevel"):
        TextInput(str(tmp_path), tokenizer="slow")(("word",))
    assert "no slow form" in (TextInput(str(tmp_path), tokenizer="slow").missing() or "")


def test_longest_leaves_out_what_pads_all(files: str) -> None:
    stages = TextInput(files, padding="longest", length=10)
    stacked = torch.stack([stages(("film",)), stages(("a good film",))])
    assert stages.batched(stacked).shape == (2, 3, 5)
    assert replace(stages, padding="right").batched(stacked).shape == (2, 3, 10)


def test_many_threads_get_what_one_gets(files: str) -> None:
    kinds = [TextInput(files, length=length) for length in (4, 6, 8, 10)] * 8
    texts = ("a good film playing a good film",)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda stages: stages(texts).tolist(), kinds))
    assert found == [stages(texts).tolist() for stages in kinds]


def test_a_folder_states_its_own_input(files: str) -> None:
    assert of_folder(files, None).length == 12
    assert of_folder(files, 8).length == 8
    assert of_folder(files, 8).padding == "right"


def test_plain_values_are_the_stages(files: str, tmp_path: Path) -> None:
    own = TextInput(files, length=12)
    assert TextInput.from_dict(own.to_dict()) == own
    assert stages_from({"padding": "left"}, own) == replace(own, padding="left")
    assert stages_from({"colour": "bgr"}, IMAGENET).to_dict()["colour"] == "bgr"
    (tmp_path / "other.yaml").write_text("casing: lower\nlength: 6\n")
    found = preprocess_from(str(tmp_path / "other.yaml"), own)
    assert found == replace(own, casing="lower", length=6)
    assert preprocess_from(None, own) is own
    (tmp_path / "whole.yaml").write_text(f"files: {files}\n")
    assert preprocess_from(str(tmp_path / "whole.yaml"), None) == TextInput(files)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"casing": "loud"}, "casing 'loud' given; as-is, lower, upper, capital, cased are"),
        ({"lenght": 3}, r"stage 'lenght' given \(did you mean length\?\)"),
        ({"length": "8"}, "length '8' given; 4 to 8192 tokens are allowed"),
        ({"length": True}, "length True given"),
        ({"length": 9000}, "length 9000 given"),
        ({"files": 3}, "files is missing"),
    ],
)
def test_stages_that_are_none(values, message: str) -> None:
    with pytest.raises(BadPreprocess, match=message):
        TextInput.from_dict({"files": "somewhere", **values})


def test_what_is_no_tokenizer_or_no_text_is_told(files: str, tmp_path: Path) -> None:
    with pytest.raises(BadPreprocess, match=r"cannot be loaded.*tokenizer\.json"):
        TextInput(str(tmp_path))(("film",))
    with pytest.raises(BadPreprocess, match=r"FILE\.yaml is needed"):
        preprocess_from("imagenet", TextInput(files))
    with pytest.raises(BadData, match=r"x\.jpg is no text"):
        tensor_of(TextInput(files), b"\xff\xd8\xff", "x.jpg")


def test_a_tokenizer_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(BadPreprocess, match="no tokenizer with a vocabulary"):
        TextInput(str(tmp_path))(("film",))


def test_a_tokenizer_file_of_another_structure_is_told(files: str, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Foo"}}))
    with pytest.raises(BadPreprocess, match="cannot be loaded: data did not match"):
        TextInput(str(tmp_path / "other"))(("film",))


def test_many_threads_open_a_tokenizer_once(files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def slowly(*asked: Any) -> Any:
        opened.append(asked[0])
        time.sleep(0.05)
        return BertTokenizer.from_pretrained(files)

    monkeypatch.setattr(texts, "_opened", slowly)
    stages = TextInput(files, length=9)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stages, [("a",)] * 8))
    assert len(opened) == 1
    assert all(torch.equal(each, found[0]) for each in found)
