"""Gamma Migration: whatever the network and its gammas, nothing that it computes changes."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from small_transformers import CASES, TABLE, as_type, captured, inputs, values, with_weights
from torch import Tensor, fx, nn

from roadworthy.compress.migrate import Migration, migrate, movable
from roadworthy.core.capture import capture
from roadworthy.core.fold import aten, attribute
from roadworthy.deploy.export import export_onnx

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.01}


def assert_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        got = after[name]
        assert got.dtype is wanted.dtype
        error, span = float((got - wanted).abs().max()), float(wanted.abs().max())
        assert error <= TOLERANCE[wanted.dtype] * span, (
            f"{name} is off by {error:.1e} of {span:.1e}"
        )


def nodes(graph: fx.GraphModule, target: object) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target is target]


def norms(graph: fx.GraphModule) -> list[fx.Node]:
    return nodes(graph, aten.layer_norm.default)


def double(module: nn.Module, x: Tensor) -> fx.GraphModule:
    return as_type(capture(module, x), torch.float64)


def migrated(made: tuple[Migration, ...]) -> list[Migration]:
    return [m for m in made if m.refused is None]


@pytest.mark.parametrize("extreme", [False, True], ids=["ordinary", "extreme"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "attention"), CASES)
def test_every_linear_and_the_output_keep_their_values(
    name: str, attention: str, dtype: torch.dtype, extreme: bool
) -> None:
    graph = with_weights(captured(name, attention, dtype), extreme)
    x = inputs(name, batch=4)
    x = x.to(dtype) if x.is_floating_point() else x
    before = values(graph, x)
    made = migrate(graph)
    assert_same(before, values(graph, x))
    assert bool(migrated(made)) == (name != "t5")


def told(made: Migration) -> str:
    """``norm > linears``, with ``+`` where a multiplication serves what else reads it."""
    norm = re.sub(r"^model\.\w+\.", "", made.norm)
    if made.refused:
        return f"{norm}: {made.refused}"
    leaves: dict[str, list[str]] = {}
    for linear in made.absorbed:
        parent, _, leaf = re.sub(r"^model\.\w+\.", "", linear).rpartition(".")
        leaves.setdefault(f"{parent}." if parent else "", []).append(leaf)
    linears = " ".join(f"{parent}{','.join(sorted(found))}" for parent, found in leaves.items())
    return f"{norm} > {linears}{' +' if made.residual else ''}"


@pytest.mark.parametrize(("name", "attention"), [case for case in CASES if case[0] in TABLE])
def test_the_norms_and_their_readers_are_those_of_the_table(name: str, attention: str) -> None:
    made = migrate(with_weights(captured(name, attention)))
    assert "\n".join(told(m) for m in made) == TABLE[name]


def test_rms_norms_are_refused_and_left_alone() -> None:
    graph = with_weights(captured("t5", "sdpa"))
    before = graph.code
    made = migrate(graph)
    assert len(made) == 5  # two of each layer and the last
    assert all(m.refused and m.refused.startswith("RMSNorm: ") for m in made)
    assert graph.code == before


@pytest.mark.parametrize("extreme", [False, True], ids=["ordinary", "extreme"])
def test_what_stays_in_the_norm(extreme: bool) -> None:
    graph = with_weights(captured("bert", "sdpa"), extreme)
    given = [
        [attribute(graph, a) for a in norm.args[2:4]] + [norm.args[4]] for norm in norms(graph)
    ]
    made = migrate(graph)
    for one, norm, (gamma, beta, eps) in zip(made, norms(graph), given, strict=True):
        moves = movable(gamma, beta) if one.refused is None else torch.zeros(32, dtype=torch.bool)
        scale, shift = (attribute(graph, a) for a in norm.args[2:4])
        assert torch.equal(scale, torch.where(moves, 1.0, gamma))
        assert torch.equal(shift, torch.where(moves, beta / gamma, beta))
        assert norm.args[4] == eps == 1e-12
        assert one.refused or one.kept_channels == (3 if extreme else 0)


def test_one_multiplication_serves_all_that_reads_the_norm() -> None:
    graph = with_weights(captured("bert-hidden", "eager"))
    migrate(graph)
    served: list[set[object]] = []
    for norm in norms(graph)[:4]:
        (restored,) = (user for user in norm.users if user.target is not aten.linear.default)
        assert restored.target is aten.mul.Tensor
        served.append({user.target for user in restored.users})
    hidden_state = {aten.add.Tensor, aten.stack.default}
    assert served == [hidden_state, {aten.add.Tensor}] * 2


def test_a_second_call_changes_nothing() -> None:
    graph = with_weights(captured("bert", "sdpa"), True)
    migrate(graph)
    code = graph.code
    assert not migrated(migrate(graph))
    assert graph.code == code


def test_calls_that_share_weight_and_norm_share_the_copy() -> None:
    graph = with_weights(captured("albert", "eager"))
    before = set(dict(graph.named_buffers()))
    migrate(graph)
    linears = nodes(graph, aten.linear.default)
    read = [str(node.args[1].target) for node in linears]
    ffn, query = ([name for name in read if part in name] for part in ("_ffn_w", "query"))
    assert len(ffn) == 2
    assert len(set(ffn)) == 1  # both behind the same norm
    assert len(set(query)) == 2  # the first layer reads no norm
    # LN' and g of three norms, the mapping, the ffn, q, k and v; g of the first has no reader
    assert len(set(dict(graph.named_buffers())) - before) == 3 * 2 + 2 + 5


@pytest.mark.parametrize(("name", "attention"), [("bart", "sdpa"), ("opt", "eager")])
def test_a_tied_head_stays_tied(name: str, attention: str) -> None:
    graph = with_weights(captured(name, attention))
    migrate(graph)
    tables = [attribute(graph, node.args[0]) for node in nodes(graph, aten.embedding.default)]
    head = attribute(graph, nodes(graph, aten.linear.default)[-1].args[1])
    assert any(head.data_ptr() == table.data_ptr() for table in tables)


PASSED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "slice": lambda y, _: y[:, 1:, ::2],
    "reshape": lambda y, _: y.reshape(y.shape[0], 64, 8),
    "flatten": lambda y, _: y.flatten(1, 2),
    "unflatten": lambda y, _: y.unflatten(2, (2, 4)),
    "windows": lambda y, _: y.view(-1, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8),
    "transpose": lambda y, _: y.transpose(1, 2).contiguous(),
    "roll": lambda y, _: torch.roll(y, (1, -2), (1, -2)),
    "zeros": lambda y, _: nn.functional.pad(y, (0, 0, 1, 2, 0, 1)),
    "expand": lambda y, _: y.unsqueeze(1).expand(-1, 3, -1, -1, -1).clone(),
    "same type": lambda y, _: y.to(y.dtype),
    "mask": lambda y, x: y * (x[..., :1] > 0),
    "mask first": lambda y, x: (x[..., :1] > 0) * y,
    "by a number": lambda y, _: y / 3 * 2,
    "twice": lambda y, _: y[:, :4].flatten(1, 2),
}
STOPPED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "transposed channels": lambda y, _: y.transpose(2, 3),
    "permuted channels": lambda y, _: y.permute(0, 3, 1, 2),
    "rolled channels": lambda y, _: torch.roll(y, 1, -1),
    "rolled flat": lambda y, _: torch.roll(y, 1),
    "shifted channels": lambda y, _: nn.functional.pad(y, (1, -1)),
    "ones": lambda y, _: nn.functional.pad(y, (0, 0, 1, 1), value=1.0),
    "mirrored": lambda y, _: nn.functional.pad(y, (0, 0, 1, 1), mode="reflect"),
    "flipped channels": lambda y, _: y.flip(-1),
    "picked channels": lambda y, _: y[..., torch.arange(7, -1, -1)],
    "sliced channels": lambda y, _: y[..., :4],
    "merged channels": lambda y, _: y.flatten(2),
    "split channels": lambda y, _: y.unflatten(3, (2, 4)),
    "per channel": lambda y, x: y * x[:1, :1, :1],
    "square": lambda y, _: y * y,
    "divisor": lambda y, x: x[..., :1] / y,
    "sum": lambda y, x: y + x[..., :1],
    "rounded": lambda y, _: y.bfloat16().to(y.dtype),
    "bent": lambda y, _: y.relu(),
    "picked": lambda y, _: y[:, 0],
    "pooled": lambda y, _: y.mean(1),
}


class Branches(nn.Module):
    """A norm read by a linear, by the residual and by a branch for each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.direct, self.last = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        widths = {"sliced channels": 4, "merged channels": 64, "split channels": 4}
        self.branches = nn.ModuleDict(
            {name: nn.Linear(widths.get(name, 8), 8) for name in PASSED | STOPPED}
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z = self.direct(y).relu() + y
        for name, change in (PASSED | STOPPED).items():
            branch = self.branches[name](change(y, x)).relu()
            z = z + branch.reshape(x.shape[0], -1, 8).mean(1)[:, None, None]
        return self.last(z)


def test_linears_absorb_behind_what_leaves_the_channels_alone() -> None:
    x = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = with_weights(double(Branches(), x))
    before = values(graph, x.double())
    (made,) = migrate(graph)
    assert_same(before, values(graph, x.double()))
    assert {name.removeprefix("branches.") for name in made.absorbed} == {"direct", *PASSED}
    assert made.residual
    gains = [n for n in nodes(graph, aten.mul.Tensor) if norms(graph)[0] in n.args[:1]]
    assert sum(n.args[1].op == "get_attr" for n in gains if isinstance(n.args[1], fx.Node)) == 1


def test_a_factor_behind_a_mask_is_restored_behind_it() -> None:
    """As in DeBERTa, whose embeddings are masked ahead of the first layer and its residual."""
    graph = with_weights(captured("deberta", "eager"))
    migrate(graph)
    (masked,) = norms(graph)[0].users
    kinds = {user.target for user in masked.users}
    assert kinds == {aten.linear.default, aten.mul.Tensor}


class TwoNorms(nn.Module):
    """One linear behind two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.shared = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shared(self.a(x)).relu()
        return self.head(x + self.shared(self.b(x)).relu())


def test_a_weight_behind_two_norms_has_a_copy_for_each() -> None:
    graph = with_weights(double(TwoNorms(), torch.randn(2, 4)))
    x = torch.randn(5, 4, dtype=torch.float64)
    before = values(graph, x)
    assert len(migrated(migrate(graph))) == 2
    assert_same(before, values(graph, x))


def behind(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(norm, nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


class Channels(nn.Module):
    """A norm in front of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).permute(0, 3, 1, 2))


