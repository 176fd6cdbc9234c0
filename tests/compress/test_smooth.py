"""SmoothQuant: the function stays, alpha trades channels for columns."""

import pytest
import torch
from small_transformers import captured, inputs, with_weights
from torch import fx

from roadworthy.compress.methods import Mse, SmoothQuant
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.smooth import _sizes, smooth
from roadworthy.compress.suppress import Smooth
from roadworthy.core.backends import ACADEMIC
from roadworthy.errors import BadInput


def graph(kind: str = "bert", dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    return with_weights(captured(kind, "sdpa", dtype))


@pytest.mark.parametrize("kind", ["bert", "albert", "bart", "opt"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays(kind: str, alpha: float) -> None:
    x, smoothed = inputs(kind), graph(kind)
    wanted = graph(kind)(x)
    moved = smooth(smoothed, x, alpha)
    assert any(each.residual for each in moved) or kind == "opt"
    torch.testing.assert_close(smoothed(x), wanted, rtol=1e-9, atol=1e-9)


def test_at_alpha_one_all_channels_of_a_norm_are_equally_large() -> None:
    x, smoothed = inputs("bert"), graph()
    moved = {each.norm for each in smooth(smoothed, x, 1.0) if each.refused is None}
    assert len(moved) == 4
    spans = [float(s.max() / s.clamp(min=1e-12).median()) for s in _sizes(smoothed, x).values()]
    assert sorted(spans)[3] == pytest.approx(1.0, abs=1e-6)


def test_smoothing_helps_where_norms_have_outliers() -> None:
    float_graph, x = graph(dtype=torch.float32), inputs("bert")
    wanted = float_graph(x).detach()

    def error(method: Mse | SmoothQuant) -> float:
        done = compress(float_graph, x, Plan(method, ACADEMIC, Widths(8, 5, ())))
        return float((done.module(x).detach() - wanted).square().mean())

    assert error(SmoothQuant(8, 5, suppress=Smooth(1.0))) < error(Mse(8, 5, act_exponent=2.0))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="alpha of 2 given"):
        Smooth(2)
