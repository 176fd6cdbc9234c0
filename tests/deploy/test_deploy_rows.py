"""Rows and unread tokens: the same answers, other shapes."""

from functools import cache
from pathlib import Path

import pytest
import torch
from by_hand import by_hand
from torch import Tensor, fx, nn

from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.fused import fused
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.rows import by_rows, in_rows
from roadworthy.deploy.runtimes import OrtPredictor

aten = torch.ops.aten
WIDTH = 24


class Encoder(nn.Module):
    """A layer behind attention over 16 patches; the first token is read of it, or some, or all."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.read = read
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.gain = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GELU(), nn.Linear(48, WIDTH))
        self.classify = nn.Linear(WIDTH, 5)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], 2, WIDTH // 2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (self.heads(layer(x)) for layer in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = self.norm1(x + self.out(y.transpose(1, 2).flatten(2)))
        x = self.norm2(x * self.gain + self.mlp(x))
        match self.read:
            case "first":
                return self.classify(x[:, 0])
            case "some":
                return self.classify(x[:, 2:5]).flatten(1)
            case _:
                return self.classify(x).mean(1)


def pictures(n: int) -> Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@cache
def quantized(read: str) -> fx.GraphModule:
    torch.manual_seed(0)
    graph = by_hand(Encoder(read).eval(), pictures(32), adds=False)
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            node.meta.clear()  # as freezing leaves them
    return graph


@pytest.fixture(params=["first", "some", "all"])
def read(request: pytest.FixtureRequest) -> str:
    return request.param


def shapes(module: fx.GraphModule, kind: object) -> list[list[int]]:
    found: list[list[int]] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.target is kind and isinstance(value, Tensor):
                found.append(list(value.shape))
            return value

    Watch(module).run(pictures(2))
    return found


def test_the_function_stays(read: str) -> None:
    module = quantized(read)
    torch.testing.assert_close(by_rows(module)(pictures(5)), module(pictures(5)))


def test_the_module_itself_stays(read: str) -> None:
    module = quantized(read)
    before = str(module.graph)
    by_rows(module)
    assert str(module.graph) == before


def test_every_linear_gets_rows(read: str) -> None:
    before = {len(shape) for shape in shapes(quantized(read), aten.linear.default)}
    assert before == ({2, 3} if read == "first" else {3})
    assert {len(shape) for shape in shapes(by_rows(quantized(read)), aten.linear.default)} == {2}


@pytest.mark.parametrize(("read", "tokens"), [("first", 1), ("some", 3), ("all", 16)])
def test_nobody_computes_tokens_that_nobody_reads(read: str, tokens: int) -> None:
    found = shapes(by_rows(quantized(read)), aten.linear.default)
    assert [rows for rows, _ in found] == [32] * 3 + [2 * tokens] * 4
    norms = shapes(by_rows(quantized(read)), aten.layer_norm.default)
    assert norms == [[2 * tokens, WIDTH]] * 2


def test_the_runtime_computes_what_is_simulated(read: str, tmp_path: Path) -> None:
    module, path = quantized(read), tmp_path / "model.onnx"
    export_onnx(module, pictures(2), path)
    simulated, deployed = (
        IntegerPredictor(module)(pictures(64)),
        OrtPredictor(path, 1)(pictures(64)),
    )
    torch.testing.assert_close(simulated, deployed, rtol=0, atol=1e-6)  # means round otherwise


def test_biases_join_the_integers(read: str, tmp_path: Path) -> None:
    export_onnx(quantized(read), pictures(2), tmp_path / "model.onnx")
    found = fused(tmp_path / "model.onnx")
    assert found.ops["QGemm"] == 7
    assert "SkipLayerNormalization" not in found.ops
    assert (found.float, found.pairs) == (0, 0)


def test_what_holds_no_integers_is_left_alone() -> None:
    module = Encoder("first")
    traced = fx.symbolic_trace(nn.Linear(3, 3))
    assert in_rows(module) is module
    assert in_rows(traced) is traced