def zero(norm: nn.LayerNorm) -> nn.LayerNorm:
    nn.init.zeros_(norm.weight)
    return norm


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (behind(nn.LayerNorm(4, elementwise_affine=False)), "no gamma"),
        (behind(nn.LayerNorm((4, 4))), "gamma has 2 axes"),
        (behind(zero(nn.LayerNorm(4))), "nothing to move"),
        (behind(nn.RMSNorm(4)), "RMSNorm: "),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "last norm: read by the model's output"),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), "last norm: read by the model's head"),
        (Channels(), "no linear absorbs it: read by conv2d"),
    ],
)
def test_a_norm_that_stays_says_why(module: nn.Module, reason: str) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.weight.any():
            nn.init.uniform_(norm.weight, 1, 2)
    x = torch.randn(2, 4, 4, 4)
    graph = capture(module, x)
    wanted = graph(x)
    (made,) = migrate(graph)
    assert made.refused
    assert made.refused.startswith(reason)
    assert (made.absorbed, made.residual, made.kept_channels) == ((), False, 0)
    assert torch.equal(graph(x), wanted)


def test_a_norm_without_beta_moves_too() -> None:
    graph = with_weights(double(behind(nn.LayerNorm(4, bias=False)), torch.randn(2, 4)))
    x = torch.randn(5, 4, dtype=torch.float64)
    before = values(graph, x)
    assert len(migrated(migrate(graph))) == 1
    assert_same(before, values(graph, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype: torch.dtype) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    graph = with_weights(capture(behind(nn.LayerNorm(4)).to(dtype), x))
    before = values(graph, x)
    assert len(migrated(migrate(graph))) == 1
    assert_same(before, values(graph, x))
    assert {value.dtype for value in graph.state_dict().values()} == {dtype}


def test_a_weight_that_would_overflow_absorbs_nothing() -> None:
    graph = capture(behind(nn.LayerNorm(4)).half(), torch.ones(2, 4).half())
    (norm,), linear = norms(graph), nodes(graph, aten.linear.default)[0]
    attribute(graph, norm.args[2]).fill_(2000)
    attribute(graph, linear.args[1]).fill_(60)
    (made,) = migrate(graph)
    assert made.refused == "no linear absorbs it: read by linear"


sizes = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-30)


