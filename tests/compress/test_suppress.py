"""What is done about outliers, saved and found again; shifts and scales leave the function."""

from dataclasses import asdict

import pytest
import torch
from small_transformers import CASES, captured, inputs, with_weights
from test_migrate import assert_same
from torch import Tensor, fx, nn

from roadworthy.compress.methods import (
    Method,
    MinMax,
    Mse,
    OutlierSuppressionPlus,
    SmoothQuant,
)
from roadworthy.compress.migrate import migrate
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.shift import shift, shiftable
from roadworthy.compress.suppress import (
    GammaMigration,
    ShiftScale,
    Smooth,
    Suppress,
    suppress,
    suppressed_shape,
)
from roadworthy.compress.thresholds import Written, search
from roadworthy.core.backends import ACADEMIC
from roadworthy.core.capture import capture
from roadworthy.core.fold import attribute
from roadworthy.core.grid import Grid
from roadworthy.errors import BadInput

WRITTEN = Written(Grid(6, signed=True), Grid(6), "minmax", "minmax", 2.0)


def graph(kind: str = "bert", dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    return with_weights(captured(kind, "sdpa", dtype))


def answer(graph: fx.GraphModule, x: Tensor) -> Tensor:
    with torch.no_grad():
        value = graph(x)
    return value if isinstance(value, Tensor) else value[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "attention"), CASES)
def test_shifts_and_scales_leave_the_output(name: str, attention: str, dtype: torch.dtype) -> None:
    changed, x = with_weights(captured(name, attention, dtype)), inputs(name)
    x = x.to(dtype) if x.is_floating_point() else x
    before = {"output": answer(changed, x)}
    moved = suppress(changed, x, ShiftScale(2), WRITTEN)
    assert_same(before, {"output": answer(changed, x)})
    assert any(m.refused is None for m in moved.migrations) == (name != "t5")
    assert any(bool(f.shift.any()) for f in moved.searched.values()) == (name != "t5")


@pytest.mark.parametrize(
    ("how", "older"),
    [
        (GammaMigration(), {"migrate": True, "smooth": None}),
        (Smooth(0.5), {"migrate": False, "smooth": 0.5}),
        (None, {"migrate": False, "smooth": None}),
        (ShiftScale(2), None),
    ],
)
def test_saved_settings_lead_back_to_the_graph(
    how: Suppress | None, older: dict[str, object] | None
) -> None:
    changed, x = graph(), inputs("bert")
    if how is not None:
        suppress(changed, x, how, WRITTEN)
    for settings in (older, {"suppress": how and asdict(how)}):
        found = graph()
        if settings is not None:
            suppressed_shape(found, settings)
            assert found.code == changed.code
            found.load_state_dict(changed.state_dict())
            assert torch.equal(answer(found, x), answer(changed, x))


