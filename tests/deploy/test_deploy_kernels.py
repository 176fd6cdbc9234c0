"""What stays in floats between quantizers is the runtime's too: transformers, gates, windows."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, fx, nn

from roadworthy.compress.methods import Mse
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import backend
from roadworthy.core.capture import capture
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.kernels import ROUNDED_DIFFERENTLY, Call, Kernels
from roadworthy.deploy.runtimes import OrtPredictor

aten = torch.ops.aten
Exported = tuple[Callable[[], nn.Module], tuple[int, int], fx.GraphModule, Path]


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=6, num_classes=10
    )


def windows() -> nn.Module:
    """Swin: shifted windows, padding, merged patches."""
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 2),
        num_classes=10,
    )


def gates() -> nn.Module:
    """MobileNetV3: squeeze and excite, hard sigmoid and swish."""
    return timm.create_model("mobilenetv3_small_050", num_classes=10)


def sums() -> nn.Module:
    """ResNet: convolutions that the runtime adds to their shortcut while it computes them."""
    return timm.create_model("resnet10t", num_classes=10)


# Every width meets convolutions and transformers, every network two widths.
CASES = [
    (vit, (8, 8)),
    (vit, (4, 4)),
    (windows, (8, 8)),
    (windows, (2, 2)),
    (gates, (4, 4)),
    (gates, (2, 2)),
    (sums, (8, 8)),
    (sums, (2, 2)),
]


@cache
def captured(build: Callable[[], nn.Module]) -> tuple[fx.GraphModule, Tensor]:
    """A network's graph and images, for all widths."""
    torch.manual_seed(0)
    side = 64 if build is windows else 32
    images = torch.randn(64, 3, side, side)
    return capture(build().eval(), images[:1]), images


@pytest.fixture(scope="module", params=CASES, ids=lambda param: f"{param[0].__name__}-{param[1]}")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    build, bits = request.param
    graph, images = captured(build)
    plan = Plan(Mse(*bits), backend(None, bits[1]), Widths(*bits))
    module = compress(graph, images, plan).module
    snap_biases(module)
    path = tmp_path_factory.mktemp("kernels") / "model.onnx"
    export_onnx(module, images[:2], path)
    return build, bits, module, path


def test_every_logit_is_the_runtimes(exported: Exported) -> None:
    build, _, module, path = exported
    images = captured(build)[1]
    deployed = OrtPredictor(path)(images)
    gaps = (IntegerPredictor(module)(images) - deployed).abs().amax(1) / deployed.abs().max()
    assert int((gaps > 1e-5).sum()) == 0


def test_windows_and_class_tokens_reach_integer_kernels(exported: Exported, tmp_path: Path) -> None:
    build, bits, _, path = exported
    found = optimised(path, tmp_path)
    if build is windows and bits == (8, 8):
        assert found.count("MatMulNBits") == 0
    if build is vit and bits == (8, 8):
        assert not {"Gemm", "MatMul"} & set(found)


def test_a_sum_that_is_fused_differs_from_one_that_is_not() -> None:
    x, weight, other = (
        torch.randn(2, 32, 16, 16),
        torch.randn(32, 32, 3, 3),
        torch.randn(2, 32, 16, 16),
    )
    convolve = Call(aten.conv2d.default, (x, weight, torch.randn(32), [1, 1], [1, 1]))
    fused, apart = Kernels().sum([convolve, other]), Kernels().run(convolve) + other
    assert not torch.equal(fused, apart)
    torch.testing.assert_close(fused, apart)


def optimised(path: Path, folder: Path) -> list[str]:
    """The operators that onnxruntime runs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def calls() -> dict[object, tuple[object, ...]]:
    x, w = torch.randn(2, 5, 8, 8), torch.randn(8)
    return {
        aten.layer_norm.default: (x, [8], w, w, 1e-6),
        aten.softmax.int: (x, -1),
        aten.gelu.default: (x,),
        aten.silu.default: (x,),
        aten.sigmoid.default: (x,),
        aten.tanh.default: (x,),
        aten.hardsigmoid.default: (x,),
        aten.hardswish.default: (x,),
        aten.conv2d.default: (x, torch.randn(10, 1, 3, 3), torch.randn(10), [2, 2], [1], [1, 1], 5),
        aten.linear.default: (x, torch.randn(3, 8), torch.randn(3)),
        aten.matmul.default: (x, torch.randn(2, 5, 8, 3)),
    }


@pytest.mark.parametrize("target", calls(), ids=str)
def test_kernels_compute_what_torch_does(target: Callable[..., Tensor]) -> None:
    arguments = calls()[target]
    torch.testing.assert_close(Kernels().run(Call(target, arguments)), target(*arguments))


@pytest.mark.parametrize(
    ("target", "more"),
    [
        (aten.adaptive_avg_pool2d.default, ([1, 1],)),
        (aten.mean.dim, ([2, 3], True)),
        (aten.mean.dim, ([2, 3],)),
    ],
)
def test_pools_compute_what_torch_does(
    target: Callable[..., Tensor], more: tuple[object, ...]
) -> None:
    arguments = (torch.randn(2, 5, 8, 8), *more)
    torch.testing.assert_close(Kernels().run(Call(target, arguments)), target(*arguments))


def test_every_kernel_is_tested_and_small_variants_too() -> None:
    assert set(calls()) == ROUNDED_DIFFERENTLY
    x, weight, bias = torch.randn(4, 8), torch.randn(3, 8), torch.randn(3)
    run = Kernels().run
    torch.testing.assert_close(
        run(Call(aten.linear.default, (x, weight, bias))), x @ weight.T + bias
    )
    torch.testing.assert_close(run(Call(aten.linear.default, (x, weight))), x @ weight.T)
    torch.testing.assert_close(
        run(Call(aten.gelu.default, (x,), {"approximate": "tanh"})),
        nn.functional.gelu(x, approximate="tanh"),
    )
    torch.testing.assert_close(
        run(Call(aten.layer_norm.default, (x, [8], None, None))), nn.functional.layer_norm(x, [8])
    )
