"""Fine-tuning with quantizers: it learns the task, and leaves what every quantization leaves."""

import json
import runpy
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_texts import write_bart, write_finder, write_model, write_questions, write_texts
from transformers import AutoModel

from roadworthy.compress.goals import Labelled
from roadworthy.compress.methods import Mse
from roadworthy.compress.place import Widths
from roadworthy.compress.qat import FineTune, fine_tune
from roadworthy.compress.quantize import Compressed, Plan, compress
from roadworthy.compress.resume import Finished
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.embeddings import cosines
from roadworthy.core.models import load_model
from roadworthy.core.padding import in_batches
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.errors import BadData, BadInput, BadModel
from roadworthy.journey import Run, load_quantized

TUNE = FineTune(steps=30, batch_size=16, weight_lr=2e-2, step_lr=1e-2, checks=3)
FAST = ("--steps", "8", "--batch-size", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qat")
    write_model(folder / "bert")
    write_texts(folder / "texts.tsv", rows=64)
    return folder


@pytest.fixture(scope="module")
def texts() -> Labelled:
    """The class is whether a text is a long one."""
    ids = torch.randint(5, 19, (64, 8), generator=torch.Generator().manual_seed(0))
    masks = torch.arange(8) < torch.tensor([4, 8]).repeat(32)[:, None]
    rows = torch.stack([ids * masks, masks.long(), torch.zeros_like(ids)], 1)
    return Labelled(rows, torch.arange(64) % 2)


@pytest.mark.parametrize("distil", [0.0, 0.5])
def test_it_learns_the_task_and_freezes_what_judged_best(
    place: Path, texts: Labelled, distil: float
) -> None:
    module = load_model(f"hf:{place}/bert").module
    graph = capture(module, texts.inputs[:1])
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    plan = Plan(Mse(4, 4), ACADEMIC, Widths(4, 4, ()))
    settings = replace(TUNE, distil=distil)
    done = fine_tune(graph, texts.inputs, plan, Run(), train=texts, held=texts, settings=settings)
    history = done.facts["fine_tuning"]["judged"]
    assert [row["step"] for row in history] == [0, 10, 20, 30]
    if not distil:
        assert min(row["loss"] for row in history) < 0.8 * history[0]["loss"]
    said = done.module(texts.inputs).detach()
    best = min(row["loss"] for row in history)
    got = float(torch.nn.functional.cross_entropy(said, texts.labels))
    assert got == pytest.approx(best, rel=1e-4)
    for name, value in graph.state_dict().items():
        assert torch.equal(value, before[name]), name
    start = compress(graph, texts.inputs, plan).module(texts.inputs)
    first = float(torch.nn.functional.cross_entropy(start, texts.labels).detach())
    assert history[0]["loss"] == pytest.approx(first, rel=1e-4)


def recipe(monkeypatch: pytest.MonkeyPatch, place: Path, *more: str) -> None:
    spec = f"text:{place}/texts.tsv?text=sentence&label=label"
    typed = ["--model", f"hf:{place}/bert", "--data", spec, "--eval", spec, *more]
    path = Path(__file__).parents[1] / "recipes" / "qat_text.py"
    monkeypatch.setattr("sys.argv", [str(path), "--out", f"{place}/out", *typed])
    runpy.run_path(str(path), run_name="__main__")


def test_the_folder_is_like_any_other(
    place: Path, texts: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place / "out"
    recipe(monkeypatch, place, "--steps", "4", "--batch-size", "8", "--bits", "w4a8")
    stored = load_quantized(out)(texts.inputs).detach()
    deployed = OrtPredictor(out / "model.onnx")(texts.inputs)
    assert (stored.argmax(1) == deployed.argmax(1)).float().mean() >= 0.95
    found = json.loads((out / "run.json").read_text())
    assert found["fine_tuning"]["settings"]["steps"] == 4
    meaning = json.loads((out / "quantization.json").read_text())
    assert meaning["settings"]["suppress"]["alpha"] == 1.0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--alpha", "2"], "alpha of 2.0 given; 0 to 1 is allowed"),
        (["--bits", "w1a4"], "w2a2 to w8a8 are allowed"),
        (["--steps", "0"], "at least 1"),
        (["--weight-lr", "-1"], "rate of -1.0 given; more than 0"),
        (["--batch-size", "100"], "58 samples given and a step draws 100"),
        (["--data", "text:{place}/texts.tsv?text=sentence"], "no labels"),
        (["--data", "text:{place}/three.tsv?text=sentence&label=label"], "3 class names"),
    ],
)
def test_bad_input_of_the_recipe_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], says: str
) -> None:
    rows = "".join(f"the film\t{name}\n" for name in ("a", "b", "c") * 8)
    (place / "three.tsv").write_text("sentence\tlabel\n" + rows)
    with pytest.raises(SystemExit, match=f"^qat_text: .*{says}") as told:
        recipe(monkeypatch, place, *(each.format(place=place) for each in more))
    assert "\n" not in str(told.value)


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(place: Path, texts: Labelled) -> None:
    graph = capture(load_model(f"hf:{place}/bert").module, texts.inputs[:1])
    plan, steps = Plan(Mse(4, 4), ACADEMIC, Widths(4, 4, ())), list[int]()

    def told(judged: dict[str, float]) -> None:
        step = int(judged["step"])
        steps.append(step)
        if step == 20 and steps.count(20) == 1:
            raise KeyboardInterrupt

    def run(name: str) -> Compressed:
        kept = Run(finished=Finished(place / name, {}))
        how = partial(fine_tune, train=texts, held=texts, settings=TUNE, told=told)
        return how(graph, texts.inputs, plan, kept)

    with pytest.raises(KeyboardInterrupt):
        run("kept")
    again, whole = run("kept"), run("fresh")
    assert steps == [10, 20, 20, 30, 10, 20, 30]
    assert again.facts["fine_tuning"] == whole.facts["fine_tuning"]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value), name


