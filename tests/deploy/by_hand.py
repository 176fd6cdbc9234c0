"""Quantized graphs made by hand: min-max grids at every input of the operators that use them."""

import operator

import torch
from torch import Tensor, fx, nn

from roadworthy.core.capture import capture
from roadworthy.core.grid import Grid, quantize
from roadworthy.deploy.bias import snap_biases

aten, ops = torch.ops.aten, torch.ops.roadworthy
WEIGHTED = {aten.conv2d.default, aten.linear.default}
RESIDUAL = {aten.add.Tensor}
CONSUMERS = WEIGHTED | {
    aten.matmul.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
}
CARRIERS = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}


def by_hand(
    module: nn.Module,
    example: Tensor,
    weight_bits: int = 8,
    act_bits: int = 8,
    signed: bool = True,
    adds: bool = True,
    ends: bool = False,
) -> fx.GraphModule:
    """Capture and quantize.

    `signed` chooses symmetric weights, else asymmetric unsigned ones; `adds` quantizes what enters
    residual sums; `ends` keeps first and last layer and what enters the last at 8 bits.
    """
    consumers = CONSUMERS | RESIDUAL if adds else CONSUMERS
    graph = capture(module, example)
    ranges = observe(graph, example)
    layers = [node for node in graph.graph.nodes if node.target in WEIGHTED]
    kept = {layers[0], layers[-1]} if ends else set()
    for node in layers:
        put_weight(graph, node, Grid(8 if node in kept else weight_bits, signed=signed))
    done: dict[fx.Node, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target in consumers:
            grid = Grid(8 if node in kept else act_bits)
            for source in [arg for arg in node.args[:2] if isinstance(arg, fx.Node)]:
                put_activation(graph, source, ranges, grid, done)
    graph.graph.lint()
    graph.recompile()
    snap_biases(graph)
    return graph


def observe(graph: fx.GraphModule, example: Tensor) -> dict[fx.Node, tuple[float, float]]:
    ranges = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and value.is_floating_point():
                ranges[n] = (min(0.0, float(value.min())), max(0.0, float(value.max())))
            return value

    with torch.no_grad():
        Watch(graph).run(example)
    return ranges


def buffer(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> fx.Node:
    name = f"{node.name}_{name}"
    graph.register_buffer(name, value)
    return graph.graph.get_attr(name)


def put_weight(graph: fx.GraphModule, node: fx.Node, grid: Grid) -> None:
    weight = operator.attrgetter(node.args[1].target)(graph).detach()
    rows = weight.flatten(1)
    if grid.signed:
        scale = rows.abs().amax(1).clamp(min=1e-6) / (64 if grid.bits == 8 else grid.qmax)
        zero = torch.zeros_like(scale)
    else:
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        scale = (high - low).clamp(min=1e-6) / grid.qmax
        zero = (-low / scale).round()
    codes = quantize(weight, scale, zero, grid).to(grid.dtype)
    with graph.graph.inserting_before(node):
        args = (
            buffer(graph, node, "codes", codes),
            buffer(graph, node, "scale", scale),
            buffer(graph, node, "zero", zero.to(grid.dtype)),
        )
        node.args = (
            node.args[0],
            graph.graph.call_function(ops.dequantize.default, (*args, 0, grid.bits)),
            *node.args[2:],
        )


def put_activation(graph, source, ranges, grid, done) -> None:
    while source.target in CARRIERS:
        source = source.args[0]
    if source.op == "get_attr" or source not in ranges:
        return
    if source not in done:
        low, high = ranges[source]
        scale = max(high - low, 1e-6) / (grid.qmax - grid.qmin)
        with graph.graph.inserting_after(source):
            zero = buffer(graph, source, "act_zero", torch.tensor(float(round(-low / scale))))
            step = buffer(graph, source, "act_scale", torch.tensor(scale))
        with graph.graph.inserting_after(zero):
            done[source] = graph.graph.call_function(
                ops.fake_quantize.default, (source, step, zero, grid.qmin, grid.qmax)
            )
        source.replace_all_uses_with(
            done[source], lambda user: user is not done[source], propagate_meta=False
        )


class SmallNet(nn.Module):
    """Plain, grouped and depthwise convolutions, ReLU and ReLU6, a skip add, pool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = nn.functional.relu6(self.depthwise(x))
        x = torch.relu(self.point(y) + x)
        x = torch.relu(self.grouped(x))
        return self.classify(x.mean((2, 3)))


class SmallVit(nn.Module):
    """One attention and one MLP block over 16 patches, with the fused attention operator."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.classify = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        shape = (x.shape[0], x.shape[1], 3, self.heads, -1)
        q, k, v = self.qkv(self.norm1(x)).reshape(shape).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(y.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return self.classify(x.mean(1))


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def some_images(n: int, side: int = 16) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def one_layer(
    codes: Tensor,
    scale: Tensor,
    bias: Tensor,
    bits: int = 8,
    conv: bool = False,
    act: tuple[float, float, int, int] = (0.1, 0.0, 0, 255),
) -> fx.GraphModule:
    """A quantizer and one weighted operator, from given numbers: what a kernel does with them."""
    root = nn.Module()
    step, zero, low, high = act
    numbers = {
        "codes": codes,
        "scale": scale,
        "zero": torch.zeros(len(codes), dtype=codes.dtype),
        "bias": bias,
        "act_scale": torch.tensor(step),
        "act_zero": torch.tensor(zero),
        "out_scale": torch.tensor(1.0371 * codes[0].numel() * step * float(scale.max())),
        "out_zero": torch.tensor(128.0),
    }
    for name, value in numbers.items():
        root.register_buffer(name, value)
    graph = fx.Graph()
    x = graph.placeholder("x")
    x = x if conv else graph.call_function(aten.flatten.using_ints, (x, 1))
    get = {name: graph.get_attr(name) for name in numbers}
    quantized = graph.call_function(
        ops.fake_quantize.default, (x, get["act_scale"], get["act_zero"], low, high)
    )
    weight = graph.call_function(
        ops.dequantize.default, (get["codes"], get["scale"], get["zero"], 0, bits)
    )
    layer = aten.conv2d.default if conv else aten.linear.default
    y = graph.call_function(layer, (quantized, weight, get["bias"]))
    if conv:
        y = graph.call_function(
            ops.fake_quantize.default, (y, get["out_scale"], get["out_zero"], 0, 255)
        )
    graph.output(graph.call_function(aten.flatten.using_ints, (y, 1)))
    return fx.GraphModule(root, graph)
