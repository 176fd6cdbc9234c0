"""Every way to run one model: its outputs, its changes, and what keeps a runtime from running."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from roadworthy.core.images import Preprocess
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.extra_runtimes import lacking
from roadworthy.deployments import FILE_RUNTIMES, TORCH_RUNTIMES, Deployments, RawPredictor
from roadworthy.errors import BadInput, BadModel
from roadworthy.noise.sweep import _finite
from roadworthy.noise.systems import System

STAGES = Preprocess(resize="pillow-box", geometry="squash", size=(17, 17))


def fleet_of(model: str | nn.Module, images: Tensor, raw: bool = False) -> Deployments:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roadworthy.deployments.preprocess_from", lambda *_: STAGES)
        patch.setattr("roadworthy.core.models.LoadedModel.chosen", lambda *_: STAGES)
        fleet = Deployments(model, None, "cpu", raw)
    fleet.show(images)
    return fleet


class Pooled(nn.Module):
    """A classifier with a pool of an odd size and an enlarged map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.up, self.head = nn.Upsample(scale_factor=2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.up(self.pool(self.conv(x))) ** 2).mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 17, 17, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def path(images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    export_onnx(Pooled().eval(), images, path)
    return path


def test_a_file_is_changed_as_the_module_is(images: Tensor, path: Path) -> None:
    module, file = fleet_of(Pooled(), images), fleet_of(f"onnx:{path}", images)
    assert module.models() == file.models() == [("ceil-mode", None), ("upsample-bilinear", None)]
    plain = file(System(STAGES))(images)
    for name, _ in file.models():
        found = file(System(STAGES, model=name))(images)
        torch.testing.assert_close(found, module(System(STAGES, model=name))(images))
        assert (found - plain).abs().max() > 1e-4
        stacked = System(STAGES, model=name, runtime="onnxruntime-disable")
        torch.testing.assert_close(file(stacked)(images), found)
        torch.testing.assert_close(module(stacked)(images), found)


def test_no_runtime_is_left_out(images: Tensor, path: Path, monkeypatch) -> None:
    monkeypatch.setattr("roadworthy.deploy.extra_runtimes.installed_version", lambda _: None)
    found = dict(fleet_of(f"onnx:{path}", images).runtimes())
    assert tuple(found) == FILE_RUNTIMES[1:]
    assert found["mnn-f32"] == "mnn is not installed; pip install 'roadworthy[mnn]'"
    assert found["onnxruntime-disable"] is None
    assert {"mnn-f32", "ncnn-default", "litert-f16"} < set(TORCH_RUNTIMES)


@pytest.mark.parametrize("runtime", ["mnn-f32", "mnn-default", "ncnn-f32", "ncnn-default"])
def test_the_extra_runtimes_are_measured_like_the_others(
    runtime: str, images: Tensor, path: Path
) -> None:
    engine = "mnn" if runtime.startswith("mnn") else "ncnn"
    if reason := lacking(engine):
        pytest.skip(reason)
    fleet = fleet_of(f"onnx:{path}", images)
    found = fleet(System(STAGES, runtime=runtime))(images)
    torch.testing.assert_close(found, fleet(System(STAGES))(images), atol=1e-2, rtol=1e-2)
    taken = fleet.settings[f"as-trained {runtime}"]
    assert taken["runtime"].startswith(engine)
    assert taken["asked"] == runtime.partition("-")[2]
    fleet.check(System(STAGES, runtime=runtime), ())


def test_an_unknown_runtime_is_told_with_the_nearest(images: Tensor, path: Path) -> None:
    with pytest.raises(BadInput, match="runtime 'ncnn' given"):
        fleet_of(f"onnx:{path}", images).check(System(STAGES, runtime="ncnn"), ())


class Answering(nn.Module):
    """A module whose answer is what `make` makes of the images."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor):
        return self.make(x)


def test_several_outputs_of_a_module_are_kept(images: Tensor) -> None:
    pair = RawPredictor(Answering(lambda x: (x, x.mean((2, 3)).half())))(images)
    assert isinstance(pair, list)
    assert torch.equal(pair[0], images)
    assert pair[1].dtype == torch.float32
    named = RawPredictor(Answering(lambda x: {"out": x, "aux": 2 * x, "loss": None}))(images)
    assert list(named) == ["out", "aux"]
    assert torch.equal(named["aux"], 2 * images)
    each = RawPredictor(Answering(lambda x: [{"boxes": i[0, :1]} for i in x]))(images)
    assert len(each) == 3
    assert torch.equal(each[1]["boxes"], images[1, 0, :1])
    assert torch.equal(RawPredictor(Answering(lambda x: x))(images), images)
    for bad in (lambda _: "text", lambda x: (x, "text"), lambda _: {"loss": None}, lambda _: []):
        with pytest.raises(BadModel, match=r"answers a \w+; a tensor, a list or a dict"):
            RawPredictor(Answering(bad))(images)


def test_the_outputs_of_a_file_are_kept_where_the_task_may_want_them(
    images: Tensor, path: Path
) -> None:
    import onnx

    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_tensor_value_info("conv2d", 1, None))
    onnx.save(model, str(path.parent / "two.onnx"))
    spec = f"onnx:{path.parent / 'two.onnx'}"
    found = fleet_of(spec, images, raw=True)(System(STAGES))(images)
    assert list(found) == ["logits", "conv2d"]
    assert found["conv2d"].shape == (3, 8, 17, 17)
    first = fleet_of(spec, images)(System(STAGES))(images)
    assert torch.equal(first, found["logits"])
    assert torch.equal(fleet_of(f"onnx:{path}", images, raw=True)(System(STAGES))(images), first)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda x: x / 0,
        lambda x: [x, x / 0],
        lambda x: {"out": x, "aux": x * float("nan")},
        lambda x: [{"boxes": x}, {"boxes": x, "scores": x / 0}],
    ],
)
def test_every_output_must_be_finite(spoilt, images: Tensor) -> None:
    class Spoilt(SimpleNamespace):
        def __call__(self, x: Tensor):
            return self.make(x)

    with pytest.raises(BadModel, match="net answers NaN or infinite"):
        _finite(Spoilt(name="net", make=lambda x: spoilt(x + 1)), images)
    assert _finite(Spoilt(name="net", make=lambda x: [x, {"a": x}]), images)[0] is images


def test_a_detector_that_cannot_be_captured_is_changed_all_the_same() -> None:
    torch.manual_seed(0)
    pyramid = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    few = {"rpn_post_nms_top_n_test": 20, "box_detections_per_img": 5, "box_score_thresh": 0.0}
    model = MaskRCNN(pyramid, num_classes=3, min_size=64, max_size=64, **few)
    images = torch.rand(1, 3, 64, 64)
    fleet = fleet_of(model.eval(), images, raw=True)
    assert dict(fleet.models())["upsample-bilinear"] is None
    plain = fleet(System(STAGES))(images)
    changed = fleet(System(STAGES, model="upsample-bilinear"))(images)
    assert set(plain[0]) == set(changed[0]) == {"boxes", "labels", "scores", "masks"}
    a, b = plain[0]["scores"], changed[0]["scores"]
    assert a.shape != b.shape or not torch.equal(a, b)
