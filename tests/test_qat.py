"""Fine-tuning with quantizers: it learns the task, and leaves what every quantization leaves."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_text_road import write_model, write_texts

from roadworthy.compress.methods import Mse
from roadworthy.compress.place import Widths
from roadworthy.compress.qat import FineTune, Labelled, fine_tune
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.models import load_model
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.errors import BadData, BadInput
from roadworthy.journey import Run, load_quantized, quantize_to_dir
from roadworthy.requests import DataChoice, QuantizeRequest, Scheme, Solver

TUNE = FineTune(steps=30, batch_size=16, weight_lr=2e-2, step_lr=1e-2, checks=3)


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
    history = done.facts["fine_tuning"]
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


def test_the_folder_is_like_any_other(place: Path, texts: Labelled) -> None:
    out = place / "out"
    spec = f"text:{place}/texts.tsv?text=sentence&label=label"
    solver, scheme = Solver(method="smoothquant"), Scheme(4, 8, ())
    request = QuantizeRequest(
        f"hf:{place}/bert", DataChoice(spec, spec), out, scheme, solver, device="cpu"
    )
    settings = replace(TUNE, steps=4, checks=2)
    quantize_to_dir(request, partial(fine_tune, train=texts, held=texts, settings=settings))
    stored = load_quantized(out)(texts.inputs).detach()
    deployed = OrtPredictor(out / "model.onnx")(texts.inputs)
    assert (stored.argmax(1) == deployed.argmax(1)).float().mean() >= 0.95


def test_bad_settings_are_refused(place: Path, texts: Labelled) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        FineTune(steps=0)
    with pytest.raises(BadInput, match="share 2 of distillation"):
        FineTune(distil=2)
    graph = capture(load_model(f"hf:{place}/bert").module, texts.inputs[:1])
    few = Labelled(texts.inputs[:8], texts.labels[:8])
    with pytest.raises(BadData, match="8 samples given and a step draws 16"):
        fine_tune(
            graph,
            few.inputs,
            Plan(Mse(), ACADEMIC, Widths(4, 4)),
            Run(),
            train=few,
            held=few,
            settings=TUNE,
        )