@pytest.fixture(scope="module")
def embedded(place: Path) -> Path:
    """The model without its head."""
    folder = place / "embeds"
    shutil.copytree(place / "bert", folder)
    AutoModel.from_pretrained(place / "bert").save_pretrained(folder)
    return folder


def test_embeddings_come_nearer_to_the_float_ones_and_tables_learn(
    embedded: Path, texts: Labelled
) -> None:
    graph = capture(load_model(f"hf:{embedded}").module, texts.inputs[:1])
    own = Labelled(texts.inputs, in_batches(graph, texts.inputs))
    plan = Plan(Mse(4, 4), ACADEMIC, Widths(4, 4, ()))
    done = fine_tune(graph, own.inputs, plan, Run(), train=own, held=own, settings=TUNE)
    history = done.facts["fine_tuning"]["judged"]
    best = max(row["cosine"] for row in history)
    assert 1 - best < 0.85 * (1 - history[0]["cosine"])
    said = in_batches(done.module, texts.inputs)
    assert float(cosines(said, own.labels).mean()) == pytest.approx(best, abs=1e-5)
    start = compress(graph, own.inputs, plan).module
    moved = [
        name
        for name, value in done.module.named_buffers()
        if name.startswith("table_") and name.endswith("_codes")
        if not torch.equal(value, dict(start.named_buffers())[name])
    ]
    assert moved


def test_ends_of_answers_are_learned(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_finder(place / "finder")
    write_questions(place / "asked.tsv", rows=64)
    spec = f"text:{place}/asked.tsv?text=question,context&label=answer"
    more = ["--model", f"hf:{place}/finder", "--data", spec, "--eval", spec, "--bits", "w8a8"]
    recipe(monkeypatch, place / "spans", *more, *FAST, "--weight-lr", "0.05")
    found = json.loads((place / "spans/out/run.json").read_text())
    losses = [row["loss"] for row in found["fine_tuning"]["judged"]]
    assert min(losses) < 0.9 * losses[0]
    assert found["parity"]["agreement"] >= 0.995
    assert found["deployed"]["metric"] == "f1"
    assert "held out: loss" in capsys.readouterr().err


def test_the_recipe_takes_texts_without_labels_for_embeddings(
    place: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"text:{place}/texts.tsv?text=sentence"
    more = ["--model", f"hf:{embedded}", "--data", spec, "--eval", spec, "--bits", "w8a8"]
    recipe(monkeypatch, place / "near", *more, *FAST)
    found = json.loads((place / "near/out/run.json").read_text())
    assert found["deployed"]["value"] > 0.95
    assert "cosine" in (place / "near/out/report.html").read_text()
    with pytest.raises(SystemExit, match="embeddings are learned from the float model alone"):
        recipe(monkeypatch, place / "near", *more, *FAST, "--distil", "0.5")


def test_a_summarizer_is_refused_with_what_is_allowed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bart(place / "bart")
    with pytest.raises(SystemExit, match="answers texts; fine-tuning learns classes, passages or"):
        recipe(monkeypatch, place, "--model", f"hf:{place}/bart")


class Headless(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(24, 8)
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.table(x[:, 0]))


def test_bad_settings_are_refused(place: Path, texts: Labelled) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        FineTune(steps=0)
    with pytest.raises(BadInput, match="share 2 of distillation"):
        FineTune(distil=2)
    graph = capture(load_model(f"hf:{place}/bert").module, texts.inputs[:1])
    few = Labelled(texts.inputs[:8], texts.labels[:8])
    plan = Plan(Mse(), ACADEMIC, Widths(4, 4))
    tune = partial(fine_tune, plan=plan, run=Run(), settings=TUNE)
    with pytest.raises(BadData, match="8 samples given and a step draws 16"):
        tune(graph, few.inputs, train=few, held=texts)
    with pytest.raises(BadData, match="0 samples given and judging needs 1"):
        tune(graph, few.inputs, train=texts, held=Labelled(texts.inputs[:0], texts.labels[:0]))
    other = replace(texts, labels=texts.labels + 1)
    with pytest.raises(BadData, match="label 2 given; the model has classes 0 to 1"):
        tune(graph, few.inputs, train=texts, held=other)
    # A model without a head answers a vector per token.
    headless = capture(Headless(), texts.inputs[:1])
    with pytest.raises(BadModel, match=r"needs scores of two or more classes"):
        tune(headless, few.inputs, train=texts, held=texts)
