"""Token-wise clipping: padding never counts, and of the grid the best ratio is taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_transformers import captured, inputs, with_weights
from torch import Tensor, nn

from roadworthy.compress import clipping
from roadworthy.compress.activation import ActQuantizer
from roadworthy.compress.clipping import clip, clip_tokens, token_extremes
from roadworthy.compress.engine import Task, prepare, whole_model
from roadworthy.compress.methods import (
    Method,
    MinMax,
    OutlierSuppression,
    TokenClipping,
    fine_stage,
    with_batch_size,
)
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.suppress import GammaMigration
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.padding import shortened
from roadworthy.errors import BadInput


@pytest.fixture(scope="module")
def texts() -> Tensor:
    """Twelve sentences ``[b r t]`` of different lengths."""
    rows = torch.cat([inputs("bert", batch=4)] * 3)
    rows[:, 0] = torch.randint(3, 50, (12, 9), generator=torch.Generator().manual_seed(1))
    return rows


def task_of(bits: int = 4) -> Task:
    graph = with_weights(captured("bert", "sdpa", torch.float32))
    return prepare(graph, ACADEMIC, Widths(8, bits, ()))


def ranges(task: Task) -> dict[str, tuple[float, float]]:
    found = {n: m for n, m in task.quantizers.modules.items() if isinstance(m, ActQuantizer)}
    return {name: (m.scale.item(), m.zero_point.item()) for name, m in found.items()}


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20), st.floats(0.1, 1.0))
def test_limits_are_those_of_a_slow_search(values: list[float], ratio: float) -> None:
    ends = torch.tensor(values)
    bound = float(torch.quantile(ends.abs(), ratio))
    kept = [v for v in ends.tolist() if v <= bound] or [min(ends.tolist())]
    _, high = clip([(torch.zeros(len(values)), ends)], ratio)
    assert high == pytest.approx(max(kept))


def test_every_token_counts_at_ratio_one() -> None:
    low, high = torch.tensor([-1.0, -7.0, -2.0]), torch.tensor([5.0, 1.0, 3.0])
    assert clip([(low, high), (low * 3, high)], 1.0) == ((-7.0 - 21.0) / 2, 5.0)


@pytest.mark.parametrize("heads", [False, True])
def test_padding_has_no_extremes(heads: bool) -> None:
    x = torch.randn(2, 3, 4, 5) if heads else torch.randn(2, 4, 5)
    mask = torch.tensor([[True, True, False, False], [False, True, True, True]])
    for sample, token in ((0, 2), (0, 3), (1, 0)):
        x[(sample, slice(None), token) if heads else (sample, token)] = 1e6
    found = token_extremes(x, mask, heads)
    assert [len(low) for low, _ in found] == [2, 3]
    assert max(float(high.max()) for _, high in found) < 100


def test_what_stands_in_the_padding_changes_no_range(texts: Tensor) -> None:
    task, other = task_of(), task_of()
    clip_tokens(task, texts, TokenClipping(batch_size=4))
    scribbled = texts.clone()
    scribbled[:, 0] = torch.where(texts[:, 1].bool(), texts[:, 0], 7)
    assert not torch.equal(scribbled, texts)
    clip_tokens(other, scribbled, TokenClipping(batch_size=4))
    for name, (scale, zero) in ranges(task).items():
        assert ranges(other)[name] == (pytest.approx(scale, rel=1e-4), zero)


def test_the_best_ratio_is_taken_though_others_are_given_up(
    texts: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, patient = task_of(), task_of()
    errors = clip_tokens(task, texts, TokenClipping(batch_size=4))
    one = clipping._error
    monkeypatch.setattr(clipping, "_error", lambda *given: one(*given[:-1], float("inf")))
    slow = clip_tokens(patient, texts, TokenClipping(batch_size=4))
    assert float("inf") in errors.values()
    assert float("inf") not in slow.values()
    assert min(errors, key=lambda r: errors[r]) == min(slow, key=lambda r: slow[r])
    assert ranges(task) == ranges(patient)
    assert all(m.enabled for m in whole_model(task).modules() if isinstance(m, ActQuantizer))


def test_only_the_padding_of_all_is_cut_off() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
    x = torch.stack([torch.ones(2, 4, dtype=torch.int64), mask], 1)
    assert torch.equal(shortened(x), x[..., :3])
    assert shortened(torch.ones(2, 3, 4, 4)).shape == (2, 3, 4, 4)


class BlownUp(nn.Module):
    """A layer behind a norm that makes one channel 40 times as large as the layer needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(50, 16), nn.LayerNorm(16)
        self.inner, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        self.norm.weight.data[5] = 40.0
        self.inner.weight.data[:, 5] /= 40.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.norm(self.words(x[:, 0]))).relu().mean(1))


def test_suppression_beats_the_extremes_where_gamma_blows_a_channel_up(texts: Tensor) -> None:
    torch.manual_seed(0)
    graph = capture(BlownUp(), texts[:1])
    wanted = graph(texts)

    def error(method: Method) -> float:
        done = compress(graph, texts, Plan(method, ACADEMIC, Widths(8, 6, ())))
        return float((done.module(texts) - wanted).square().mean())

    naive = error(MinMax(8, 6))
    assert error(replace(MinMax(8, 6), suppress=GammaMigration())) < naive / 4
    assert error(with_batch_size(OutlierSuppression(8, 6), 8)) < naive / 4


def test_the_fine_stage_moves_activations_alone_and_helps(texts: Tensor) -> None:
    graph = with_weights(captured("bert", "sdpa", torch.float32))
    wanted = graph(texts).detach()
    coarse = OutlierSuppression(8, 4, passes=())
    found = list[tuple[float, list[Tensor]]]()
    for method in (coarse, replace(coarse, passes=(fine_stage(2e-2, relative=True, steps=60),))):
        plan = Plan(with_batch_size(method, 8), ACADEMIC, Widths(8, 4, ()))
        module = compress(graph, texts, plan).module
        state = module.state_dict()
        codes = [value for name, value in state.items() if "_codes" in name]
        found.append((float((module(texts).detach() - wanted).square().mean()), codes))
        zeros = [v for n, v in state.items() if "act_" in n and "zero_point" in n]
        assert all(0 <= float(z) <= 15 and float(z) == round(float(z)) for z in zeros)
    (before, codes), (after, same) = found
    assert after < 0.8 * before
    assert all(map(torch.equal, codes, same))


def test_bad_grids_are_refused() -> None:
    with pytest.raises(BadInput, match="clipping step of 2 given"):
        TokenClipping(step=2)
    with pytest.raises(BadInput, match="clipping batches of 0 given"):
        TokenClipping(batch_size=0)
