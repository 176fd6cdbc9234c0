"""Answers that are passages of a context: found, compressed, deployed, judged as SQuAD does."""

import json
import re
import string
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_texts import write_finder, write_questions
from torch import Tensor

from roadworthy.cli import main
from roadworthy.compress.divergence import divergence
from roadworthy.compress.learn import Samples, _loss  # pyright: ignore[reportPrivateUsage]
from roadworthy.core.batches import load_tensor
from roadworthy.core.data import load_data
from roadworthy.core.models import load_model
from roadworthy.core.padding import IMPOSSIBLE, choices, in_batches
from roadworthy.core.spans import best_spans, each_score, passages
from roadworthy.core.texts import TextInput
from roadworthy.deploy.parity import compare
from roadworthy.errors import BadData


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans")
    write_finder(folder / "bert")
    write_questions(folder / "asked.tsv")
    return folder


def spec(place: Path, label: str = "&label=answer", text: str = "question,context") -> str:
    return f"text:{place}/asked.tsv?text={text}{label}"


@pytest.fixture(scope="module")
def tokens(place: Path) -> Tensor:
    stages = load_model(f"hf:{place}/bert").chosen(None)
    return load_tensor(load_data(spec(place, "")), stages)[0]


def test_the_best_passage_is_that_of_every_pair_of_ends() -> None:
    draw = torch.Generator().manual_seed(0)
    for most in (1, 3, 9):
        logits = torch.randn(40, 2, 9, generator=draw)
        context = torch.rand(40, 9, generator=draw) < 0.7
        context[:, 4] = True
        found = best_spans(logits, context, most).tolist()
        for (start, end), inside, span in zip(logits, context, found, strict=True):
            allowed = [
                (float(start[a] + end[b]), [a, b])
                for a in range(9)
                for b in range(a, min(9, a + most))
                if inside[a] and inside[b]
            ]
            assert span == max(allowed)[1]


def by_hand(said: str, right: str) -> tuple[float, float]:
    """F1 and exact match as SQuAD's own script states them."""

    def words(text: str) -> list[str]:
        kept = "".join(each for each in text.lower() if each not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    a, b = words(said), words(right)
    common = sum((Counter(a) & Counter(b)).values())
    return (2 * common / (len(a) + len(b)) if common else 0.0), float(a == b)


@pytest.mark.parametrize("said", ["The Nile", "nile, river", "a river in Egypt", "Egypt", ""])
def test_scores_are_the_best_over_the_right_answers(said: str) -> None:
    right = ["the Nile.", "River Nile in Egypt"]
    f1, exact = (max(column) for column in zip(*(by_hand(said, r) for r in right), strict=True))
    assert each_score([said], [right])[0].tolist() == pytest.approx([f1, exact])


def test_tokens_know_where_in_the_context_they_are(place: Path) -> None:
    stages = load_model(f"hf:{place}/bert").chosen(None)
    assert isinstance(stages, TextInput)
    question, context = "the film", "bad good  long, dull"
    places = stages.places((question, context))
    found = [context[a:b] for a, b in places if a >= 0]
    assert found == ["bad", "good", "long", ",", "dull"]
    assert (places[:4] == -1).all()
    assert (places[9:] == -1).all()


def test_the_context_alone_is_truncated_and_a_lost_answer_is_wrong(
    place: Path, tmp_path: Path
) -> None:
    stages = TextInput(f"{place}/bert", length=8, cut="second")
    question = "the film is a"
    ids = stages.tokens((question, "good bad long dull"))[0]
    assert stages.names(ids.tolist())[1:5] == question.split()
    row = f"question\tcontext\tanswer\n{question}\tgood bad long dull\tdull\n"
    (tmp_path / "asked.tsv").write_text(row)
    asked = passages(load_data(spec(tmp_path), answered=True), stages)
    logits = torch.zeros(1, 2, 8)
    assert asked.answers(logits) == ["good"]
    logits[0, :, 7] = 9.0  # [SEP], no token of the context
    assert asked.answers(logits) == ["good"]
    assert each_score(asked.answers(logits), asked.wanted).tolist() == [[0.0, 0.0]]


def test_no_answer_depends_on_padding(place: Path, tokens: Tensor) -> None:
    module = load_model(f"hf:{place}/bert").module
    found = choices(in_batches(module, tokens, 8), tokens)
    assert found.shape == (len(tokens), 2, tokens.shape[-1])
    mask = tokens[:, 1].bool()
    alone = [module(row[None, :, : int(n)]) for row, n in zip(tokens, mask.sum(1), strict=True)]
    for row, wanted in zip(found, alone, strict=True):
        torch.testing.assert_close(row[:, : wanted.shape[1]].T, wanted[0], rtol=1e-4, atol=1e-4)
        assert bool((row[:, wanted.shape[1] :] == IMPOSSIBLE).all())


def test_the_divergence_is_over_the_tokens_of_a_text_without_padding(tokens: Tensor) -> None:
    draw = torch.Generator().manual_seed(0)
    mask = tokens[:, 1].bool()
    fp, low = (torch.randn(*mask.shape, 2, generator=draw, requires_grad=True) for _ in "ab")
    rows = [
        torch.nn.functional.kl_div(
            b[m].log_softmax(0), a[m].log_softmax(0), reduction="sum", log_target=True
        )
        for a, b, m in zip(fp, low, mask, strict=True)
    ]
    wanted = sum(rows) / len(rows) / 2
    assert isinstance(wanted, Tensor)
    placed = [choices(each.detach()[mask], tokens) for each in (fp, low)]
    assert divergence(placed[0], placed[1]) == pytest.approx(wanted.item(), rel=1e-5)
    loss, gradient = _loss(low, Samples(tokens, tokens, fp.detach(), (), mask), "kl")
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, low)[0], atol=1e-7, rtol=1e-4)


