"""The file holds exactly the module's integers, packed, and a runtime computes what they mean."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from by_hand import SmallNet, SmallVit, by_hand, one_layer, ops, seeded, some_images
from onnx import TensorProto, numpy_helper
from torch import fx, nn

from roadworthy.core.predict import TorchPredictor
from roadworthy.deploy.export import OnnxFacts, export_onnx
from roadworthy.deploy.inspect import file_values
from roadworthy.deploy.parity import parity
from roadworthy.deploy.runtimes import OpenVinoPredictor, OrtPredictor
from roadworthy.errors import BadModel, RoadworthyError

WIDTHS = [(8, True), (8, False), (7, False), (6, True)]
WIDTHS += [(5, False), (4, False), (3, True), (2, False)]
TYPES = {
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (2, True): TensorProto.INT2,
    (2, False): TensorProto.UINT2,
}


def container(bits: int) -> int:
    return 2 if bits == 2 else 4 if bits <= 4 else 8


class Case:
    """A quantized net and its file."""

    def __init__(self, module: fx.GraphModule, bits: int, signed: bool, path: Path) -> None:
        self.module, self.bits, self.signed, self.path = module, bits, signed, path
        self.facts: OnnxFacts = export_onnx(module, some_images(1), path)
        self.model = onnx.load(str(path))

    def codes(self) -> list[TensorProto]:
        names = [f"dequantize{f'_{i}' if i else ''}.codes" for i in range(5)]
        found = {tensor.name: tensor for tensor in self.model.graph.initializer}
        return [found[name] for name in names]

    def weights(self) -> list[tuple[torch.Tensor, ...]]:
        nodes = [n for n in self.module.graph.nodes if n.target is ops.dequantize.default]
        return [tuple(getattr(self.module, a.target) for a in n.args[:3]) for n in nodes]


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda w: f"{'s' if w[1] else 'u'}{w[0]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    bits, signed = request.param
    module = by_hand(seeded(SmallNet), some_images(32), bits, bits, signed)
    return Case(module, bits, signed, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_codes_in_the_file_are_the_modules_codes(case: Case) -> None:
    for stored, (codes, _, _) in zip(case.codes(), case.weights(), strict=True):
        assert np.array_equal(numpy_helper.to_array(stored).astype(int), codes.numpy().astype(int))


def test_codes_are_packed_into_the_narrowest_type(case: Case) -> None:
    width = container(case.bits)
    for stored in case.codes():
        assert stored.data_type == TYPES[width, case.signed]
        assert len(stored.raw_data) == -(-int(np.prod(stored.dims)) * width // 8)


def test_opset_is_the_lowest_that_has_the_type(case: Case) -> None:
    assert case.facts.opset == {8: 20, 4: 21, 2: 25}[container(case.bits)]
    assert {entry.domain for entry in case.model.opset_import} == {""}
    assert case.facts.bytes == case.path.stat().st_size


def test_dequantized_weights_are_the_simulated_ones(case: Case) -> None:
    names = [f"dequantize{f'_{i}' if i else ''}" for i in range(5)]
    found = file_values(case.model, names, some_images(1))
    for name, (codes, scale, zero) in zip(names, case.weights(), strict=True):
        wanted = ops.dequantize(codes, scale, zero, 0, case.bits)
        assert torch.allclose(found[name], wanted, rtol=1e-6, atol=0)


def test_onnxruntime_behaves_as_simulated(case: Case) -> None:
    images = [some_images(200)]
    simulated = TorchPredictor(case.module)
    found = parity(simulated, OrtPredictor(case.path, 1), images)
    assert found.agreement >= 0.995
    assert found.mean_abs < 0.02 * float(simulated(images[0]).abs().max())


def test_every_layer_runs_on_an_integer_kernel(case: Case, tmp_path: Path) -> None:
    kinds = fused(case.path, tmp_path)
    assert kinds.count("QLinearConv") == 4
    assert {"QLinearAdd", "QLinearGlobalAveragePool"} <= set(kinds)
    assert not {"Conv", "Add", "Relu"} & set(kinds)
    assert "QGemm" in kinds


def fused(path: Path, folder: Path) -> list[str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(str(folder / "fused.onnx")).graph.node]


def test_batch_is_dynamic(case: Case) -> None:
    run, images = OrtPredictor(case.path, 1), some_images(5)
    together, apart = run(images), torch.cat([run(image[None]) for image in images])
    assert together.shape == (5, 10)
    assert torch.allclose(together, apart, atol=1e-6)


def test_nothing_of_this_machine_is_in_the_file(case: Case) -> None:
    assert b".py" not in case.path.read_bytes()


def test_openvino_behaves_as_simulated(case: Case) -> None:
    pytest.importorskip("openvino")
    if case.bits == 2:
        with pytest.raises(BadModel, match="OpenVINO cannot load"):
            OpenVinoPredictor(case.path)
        return  # OpenVINO 2026.4 has no 2-bit type
    run = OpenVinoPredictor(case.path, 1)
    assert run.settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert parity(TorchPredictor(case.module), run, [some_images(200)]).agreement >= 0.98


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_attention_behaves_as_simulated(bits: int, tmp_path: Path) -> None:
    module = by_hand(seeded(SmallVit), some_images(64), bits, bits, signed=bits == 8, adds=False)
    path = tmp_path / "vit.onnx"
    export_onnx(module, some_images(1), path)
    found = parity(TorchPredictor(module), OrtPredictor(path, 1), [some_images(400)])
    assert found.agreement >= 0.99


@pytest.mark.parametrize("kind", [SmallNet, SmallVit])
def test_a_float_module_exports_as_it_is(kind: type[nn.Module], tmp_path: Path) -> None:
    module, path, images = seeded(kind), tmp_path / "float.onnx", some_images(3)
    export_onnx(module, images, path)
    assert torch.allclose(module(images), OrtPredictor(path, 1)(images), atol=1e-5)


@pytest.mark.parametrize("conv", [True, False], ids=["conv", "linear"])
def test_full_range_weights_do_not_saturate(conv: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    signs = torch.where(torch.rand(8, 64, generator=generator) < 0.45, -1, 1)
    codes = (127 * signs).to(torch.int8)
    codes = codes.view(8, 64, 1, 1) if conv else codes
    module = one_layer(codes, torch.full((8,), 0.01), torch.zeros(8), conv=conv)
    path, images = (
        tmp_path / "wide.onnx",
        torch.full((3, 64, 2, 2) if conv else (3, 64, 1, 1), 25.5),
    )
    export_onnx(module, images, path)
    assert "dequantize.shifted" in {n.name for n in onnx.load(str(path)).graph.node}
    assert torch.allclose(OrtPredictor(path, 1)(images), module(images), atol=1e-3)


def steps_off(found: torch.Tensor, wanted: torch.Tensor, module: fx.GraphModule) -> torch.Tensor:
    """Differences in steps of the output grid; a tie may fall to either side."""
    return ((found - wanted) / module.out_scale).round().abs()


def test_dead_channels_keep_their_bias(tmp_path: Path) -> None:
    codes = torch.randint(-60, 60, (4, 6, 1, 1), generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([0.01, 1e-14, 0.01, 1e-12])
    bias = torch.tensor([0.5, 3.0, -0.5, -3.0])
    module = one_layer(codes.to(torch.int8), scale, bias, conv=True)
    path, images = tmp_path / "dead.onnx", torch.rand(5, 6, 3, 3) * 20
    export_onnx(module, images, path)
    off = steps_off(OrtPredictor(path, 1)(images), module(images), module)
    assert off.max() <= 1
    assert off.mean() < 0.02


def test_signed_activations_become_unsigned_ones(tmp_path: Path) -> None:
    codes = torch.randint(-7, 8, (4, 6, 1, 1), generator=torch.Generator().manual_seed(0))
    module = one_layer(
        codes.to(torch.int8),
        torch.full((4,), 0.1),
        torch.zeros(4),
        bits=4,
        conv=True,
        act=(0.2, 0.0, -8, 7),
    )
    path, images = tmp_path / "signed.onnx", torch.randn(5, 6, 3, 3) * 3
    export_onnx(module, images, path)
    stored = {t.name: t.data_type for t in onnx.load(str(path)).graph.initializer}
    assert stored["fake_quantize.zero_point"] == TensorProto.UINT8
    off = steps_off(OrtPredictor(path, 1)(images), module(images), module)
    assert off.max() <= 1
    assert off.mean() < 0.02


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_without_widening_codes_are_dequantized_directly(bits: int, tmp_path: Path) -> None:
    module = by_hand(seeded(SmallVit), some_images(32), bits, 4, signed=False, adds=False)
    path = tmp_path / "plain.onnx"
    facts = export_onnx(module, some_images(1), path, widen=False)
    assert "Cast" not in facts.ops
    model = onnx.load(str(path))
    initializers = {tensor.name for tensor in model.graph.initializer}
    readers = [n for n in model.graph.node if n.input and n.input[0] == "dequantize.codes"]
    assert [n.op_type for n in readers] == ["DequantizeLinear"]
    assert "dequantize.codes" in initializers


def test_four_bit_linear_weights_are_computed_in_float32(tmp_path: Path) -> None:
    """Left alone, onnxruntime would quantize the input of MatMulNBits to 8 bits."""
    codes = torch.randint(-7, 8, (64, 128), generator=torch.Generator().manual_seed(0))
    weight_only = _weight_only(codes.to(torch.int8))
    path, x = tmp_path / "nbits.onnx", torch.randn(2, 3, 8, 128)
    export_onnx(weight_only, x, path, widen=False)
    run = OrtPredictor(path, 1)
    assert torch.allclose(run(x), weight_only(x), atol=1e-4)
    assert run.settings["session.qdq_matmulnbits_accuracy_level"] == "1"


def _weight_only(codes: torch.Tensor) -> nn.Module:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", codes)
            self.register_buffer("scale", torch.full((len(codes),), 0.02))
            self.register_buffer("zero", torch.zeros(len(codes), dtype=torch.int8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = ops.dequantize(self.codes, self.scale, self.zero, 0, 4)
            return nn.functional.linear(x, weight).flatten(1)

    return Layer()


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: ir.Model, path: Path) -> None:
        path.write_bytes(b"half of a model")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the model of yesterday")
    with pytest.raises(RoadworthyError, match="No space left"):
        export_onnx(seeded(SmallNet), some_images(1), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"the model of yesterday"


def test_a_zero_point_outside_the_grid_is_refused(tmp_path: Path) -> None:
    module = one_layer(
        torch.ones(2, 3, dtype=torch.int8), torch.ones(2), torch.zeros(2), act=(0.1, 300.0, 0, 255)
    )
    with pytest.raises(BadModel, match=r"zero point 300.0; a grid of at most 8 bits"):
        export_onnx(module, torch.zeros(1, 3, 1, 1), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_module_that_torch_refuses_is_named(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    with pytest.raises(BadModel, match="Branches does not export to ONNX"):
        export_onnx(Branches(), some_images(1), tmp_path / "model.onnx")
