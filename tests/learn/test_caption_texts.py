"""Captions: a tokenizer that loses nothing and a transformer that sees no padding."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.errors import BadData, BadModel
from roadworthy.learn.texts import (
    END,
    FILE,
    PAD,
    START,
    CaptionTokenizer,
    TextConfig,
    TextTransformer,
)

CAPTIONS = ["a red car and two people on a street by day", "three blue buses at night"] * 3
TOKENS = CaptionTokenizer.trained(CAPTIONS, 300)


@given(st.text(alphabet="abcdefgh ,.äß漢🚗\n", min_size=1, max_size=12))
def test_what_was_never_seen_comes_back(text: str) -> None:
    assert TOKENS.text(TOKENS([text], 60)[0]) == text.lower().strip()


def test_ids_start_end_are_cut_and_filled() -> None:
    ids = TOKENS([CAPTIONS[0], "a"], 6)
    assert ids.shape == (2, 6)
    assert ids[:, 0].tolist() == [START] * 2
    assert ids[0, 5] == END
    assert ids[1].tolist()[2:] == [END, PAD, PAD, PAD]
    assert len(TOKENS) <= 300
    assert set(TOKENS(CAPTIONS, 40).flatten().tolist()) - set(TOKENS.words.tolist()) == {0, 1, 2}


def test_the_file_is_the_tokenizer_and_the_same_each_time(tmp_path: Path) -> None:
    TOKENS.save(tmp_path)
    first = (tmp_path / FILE).read_bytes()
    assert torch.equal(CaptionTokenizer.load(tmp_path)(CAPTIONS, 20), TOKENS(CAPTIONS, 20))
    CaptionTokenizer.trained(CAPTIONS, 300).save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == first


def test_bad_files_and_no_captions_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="is no tokenizer"):
        CaptionTokenizer.load(tmp_path)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(BadModel, match="is no tokenizer"):
        CaptionTokenizer.load(tmp_path)
    with pytest.raises(BadData, match="no captions"):
        CaptionTokenizer.trained([])
    with pytest.raises(BadModel, match="do not divide"):
        TextConfig(300, width=130)
    with pytest.raises(BadModel, match="3 or more"):
        TextConfig(300, length=2)


def small() -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(TextConfig(len(TOKENS), length=20, width=32, depth=2, heads=2))


@pytest.mark.parametrize("training", [True, False])
def test_padding_is_not_seen(training: bool) -> None:
    net = small().train(training)
    with torch.no_grad():
        short, shown = net(TOKENS(["a bus"], 8))
        long, more = net(TOKENS(["a bus"], 20))
    torch.testing.assert_close(short, long)
    real = int((TOKENS(["a bus"], 8) != PAD).sum())
    torch.testing.assert_close(shown[:, :real], more[:, :real])


def test_it_learns_to_fill_gaps() -> None:
    from roadworthy.learn.contrastive import gaps, masked, masked_language
    from roadworthy.learn.texts import MASK

    net, random = small(), torch.Generator().manual_seed(0)
    ids = TOKENS(CAPTIONS[:2] * 8, 20)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    costs: list[float] = []
    for _ in range(60):
        shown, hidden = masked(ids, TOKENS.words, MASK, random)
        loss = masked_language(net.words(net(shown)[1][gaps(hidden)]), hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(float(loss.detach()))
    assert sum(costs[-5:]) < 0.5 * sum(costs[:5])  # below what counting words would say