def test_parity_is_the_share_of_texts_with_both_ends_equal(tokens: Tensor) -> None:
    mask = tokens[:, 1].bool()
    fp = torch.randn(*mask.shape, 2, generator=torch.Generator().manual_seed(0))
    low = fp.clone()
    low[0, 2, 1] += 99.0
    low[1, 3, 0] += 99.0
    low[2, :, 0] += 1.0  # the same place
    found = compare(fp[mask], low[mask], inputs=tokens)
    assert (found.agreement, found.n) == (pytest.approx(1 - 2 / len(tokens)), len(tokens))


def test_a_finder_is_quantized_deployed_and_judged_as_squad_does(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = f"hf:{place}/bert", place / "out"
    assert main(["evaluate", model, "--data", spec(place), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["metric"] == "f1"
    asked = ["quantize", model, "--data", spec(place, ""), "--eval", spec(place), "--bits", "w6a6"]
    more = ["--method", "outlier-suppression", "--iterations", "4", "--out", str(out)]
    assert main([*asked, *more]) == 0
    told = json.loads((out / "run.json").read_text())
    assert told["parity"]["agreement"] >= 0.995
    assert told["float"]["value"] == pytest.approx(alone["value"])
    assert told["float"]["exact_match"] == pytest.approx(alone["also"]["exact_match"])
    assert 0.3 < told["against_float"]["agreement"] <= 1
    assert 0 < told["against_float"]["logit_error"] < 0.5
    assert "exact match" in (out / "report.html").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", spec(place), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["value"] == pytest.approx(told["deployed"]["value"])


def test_a_finder_is_reconstructed(place: Path) -> None:
    asked = ["quantize", f"hf:{place}/bert", "--data", spec(place), "--bits", "w8a8"]
    more = ["--method", "qdrop-plus", "--iterations", "4", "--out", str(place / "learned")]
    assert main([*asked, *more]) == 0
    units = json.loads((place / "learned/run.json").read_text())["units"]
    assert units[-1]["name"] == "network"
    assert units[-1]["loss_last"] < 0.1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"label": ""}, "has no labels to judge by"),
        ({"text": "context"}, "names one column of texts"),
        ({"row": "the film\tbad good\tlong"}, "line 2: answer 'long' is not in its context"),
        ({"row": 'the film\tbad good\t["good", "dull"]'}, "answer 'dull' is not in its context"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "quantize"])
def test_bad_questions_are_told_in_one_line(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    data: dict[str, str],
    said: str,
) -> None:
    lines = (place / "asked.tsv").read_text().splitlines()
    row = data.get("row")
    (tmp_path / "asked.tsv").write_text("\n".join([lines[0], row, *lines[2:]] if row else lines))
    columns = {key: value for key, value in data.items() if key != "row"}
    given, out = spec(tmp_path, **columns), str(tmp_path / "out")
    asked = {"evaluate": ["--data", given], "quantize": ["--data", spec(place), "--eval", given]}
    assert main([command, f"hf:{place}/bert", *asked[command], "--out", out]) == 2
    found = capsys.readouterr().err.strip()
    assert said in found
    assert len(found.splitlines()) == 1


def test_a_question_without_room_for_its_context_is_named(place: Path, tmp_path: Path) -> None:
    row = f"question\tcontext\tanswer\n{'bad ' * 30}\tbad good\tgood\n"
    (tmp_path / "asked.tsv").write_text(row)
    stages = load_model(f"hf:{place}/bert").chosen(None)
    with pytest.raises(BadData, match=r"'bad bad .* leaves no room for its context in 24"):
        load_tensor(load_data(spec(tmp_path, "")), stages)


def test_the_road_test_refuses_passages(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["noise", f"hf:{place}/bert", "--data", spec(place)]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 2
    found = capsys.readouterr().err.strip()
    assert "answers spans; the road test judges classes" in found
    assert len(found.splitlines()) == 1
