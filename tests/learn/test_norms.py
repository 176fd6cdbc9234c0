"""Shared norms are the ones that they stand for, alone and over processes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from roadworthy.errors import BadInput
from roadworthy.learn import norms
from roadworthy.learn.backbones import backbone
from roadworthy.learn.norms import SharedNorm, SharedNorm1d, SharedNormAct2d, share_norms

KINDS: dict[str, tuple[Callable[[], nn.Module], type[nn.Module], tuple[int, ...]]] = {
    "plain": (lambda: nn.BatchNorm2d(3), SharedNorm, (4, 3, 5, 5)),
    "rows": (lambda: nn.BatchNorm1d(3), SharedNorm1d, (6, 3)),
    "timm": (lambda: BatchNormAct2d(3, act_layer=nn.ReLU6), SharedNormAct2d, (4, 3, 5, 5)),
    "timm without activation": (
        lambda: BatchNormAct2d(3, apply_act=False),
        SharedNormAct2d,
        (4, 3, 5, 5),
    ),
}


def learned(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Answer and gradients of one step in train mode, and the answer in eval mode after it."""
    given = x.clone().requires_grad_()
    answer = norm.train()(given)
    (answer * torch.linspace(-1, 1, answer.numel()).view_as(answer)).sum().backward()
    found = [answer.detach(), given.grad, *(p.grad for p in norm.parameters())]
    return [*(each for each in found if each is not None), norm.eval()(x).detach()]


def pair(kind: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A norm with weights of its own, the one that is shared, and what both are given."""
    made, shared, shape = KINDS[kind]
    torch.manual_seed(0)
    own: Any = made()
    nn.init.uniform_(own.weight, 0.5, 2)
    nn.init.uniform_(own.bias, -1, 1)
    other = nn.Sequential(deepcopy(own))
    share_norms(other)
    assert type(other[0]) is shared
    return own, other[0], 3 * torch.randn(shape) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_learns_what_the_original_does(kind: str) -> None:
    own, shared, x = pair(kind)
    for found, wanted in zip(learned(shared, x), learned(own, x), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_the_same_images_learn_what_one_does(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, shared, x = pair(kind)
    wanted: Any = learned(own, x)
    monkeypatch.setattr(norms, "world", lambda: 2)
    monkeypatch.setattr(norms, "summed", lambda moments: 2 * moments)
    for found, each in zip(learned(shared, x)[:-1], wanted[:-1], strict=True):
        torch.testing.assert_close(found, each)
    both: Any = pair(kind)[0]
    learned(both, torch.cat([x, x]))
    for name, found in shared.named_buffers():
        torch.testing.assert_close(found, both.get_buffer(name))


def test_every_norm_of_an_efficientnet_is_shared() -> None:
    body = backbone("timm:efficientnet_lite0@random")
    wanted, shared = deepcopy(body).eval(), body.eval()
    share_norms(shared)
    kinds = [type(each) for each in shared.modules() if isinstance(each, nn.BatchNorm2d)]
    assert len(kinds) == 49
    assert set(kinds) <= {SharedNorm, SharedNormAct2d}
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(shared(images), wanted(images))


def test_another_kind_is_refused_by_several_processes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.BatchNorm3d(2))
    share_norms(model)
    assert type(model[0]) is nn.BatchNorm3d
    monkeypatch.setattr(norms, "world", lambda: 2)
    with pytest.raises(BadInput, match="a model with BatchNorm3d given to 2 processes"):
        share_norms(model)
