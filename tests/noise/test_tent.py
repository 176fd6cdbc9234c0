from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from roadworthy.core.predict import Predictor
from roadworthy.errors import BadInput, BadModel
from roadworthy.noise.tent import Tent, entropy


def network(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(288, 5)
    ).eval()


def images(seed: int = 0, count: int = 32) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def by_statistics(net: nn.Sequential, x: Tensor) -> Tensor:
    """Each channel brought to mean 0 and variance 1 over the batch, written out."""
    y = net[0](x)
    var, centre = torch.var_mean(y, (0, 2, 3), correction=0, keepdim=True)
    y = (y - centre) / (var + net[1].eps).sqrt()
    return net[5](net[4](net[2](y * net[1].weight.view(-1, 1, 1) + net[1].bias.view(-1, 1, 1))))


def test_without_learning_it_takes_the_statistics_of_the_batch() -> None:
    net, x = network(nn.BatchNorm2d(8)), images()
    tent = Tent(net, rate=0)
    assert isinstance(tent, Predictor)
    for _ in range(2):
        torch.testing.assert_close(tent(x), by_statistics(net, x).detach(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tent(x), net(x), atol=0.1)


def test_a_step_goes_down_the_entropy_by_the_rate() -> None:
    """Adam's first step is the rate against the sign of the gradient."""
    net, x = network(nn.BatchNorm2d(8)), images()
    twin = deepcopy(net)
    p = by_statistics(twin, x).softmax(1)
    (-(p * p.log()).sum(1)).mean().backward()
    for name in ("weight", "bias"):
        wanted = getattr(net[1], name).detach() - 0.01 * getattr(twin[1], name).grad.sign()
        setattr(twin[1], name, nn.Parameter(wanted))
    tent = Tent(net, rate=0.01)
    torch.testing.assert_close(tent(x), by_statistics(net, x).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tent(x), by_statistics(twin, x).detach(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(8), nn.LayerNorm([8, 6, 6]), nn.GroupNorm(2, 8)],
    ids=["batch", "layer", "group"],
)
def test_it_grows_surer_and_forgets_when_told(norm: nn.Module) -> None:
    net, x = network(norm), images()
    before = deepcopy(net.state_dict())
    tent = Tent(net, rate=0.01)
    answers = [tent(x) for _ in range(10)]
    surer = [float(entropy(answer).mean()) for answer in answers]
    assert surer == sorted(surer, reverse=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    tent.reset()
    again = [tent(x) for _ in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(answers, again, strict=True))


def test_it_learns_where_callers_hold_inference_mode() -> None:
    tent, x = Tent(network(nn.BatchNorm2d(8)), rate=0.01), images()
    with torch.inference_mode():
        first, second = tent(x * 1), tent(x * 1)
    assert not torch.equal(first, second)
    assert not second.requires_grad


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(8, affine=False)])
def test_a_model_without_scales_and_shifts_is_told(norm: nn.Module) -> None:
    with pytest.raises(BadModel, match="no normalisation layer"):
        Tent(network(norm))


@pytest.mark.parametrize("rate", [-1.0, float("nan")])
def test_no_rate_below_zero(rate: float) -> None:
    with pytest.raises(BadInput, match="0 or more"):
        Tent(network(nn.BatchNorm2d(8)), rate)


def test_bad_batches_and_bad_answers_are_told() -> None:
    with pytest.raises(BadModel, match=r"\[4, 3, 9, 9\].*input size"):
        Tent(network(nn.BatchNorm2d(8)))(torch.rand(4, 3, 9, 9))
    one = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten())
    with pytest.raises(BadModel, match="larger batches"):
        Tent(one)(images(count=1))
    with pytest.raises(BadModel, match=r"\[batch, classes\]"):
        Tent(nn.BatchNorm2d(3))(images())
