"""Texts through the engine: padding decides nothing, learning helps."""

from dataclasses import replace

import pytest
import torch
from small_transformers import captured, inputs, with_weights
from torch import Tensor, fx

from roadworthy.compress.activation import ActQuantizer, mix
from roadworthy.compress.clipping import clip_tokens
from roadworthy.compress.engine import calibrate, prepare
from roadworthy.compress.learn import Samples, _loss
from roadworthy.compress.methods import (
    Method,
    MinMax,
    Mse,
    OutlierSuppression,
    QDropPlus,
    with_iterations,
)
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ACADEMIC


def texts(kind: str = "bert", count: int = 32) -> Tensor:
    """Sentences ``[b r t]`` of four to nine tokens."""
    rows = torch.cat([inputs(kind, batch=4)] * (count // 4))
    random = torch.Generator().manual_seed(1)
    rows[:, 0] = torch.randint(3, 50, rows[:, 0].shape, generator=random)
    return rows


def graph(kind: str = "bert") -> fx.GraphModule:
    return with_weights(captured(kind, "sdpa", torch.float32))


def scribbled(x: Tensor) -> Tensor:
    """The same texts with other ids in the padding."""
    changed = x.clone()
    changed[:, 0] = torch.where(x[:, 1].bool(), x[:, 0], 7)
    assert not torch.equal(changed, x)
    return changed


def scales(x: Tensor, method: Method, kind: str = "bert") -> list[float]:
    task = prepare(graph(kind), ACADEMIC, Widths(8, 4, ()))
    if method.clip is None:
        calibrate(task, x, method, ACADEMIC)
    else:
        clip_tokens(task, x, replace(method.clip, batch_size=8, step=0.5, span=0.1))
    acts = [m for m in task.quantizers.modules.values() if isinstance(m, ActQuantizer)]
    return [float(m.scale.detach()) for m in acts]


@pytest.mark.parametrize("method", [MinMax(8, 4), Mse(8, 4)])
def test_what_stands_in_the_padding_changes_no_range(method: Method) -> None:
    assert scales(scribbled(texts()), method) == pytest.approx(scales(texts(), method), rel=1e-4)


@pytest.mark.parametrize("method", [Mse(8, 4), OutlierSuppression(8, 4, passes=())])
def test_the_side_of_the_padding_changes_no_range(method: Method) -> None:
    """RoBERTa counts positions from the first token; its head alone reads the place, not the token.

    One ratio for clipping: the ratios are judged by that head.
    """
    right = texts("roberta")[:, :2]
    right[:, 0] *= right[:, 1]
    count = right[:, 1].sum(1)
    left = torch.stack([row.roll(9 - int(n), -1) for row, n in zip(right, count, strict=True)])
    assert not torch.equal(left, right)
    found, same = (scales(x, method, "roberta")[:-1] for x in (left, right))
    assert found == pytest.approx(same, rel=1e-4)


def test_tokens_beyond_the_longest_text_change_nothing() -> None:
    padded = torch.nn.functional.pad(texts(), (0, 5))
    assert scales(padded, Mse(8, 4)) == pytest.approx(scales(texts(), Mse(8, 4)), rel=1e-5)


def test_reconstruction_brings_a_text_model_closer() -> None:
    x, float_graph = torch.nn.functional.pad(texts(count=64), (0, 5)), graph()
    wanted = float_graph(x).detach()
    errors = list[float]()
    for method in (Mse(3, 3), with_iterations(QDropPlus(3, 3), 60)):
        plan = Plan(method, ACADEMIC, Widths(3, 3, ()))
        done = compress(float_graph, x, plan)
        errors.append(float((done.module(x).detach() - wanted).square().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_draw_of_short_texts_mixes_without_their_padding() -> None:
    fp, quantized = torch.zeros(4, 9, 3), torch.ones(4, 9, 3)
    valid = torch.arange(9) < torch.tensor([[9], [2], [4], [3]])
    drawn = Samples(fp, quantized, fp, valid=valid).at(torch.tensor([1, 2]))
    mixed = mix(drawn.fp, drawn.quantized, 0.5, torch.Generator().manual_seed(0))
    assert mixed.shape == (2, 4, 3)
    assert 0 < float(mixed.mean()) < 1


@pytest.mark.parametrize("kind", ["kl", "squared"])
def test_logits_at_padding_of_answers_count_in_no_loss(kind: str) -> None:
    target, out = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, True, False], [True, False, False]])
    asked = torch.zeros(2, 4, 3, dtype=torch.int64)
    samples = Samples(target, target, target, (asked,), valid)
    leaf = out.clone().requires_grad_()
    rows, wanted = leaf[valid], target[valid]
    if kind == "kl":
        p = wanted.softmax(-1)
        kept = (p * (p.log() - rows.log_softmax(-1))).sum(-1).mean()
    else:
        kept = (rows - wanted).square().sum(-1).mean()
    kept.backward()
    loss, gradient = _loss(out, samples, kind)
    torch.testing.assert_close(loss, kept.detach())
    torch.testing.assert_close(gradient, leaf.grad)