@pytest.fixture(scope="module")
def two_norms() -> fx.GraphModule:
    return double(TwoNorms(), torch.randn(2, 4))


@given(st.lists(sizes, min_size=8, max_size=8), st.lists(sizes, min_size=8, max_size=8))
def test_any_gammas_and_betas(
    two_norms: fx.GraphModule, gammas: list[float], betas: list[float]
) -> None:
    graph = with_weights(two_norms)
    for norm, place in zip(norms(graph), (slice(0, 4), slice(4, 8)), strict=True):
        for argument, drawn in zip(norm.args[2:4], (gammas, betas), strict=True):
            attribute(graph, argument).copy_(torch.tensor(drawn[place]))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    before = values(graph, x)
    migrate(graph)
    assert_same(before, values(graph, x))


@given(st.lists(sizes, min_size=1, max_size=9), st.lists(sizes, min_size=9, max_size=9))
def test_what_moves_is_far_from_zero_and_near_its_beta(
    gammas: list[float], betas: list[float]
) -> None:
    gamma = torch.tensor(gammas, dtype=torch.float64)
    beta = torch.tensor(betas[: len(gammas)], dtype=torch.float64)
    moves = movable(gamma, beta)
    assert bool((gamma[moves] != 0).all())
    assert bool(((beta / gamma)[moves].abs() <= 20.001).all())
    assert torch.equal(moves, movable(-gamma, beta))  # whatever the sign ...
    assert torch.equal(moves, movable(gamma * 1024, beta * 1024))  # ... and the scale


class PostNorm(nn.Module):
    """Two sublayers with their norms behind, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.second(x + self.a(x).relu())
        return self.head(self.last(x + self.b(x).relu())[:, 0, 0])


def test_in_the_file_a_norm_is_one_node_of_scale_one(tmp_path: Path) -> None:
    x = torch.randn(3, 5, 2, 8, generator=torch.Generator().manual_seed(0))
    graph = with_weights(capture(PostNorm(), x))
    wanted = graph(x)
    migrate(graph)
    export_onnx(graph, x, tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    written = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(written) == 3
    assert sum(node.op_type == "Mul" for node in model.graph.node) == 2
    for node in written[:2]:
        assert np.array_equal(stored[node.input[1]], np.ones(8))
        readers = [r for r in model.graph.node if node.output[0] in r.input]
        assert sorted(r.op_type for r in readers) == ["MatMul", "Mul"]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (got,) = session.run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), wanted.detach(), rtol=1e-4, atol=1e-4)