class Masked(nn.Module):
    """A norm behind which rows are struck out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x) * (x[..., :1] > 0).float()
        return self.down(self.up(h).relu())


def test_no_summand_gets_through_a_mask() -> None:
    changed, x = capture(Masked().eval(), torch.zeros(1, 1, 1, 4)), torch.randn(16, 1, 1, 4)
    wanted = answer(changed, x)
    assert not shiftable(changed)
    moved = suppress(changed, x, ShiftScale(3), WRITTEN)
    (found,) = moved.searched.values()
    assert moved.migrations[0].refused is None
    assert not found.shift.any()
    torch.testing.assert_close(answer(changed, x), wanted, rtol=1e-4, atol=1e-5)


def test_linears_and_norms_without_bias_get_one() -> None:
    net = nn.Sequential(nn.LayerNorm(4, bias=False), nn.Linear(4, 6, bias=False), nn.Linear(6, 2))
    changed, x = capture(net.eval(), torch.zeros(1, 4)), torch.randn(5, 4)
    wanted = answer(changed, x)
    shift(changed, {next(iter(shiftable(changed))).args[2].target: torch.arange(4.0)})
    torch.testing.assert_close(answer(changed, x), wanted, rtol=1e-5, atol=1e-5)
    (norm,) = shiftable(changed)
    assert torch.equal(attribute(changed, norm.args[3]), -torch.arange(4.0))


def test_shift_and_scale_are_those_of_the_paper() -> None:
    torch.manual_seed(3)
    x = torch.randn(32, 1, 1, 6) * torch.tensor([1.0, 1, 1, 1, 1, 9])
    net = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 2)).eval()
    (found,) = search(capture(net, x[:1]), x, WRITTEN, 5).values()
    written = nn.functional.layer_norm(x, (6,)).double().flatten(0, 2)
    low, high, t = written.amin(0), written.amax(0), found.threshold
    torch.testing.assert_close(found.shift, (low + high) / 2)
    expected = torch.maximum((high - found.shift) / t, (low - found.shift) / -t).clamp(min=1)
    torch.testing.assert_close(found.scale, expected)
    assert len(found.losses) == 5
    assert max(found.losses) == pytest.approx(float((high - low).max() / 2))
    assert found.losses[t] == min(found.losses.values())
    # The slow way: the linear's output with the norm's values and its weight on their grids.
    for tried, loss in found.losses.items():
        scale = torch.maximum(high - found.shift, found.shift - low).div(tried).clamp(min=1).float()
        z, weight = found.shift.float(), net[1].weight.detach() * scale
        x1 = (written.float() - z) / scale
        step = float((x1.max() - x1.min()) / 63)
        zero = round(-float(x1.min()) / step)
        x2 = (x1 / step).round().clamp(-zero, 63 - zero) * step
        steps = weight.abs().amax(1, keepdim=True) / 31
        got = (x2 @ ((weight / steps).round() * steps).T) + net[1].weight.detach() @ z
        wanted = written.float() @ net[1].weight.detach().T
        assert loss == pytest.approx(float((got - wanted).square().sum()), rel=1e-2)


def far_off(size: float) -> fx.GraphModule:
    """BERT with channels of every norm moved far off, and all that reads them moved back."""
    moved, channels = graph(dtype=torch.float32), torch.zeros(32)
    channels[[3, 17]] = torch.tensor([-size, size])
    shift(moved, {str(norm.args[2].target): channels for norm in shiftable(moved)})
    return moved


def test_a_shift_cures_channels_that_gains_leave_far_off() -> None:
    plain, moved, x = graph(dtype=torch.float32), far_off(60.0), inputs("bert")
    wanted = answer(plain, x)
    torch.testing.assert_close(answer(moved, x), wanted, rtol=1e-3, atol=1e-3)

    def error(of: fx.GraphModule, method: Method) -> float:
        done = compress(of, x, Plan(method, ACADEMIC, Widths(8, 6, ())))
        return float((answer(done.module, x) - wanted).square().mean())

    naive = error(moved, Mse(8, 6, act_exponent=2.0))
    migration = error(moved, Mse(8, 6, act_exponent=2.0, suppress=GammaMigration()))
    plus = error(moved, OutlierSuppressionPlus(8, 6))
    assert migration > naive / 2
    assert plus < migration / 50


def test_naive_ranges_collapse_under_outliers_that_suppression_takes_away() -> None:
    plain, inflated, x = graph(dtype=torch.float32), graph(dtype=torch.float32), inputs("bert")
    wanted = answer(plain, x)
    grown = torch.ones(32, dtype=torch.float64)
    grown[:2] = 1 / 40  # the same function with two channels forty times as large
    migrate(inflated, {str(norm.args[2].target): grown for norm in shiftable(inflated)})
    torch.testing.assert_close(answer(inflated, x), wanted, rtol=1e-3, atol=1e-3)

    def error(method: Method) -> float:
        done = compress(inflated, x, Plan(method, ACADEMIC, Widths(8, 6, ())))
        return float((answer(done.module, x) - wanted).square().mean() / wanted.var())

    naive = error(MinMax(8, 6))
    suppressed = [
        error(SmoothQuant(8, 6, suppress=Smooth(1.0))),
        error(OutlierSuppressionPlus(8, 6)),
    ]
    assert naive > 0.3
    assert max(suppressed) < naive / 10


def test_bad_thresholds_are_refused() -> None:
    with pytest.raises(BadInput, match="0 thresholds given"):
        ShiftScale(0)


def test_a_gain_asked_for_moves_even_where_it_is_one() -> None:
    changed = graph()
    ones = {str(norm.args[2].target): torch.ones(32) for norm in shiftable(changed)}
    assert migrate(changed, ones)[0].refused is None
