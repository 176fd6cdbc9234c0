"""The walk over the units: it helps, repeats, resumes and spills without changing a bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compress.small import graph, images, network, plan
from torch import Tensor, nn

from roadworthy.compress import engine
from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.cache import Cache
from roadworthy.compress.engine import Run, calibrate, prepare, whole_model
from roadworthy.compress.freeze import freeze
from roadworthy.compress.learn import Samples, stepper
from roadworthy.compress.methods import (
    BRECQ,
    AdaRound,
    Method,
    MinMax,
    Mse,
    Pass,
    QDrop,
    QDropPlus,
)
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import augmented, compress
from roadworthy.compress.resume import Finished
from roadworthy.core.backends import ACADEMIC, ONNXRUNTIME_CPU
from roadworthy.core.capture import capture
from roadworthy.errors import BadData, BadInput, RoadworthyError


def error(method: Method, steps: int = 40) -> float:
    """Squared error of the quantized logits on images that nothing was learned from."""
    fresh = images(300)[96:]
    module = compress(graph(), images(), plan(method, steps)).module
    with torch.no_grad():
        return float((module(fresh) - graph()(fresh)).square().mean())


def test_every_method_beats_calibration() -> None:
    base = error(Mse())
    for method in (AdaRound(), BRECQ(), QDrop(), QDropPlus()):
        assert error(method, 80) < base, type(method).__name__


def test_annealing_beats_calibration_and_ends_on_the_grid() -> None:
    annealed = QDrop(passes=(replace(QDrop().passes[0], anneal_bits=2.0),))
    assert error(annealed, 80) < error(Mse())
    seen = list[float]()
    steps = Pass(iterations=4, batch_size=16, anneal_bits=2.0)
    task = prepare(graph(), ACADEMIC, Widths(3, 3))
    calibrate(task, images(), QDrop(3, 3), ACADEMIC)
    model = whole_model(task)
    act = next(m for m in task.quantizers.modules.values() if isinstance(m, ActQuantizer))
    samples = Samples(images(), images(), graph()(images()).detach())
    take = stepper(model, samples, steps, torch.Generator())
    for step in range(4):
        take(step)
        seen.append(act.finer)
    assert seen == [4.0, 2.0, 1.0, 1.0]


def test_the_network_pass_goes_slower_with_more_activation_bits() -> None:
    def rates(bits: int) -> list[float]:
        last = QDropPlus(2, bits).passes[-1]
        assert last.rounding is not None
        assert last.act_scale is not None
        return [last.rounding.lr, last.act_scale.lr, last.weight_scale_lr or 0, last.bias_lr or 0]

    assert rates(2) == [5e-3, 1e-3, 1e-3, 1e-3]
    assert rates(4) == [rate / 4 for rate in rates(2)]


def test_one_seed_gives_the_same_bits_and_another_others() -> None:
    first, again, other = (
        compress(graph(), images(), plan(steps=8), Run(seed)).module.state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(graph(), images(), plan(steps=8)).module.state_dict()
    run = Run(finished=Finished(tmp_path / "kept", {"run": 1}))
    learn, learned = engine.reconstruct, list[object]()

    def killed(*arguments: object) -> object:
        if len(learned) == 2:
            raise KeyboardInterrupt
        learned.append(arguments[0])
        return learn(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(engine, "reconstruct", killed)
    with pytest.raises(KeyboardInterrupt):
        compress(graph(), images(), plan(steps=8), run)
    counted = list[object]()

    def counting(*arguments: object) -> object:
        counted.append(arguments[0])
        return learn(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(engine, "reconstruct", counting)
    resumed = Run(finished=Finished(tmp_path / "kept", {"run": 1}))
    state = compress(graph(), images(), plan(steps=8), resumed).module.state_dict()
    assert len(counted) == 2  # four units, two were kept
    assert all(torch.equal(whole[name], state[name]) for name in whole)


def test_other_settings_forget_what_was_kept(tmp_path: Path) -> None:
    compress(graph(), images(), plan(steps=8), Run(finished=Finished(tmp_path / "k", {"bits": 3})))
    assert list((tmp_path / "k").glob("*.safetensors"))
    Finished(tmp_path / "k", {"bits": 4})
    assert not list((tmp_path / "k").glob("*.safetensors"))


def test_caches_on_disk_change_nothing(tmp_path: Path) -> None:
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            compress(graph(), images(), plan(steps=8), Run(memory=2**30)).module.buffers(),
            compress(graph(), images(), plan(steps=8), Run(memory=1)).module.buffers(),
            strict=True,
        )
    )
    cache = Cache(1000, tmp_path)
    held = [cache.collect(lambda x: x * 2, torch.ones(100, 2)) for _ in range(3)]
    assert (cache.used, cache.spilled) == (800, 1600)
    assert all(bool((tensor == 2).all()) for tensor in held)
    assert list(tmp_path.iterdir()) == []
    del held
    assert cache.used == 0


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(RoadworthyError, match="No space left on device"):
        Cache(1, tmp_path / "new").collect(lambda x: x, torch.ones(100, 2))


def test_frozen_graph_is_the_learned_one() -> None:
    task = prepare(graph(), ONNXRUNTIME_CPU, Widths(8, 8))
    calibrate(task, images(), MinMax(8, 8), ONNXRUNTIME_CPU)
    model = whole_model(task)
    with torch.no_grad():
        assert torch.equal(freeze(model)(images(8)), model(images(8)))


def test_first_and_last_stay_at_8_bits_and_the_rest_not() -> None:
    task = prepare(graph(), ACADEMIC, Widths(2, 3))
    bits = {
        layer.name: (
            task.quantizers.modules[str(layer.weight)].grid.bits,
            [task.quantizers.modules[name].grid.bits for name in layer.inputs],
        )
        for layer in task.quantizers.layers
    }
    assert bits["0"] == (8, [])
    assert bits["6"] == (8, [8])
    assert bits["2.a"] == (2, [3])
    raised = prepare(graph(), ACADEMIC, replace(Widths(2, 3), raised={"2.a": 8}))
    first = next(layer for layer in raised.quantizers.layers if layer.name == "2.a")
    assert raised.quantizers.modules[str(first.weight)].grid.bits == 8


def test_skip_adds_are_quantized_once_behind_the_relu() -> None:
    task = prepare(graph(), ACADEMIC, Widths(4, 4))
    sources = [node.name for node in task.quantizers.placement.activations]
    assert sources == ["relu", "relu_1", "relu_2", "relu_3", "relu_4"]
    integer = prepare(graph(), ONNXRUNTIME_CPU, Widths(8, 8))
    assert len(integer.quantizers.placement.activations) > 5 + 2
    assert integer.quantizers.float_ops == {}


def test_augmented_images_begin_with_the_originals() -> None:
    x = images(8)
    shown = augmented(x, 2, seed=0)
    assert torch.equal(shown[:8], x)
    assert torch.equal(shown[8:16], x.flip(-1))
    assert shown.shape[0] == 24


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e30


def test_bad_images_are_refused_in_one_line() -> None:
    with pytest.raises(BadData, match="8 calibration images given and a step draws 16"):
        compress(graph(), images(8), plan())
    with pytest.raises(BadData, match="NaN"):
        compress(graph(), images() * float("nan"), plan())
    huge = capture(nn.Sequential(Scaled(), network()), images(1))
    with pytest.raises(BadInput, match="NaN or infinite activations"):
        compress(huge, images() * 1e10, plan(Mse()))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="9 bits"):
        QDrop(9, 4)
    with pytest.raises(BadInput, match="0 iterations"):
        replace(QDrop().passes[0], iterations=0)


def test_progress_tells_how_far_a_pass_is() -> None:
    seen = list[engine.Step]()
    compress(graph(), images(), plan(steps=60), Run(progress=seen.append))
    shares = [step.share for step in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    ends = [step for step in seen if step.step == step.steps]
    assert [step.unit for step in ends] == ["0", "2", "3", "6"]
