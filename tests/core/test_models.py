from pathlib import Path

import pytest
import torch
from torch import nn

from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.core.models import check_onnx, load_model, preprocess_for
from roadworthy.errors import BadModel, BadPreprocess

NET = """
import torch
from torch import nn
{extra}

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))

def number():
    return 3

def broken():
    raise RuntimeError("no weights\\nhere")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET.format(extra='PREPROCESS = {"mean": [0.1, 0.2, 0.3], "crop": 2}'))
    return path


def test_a_module_in_hand_is_put_into_eval_mode() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3, 2))
    loaded = load_model(module)
    assert loaded.module is module
    assert not any(m.training for m in module.modules())
    assert loaded.preprocess is None
    with pytest.raises(BadPreprocess, match="PREPROCESS"):
        preprocess_for(loaded, None)


def test_a_py_model_with_its_preprocessing(file: Path) -> None:
    loaded = load_model(f"py:{file}:net")
    assert loaded.preprocess == Preprocess(crop=(2, 2), mean=(0.1, 0.2, 0.3))
    assert loaded.input_shape == (3, 2, 2)
    assert loaded.module(torch.zeros(1, 3, 2, 2)).shape == (1, 5)
    assert preprocess_for(loaded, "imagenet") is IMAGENET


def test_a_checkpoint_fills_any_model(file: Path, tmp_path: Path) -> None:
    weights = {"1.weight": torch.full((5, 12), 0.5), "1.bias": torch.zeros(5)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "w.pth")
    loaded = load_model(f"py:{file}:net@{tmp_path / 'w.pth'}")
    assert loaded.module(torch.ones(1, 3, 2, 2)).tolist() == [[6.0] * 5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mobilenet", "timm:NAME, torchvision:NAME"),
        ("timm:", "timm:NAME"),
        ("py:net.py", "py:FILE.py:FUNCTION"),
        ("timm:mobilnetv2_100@random", "did you mean mobilenetv2_100"),
        ("torchvision:mobilenetv2@random", "did you mean mobilenet_v2"),
        ("timm:qqqqqqqq@random", "has no model"),
        ("py:/nowhere.py:net", "not found"),
        ("onnx:/nowhere.onnx", "not found"),
        ("torchvision:resnet18@/nowhere.pth", "not found"),
        ("hf:/nowhere@random", "folder /nowhere not found"),
    ],
)
def test_unknown_models_say_what_is_known(spec: str, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        load_model(spec)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nett", "no function 'nett'; it has net, number, broken"),
        ("number", "returned int; return an nn.Module"),
        ("broken", "raised RuntimeError: no weights here"),
    ],
)
def test_a_py_file_that_gives_no_model(file: Path, function: str, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        load_model(f"py:{file}:{function}")


def test_a_py_file_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import nothing_of_the_kind")
    with pytest.raises(BadModel, match=r"net\.py raised ModuleNotFoundError"):
        load_model(f"py:{tmp_path / 'net.py'}:net")
    (tmp_path / "net.py").write_text("def net(:")
    with pytest.raises(BadModel, match=r"net\.py raised SyntaxError"):
        load_model(f"py:{tmp_path / 'net.py'}:net")


def test_weights_that_are_not_finite_are_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        module[1].weight[0, 0] = float("inf")
    with pytest.raises(BadModel, match=r"NaN or infinite values in 1\.weight"):
        load_model(module)


def test_an_empty_onnx_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.touch()
    with pytest.raises(BadModel, match="0 bytes"):
        check_onnx(path)
    with pytest.raises(BadModel, match="0 bytes"):
        load_model(f"onnx:{path}")
    path.write_bytes(b"x")
    with pytest.raises(BadModel, match="give the torch model"):
        load_model(f"onnx:{path}")


def test_timm_and_torchvision_bring_their_preprocessing() -> None:
    found = load_model("timm:mobilenetv2_100@random")
    assert found.input_shape == (3, 224, 224)
    assert found.preprocess is not None
    assert found.preprocess.resize == "pillow-bicubic"
    assert load_model("torchvision:mobilenet_v2@random").preprocess == IMAGENET


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_fine_tuned_checkpoint_decides_the_classes(library: str, tmp_path: Path) -> None:
    tuned = load_model(f"{library}:resnet18@random").module
    tuned.fc = nn.Linear(512, 7)
    torch.save(tuned.state_dict(), tmp_path / "tuned.pth")
    found = load_model(f"{library}:resnet18@{tmp_path / 'tuned.pth'}").module
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(found(x), tuned(x))


def test_a_checkpoint_of_another_model_lists_its_keys(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BadModel, match=r"102 missing: conv1\.weight.*2 unknown: weight, bias"):
        load_model(f"torchvision:resnet18@{tmp_path / 'w.pth'}")


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    inner = ResNetForImageClassification(config).eval()
    inner.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 40}).save_pretrained(tmp_path)
    found = load_model(f"hf:{tmp_path}")
    x = torch.rand(2, 3, 32, 40)
    assert torch.equal(found.module(x), inner(pixel_values=x).logits)
    assert found.preprocess is not None
    assert found.preprocess.geometry == "squash"
    assert found.input_shape == (3, 32, 40)


def test_the_public_cifar_network_is_as_accurate_as_known(data: Path) -> None:
    from roadworthy.core.batches import load_tensor
    from roadworthy.core.data import load_data
    from roadworthy.core.metrics import accuracy
    from roadworthy.core.predict import TorchPredictor, predict

    network = Path(__file__).parents[2] / "benchmarks" / "resnet_cifar.py"
    loaded = load_model(f"py:{network}:resnet20")
    test = load_data(f"npz:{data}/cifar10/lossless.npz?x=xte&y=yte")
    x, y = load_tensor(test, preprocess_for(loaded, None))
    logits = predict(TorchPredictor(loaded.module), x.split(128))
    assert accuracy(logits, y) == pytest.approx(0.9164, abs=1e-4)
