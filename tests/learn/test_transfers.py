"""Soft sharing begins by adding nothing, then learns, and never touches who is listened to."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from roadworthy.errors import BadModel
from roadworthy.learn.backbones import Generalist, Single, generalist, single
from roadworthy.learn.transfers import Transfers, transfer

XS = "metanet:mn_xs@random"
AUXILIARIES = (XS, "timm:test_resnet@random")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def made(*auxiliaries: str) -> tuple[Single, Generalist]:
    """A main expert, and a generalist around a copy of it."""
    torch.manual_seed(0)
    main, copy = single(XS), single(XS)
    copy.load_state_dict(main.state_dict())
    return main, generalist(copy, [single(each) for each in auxiliaries])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("transfers", [True, False])
@pytest.mark.parametrize("auxiliaries", [AUXILIARIES, AUXILIARIES[:1]])
def test_at_step_0_it_is_exactly_its_main_expert(
    images: torch.Tensor, training: bool, transfers: bool, auxiliaries: tuple[str, ...]
) -> None:
    main, whole = made(*auxiliaries)
    main.train(training)
    whole.train(training)
    whole.transfers.train(transfers)
    assert torch.equal(whole(images)[:, : main.width], main(images))
    for merged, own in zip(
        whole.forward_features(images), main.forward_features(images), strict=True
    ):
        assert torch.equal(merged[:, : own.shape[1]], own)


def test_beside_the_main_branch_stand_its_auxiliaries_as_they_were(images: torch.Tensor) -> None:
    main, whole = made(*AUXILIARIES)
    auxiliaries = [each.eval() for each in whole.auxiliaries]
    pooled, maps = whole.train().forward_both(images)
    assert not any(each.training for each in whole.auxiliaries.modules())
    assert pooled.shape[1] == whole.width
    assert tuple(each.shape[1] for each in maps) == whole.channels
    assert torch.equal(pooled[:, main.width :], torch.cat([e(images) for e in auxiliaries], 1))


def test_what_is_added_reaches_all_later_stages_and_no_earlier_one(images: torch.Tensor) -> None:
    main, whole = made(XS)
    last = whole.transfers[0].rows[1][0][-1]
    nn.init.ones_(last.weight)
    main.eval()
    whole.eval()
    pairs = zip(whole.forward_features(images), main.forward_features(images), strict=True)
    assert [torch.equal(m[:, : o.shape[1]], o) for m, o in pairs] == [True, False, False, False]


def test_gradient_reaches_main_and_transfers_but_never_auxiliaries(images: torch.Tensor) -> None:
    _, whole = made(*AUXILIARIES)
    before = {k: v.clone() for k, v in whole.auxiliaries.state_dict().items()}
    whole.train()
    learned = [p for p in whole.parameters() if p.requires_grad]
    for _ in range(3):  # at first the gain of 0 hides the convolutions behind it
        loss = sum(m.square().mean() for m in whole.forward_features(images))
        grads = torch.autograd.grad(loss, learned, allow_unused=True)
        with torch.no_grad():
            for each, grad in zip(learned, grads, strict=True):
                each.add_(0 if grad is None else -0.01 * grad)
    seen = dict(zip(map(id, learned), grads, strict=True))
    convs = [m for m in whole.transfers.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 2 * (4 + 3 + 2 * 2 + 3)
    assert all(seen[id(conv.weight)].abs().sum() > 0 for conv in convs)
    assert all(not p.requires_grad for p in whole.auxiliaries.parameters())
    assert all(torch.equal(v, before[k]) for k, v in whole.auxiliaries.state_dict().items())


def test_only_the_last_norm_of_a_chain_begins_at_zero() -> None:
    chain = transfer(8, 16, halvings=3)
    gains = [float(m.weight.detach().abs().max()) for m in chain if isinstance(m, nn.BatchNorm2d)]
    assert gains == [1, 1, 0]
    convs = [m for m in chain if isinstance(m, nn.Conv2d)]
    assert all(a.out_channels == b.in_channels for a, b in pairwise(convs))
    assert float(convs[0].weight.detach().std()) == pytest.approx(1e-3, rel=0.1)


def test_transfers_fit_the_maps_of_any_backbone() -> None:
    maps = [torch.randn(2, 4 + k, 16 >> k, 16 >> k) for k in range(4)]
    added = Transfers((4, 5, 6, 7), (9, 8, 7, 6))(maps)
    assert [tuple(each.shape[1:]) for each in added] == [
        (9, 16, 16),
        (8, 8, 8),
        (7, 4, 4),
        (6, 2, 2),
    ]


def test_a_main_branch_of_timm_is_told() -> None:
    with pytest.raises(BadModel, match="the main branch is ResNet of timm; a metanet is needed"):
        generalist(single("timm:test_resnet@random"), [single(XS)])
