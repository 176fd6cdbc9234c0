"""A summarizer from a Hugging Face folder to an ONNX file of integers, and what it then writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import write_bart, write_pairs
from torch import Tensor

from roadworthy.cli import main
from roadworthy.core.batches import load_tensor
from roadworthy.core.capture import capture
from roadworthy.core.data import load_data
from roadworthy.core.generation import HfAnswers, greedy, rouge, with_answers
from roadworthy.core.models import load_model
from roadworthy.core.padding import at_asked, in_batches, shortened, tokens_of
from roadworthy.core.texts import TextInput
from roadworthy.core.units import decoder_nodes
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.judging_answers import written
from roadworthy.wording import say

LENGTH = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    write_bart(folder / "bart", LENGTH)
    write_pairs(folder / "pairs.tsv")
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> HfAnswers:
    module = load_model(f"hf:{place}/bart").module
    assert isinstance(module, HfAnswers)
    return module


@pytest.fixture(scope="module")
def texts(place: Path) -> Tensor:
    dataset = load_data(f"text:{place}/pairs.tsv?text=document")
    return load_tensor(dataset, TextInput(f"{place}/bart", length=LENGTH))[0]


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    out = place / "quantized"
    data = f"text:{place}/pairs.tsv?text=document&label=summary"
    asked = ["quantize", f"hf:{place}/bart", "--data", data, "--eval", data, "--max-drop", "90"]
    more = ["--bits", "w8a8", "--method", "outlier-suppression", "--iterations", "4"]
    assert main([*asked, *more, "--out", str(out)]) == 0
    return out


def test_decoding_token_by_token_is_what_the_library_generates(
    model: HfAnswers, texts: Tensor
) -> None:
    mine = greedy(model, texts, model.bounds, LENGTH)
    library: Any = model.model
    said = library.generate(
        input_ids=texts[:, 0],
        attention_mask=texts[:, 1],
        max_new_tokens=LENGTH - 1,
        num_beams=1,
        do_sample=False,
    )
    wanted = with_answers(texts[:, :2], said, model.bounds.ends)
    assert len({tuple(row) for row in mine[:, 2].tolist()}) > 3
    torch.testing.assert_close(mine, wanted)


def test_no_answer_depends_on_padding_on_either_side(model: HfAnswers, texts: Tensor) -> None:
    given = model.generated(texts)
    whole = torch.cat([at_asked(model(row[None]), row[None]) for row in given])
    noisy = given.clone()
    noisy[:, 0::2] = torch.where(given[:, 1::2] == 0, 7, given[:, 0::2])
    torch.testing.assert_close(in_batches(model, noisy, 8), whole, rtol=1e-4, atol=1e-4)
    assert len(whole) == int(given[:, 3].sum())


def test_what_is_cut_is_padding_in_text_and_answer() -> None:
    tokens = torch.zeros(1, 4, 6, dtype=torch.int64)
    tokens[0, 1, :2], tokens[0, 3, :4] = 1, 1
    assert shortened(tokens).shape[-1] == 4
    assert shortened(tokens.flip(1).roll(1, 1)).shape[-1] == 4
    x = torch.arange(6.0)[None, :, None]
    assert [len(tokens_of(x, tokens, row)) for row in (1, 3)] == [2, 4]


def test_the_decoder_is_what_depends_on_its_ids(model: HfAnswers, texts: Tensor) -> None:
    given = model.generated(texts[:2])
    graph = capture(model, given)
    decoded = decoder_nodes(graph)
    linears = [n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default]
    encoder = [n for n in linears if n not in decoded]
    # q, k, v, out, two of the encoder's feed-forward, and what makes keys and values of its output
    assert (len(encoder), len(linears)) == (8, 6 + 4 + 4 + 2 + 1)


def test_the_record_tells_rouge_parity_and_distance_to_float(done: Path) -> None:
    told = json.loads((done / "run.json").read_text())
    assert told["parity"]["agreement"] >= 0.995
    assert told["parity"]["measure"] == "token"
    assert "deployed and simulated: same token on " in say("quantize", told)
    assert told["against_float"]["agreement"] > 0.8
    assert told["against_float"]["logit_error"] < 0.05
    for form in ("float", "deployed"):
        assert told[form]["metric"] == "rougeL"
        assert 0 <= told[form]["value"] <= 1
    assert 0 < told["same_summaries"] <= 1
    assert (done / "report.html").stat().st_size


def test_a_file_writes_texts_of_any_length(done: Path, model: HfAnswers, texts: Tensor) -> None:
    file = OrtPredictor(done / "model.onnx")
    given = model.generated(texts[:3])
    short = shortened(given)
    long = at_asked(file(given), given)
    torch.testing.assert_close(at_asked(file(short), short), long, rtol=1e-3, atol=1e-3)
    assert greedy(file, texts, model.bounds, 5).shape == (44, 4, LENGTH)


def lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + lcs(a[:-1], b[:-1])
    return max(lcs(a[:-1], b), lcs(a, b[:-1]))


@pytest.mark.parametrize(
    ("said", "wanted"), [("a b c", "a c d"), ("the film", "the good film"), ("x", "y"), ("", "y")]
)
def test_rouge_is_overlap_of_words_and_of_sequences(said: str, wanted: str) -> None:
    a, b = said.split(), wanted.split()

    def f1(common: float) -> float:
        return 2 * common / (len(a) + len(b))

    found = rouge([said], [wanted])
    assert found["rouge1"] == pytest.approx(f1(len(set(a) & set(b))))
    assert found["rougeL"] == pytest.approx(f1(lcs(a, b)))


def asked(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_float_and_file_are_evaluated_as_when_they_were_made(
    place: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads((done / "run.json").read_text())
    data = ("--data", f"text:{place}/pairs.tsv?text=document&label=summary")
    for form, model in (("float", f"hf:{place}/bart"), ("deployed", str(done))):
        found = asked(capsys, "evaluate", model, *data)
        for name in ("metric", "value"):
            assert found[name] == told[form][name]
        assert found["also"] == {name: told[form][name] for name in ("rouge1", "rouge2")}
        assert found["ci_low"] < found["value"] < found["ci_high"]
        assert found["n"] == 44


def test_answers_are_texts_even_where_they_are_numbers(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, stages = load_model(f"hf:{place}/bart"), TextInput(f"{place}/bart", length=LENGTH)
    assert model.answers is not None
    texts = ["good film", "the dull one", "fine"]
    tokens = torch.stack([stages((text,)) for text in texts])
    said = written(model.module, model.answers.bounds, stages, tokens)
    for labels in (["1", "2", "3"], ["1", "2.5", "two"], [*said[:2], "7"], [*said[:2], ""]):
        rows = "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True))
        (tmp_path / "few.tsv").write_text(f"a\tb\n{rows}")
        found = asked(
            capsys, "evaluate", model.spec, "--data", f"text:{tmp_path}/few.tsv?text=a&label=b"
        )
        right = sum(a == b for a, b in zip(said, labels, strict=True))
        assert found["n"] == sum(label != "" for label in labels)
        assert found["value"] == pytest.approx(right / found["n"])


def test_max_drop_counts_tokens_that_change(done: Path) -> None:
    told = json.loads((done / "run.json").read_text())
    assert told["raised_to_8bit"] == []
    assert {row["layer"] for row in told["sensitivity"]} == {row["name"] for row in told["layers"]}


def test_the_road_test_refuses_texts(
    place: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The labels are texts, one of them a number, which no class is: what matters comes first.
    data = ["--data", f"text:{place}/pairs.tsv?text=document&label=summary"]
    for model in (f"hf:{place}/bart", str(done)):
        capsys.readouterr()
        assert main(["noise", model, *data, "--out", str(tmp_path / "road")]) == 2
        said = capsys.readouterr().err.strip()
        assert "answers texts; the road test judges classes" in said
        assert "\n" not in said
