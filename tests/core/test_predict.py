import pytest
import torch
from torch import Tensor, nn

from roadworthy.core.predict import Predictor, TorchPredictor, predict, resolve_device
from roadworthy.errors import BadData, BadInput, BadModel


def test_batches_are_joined_in_order() -> None:
    x = torch.rand(7, 3, 2, 2)
    model = TorchPredictor(nn.Flatten(), "flat")
    assert isinstance(model, Predictor)
    assert torch.equal(predict(model, x.split(3)), x.flatten(1))


def test_answers_can_be_changed_and_carry_no_gradient() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    answer = TorchPredictor(layer)(torch.rand(1, 3, 2, 2))
    answer += 1
    assert not answer.requires_grad


def test_no_batches_are_bad_data() -> None:
    with pytest.raises(BadData, match="no images"):
        predict(TorchPredictor(nn.Flatten()), [])


def test_a_model_that_is_no_classifier_is_told() -> None:
    with pytest.raises(BadModel, match=r"\[2, 3, 4, 4\]"):
        TorchPredictor(nn.Identity())(torch.rand(2, 3, 4, 4))


def test_answers_for_one_image_of_many_are_told() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:1]

    with pytest.raises(BadModel, match=r"answers \[1, 12\] .* for a batch of 5"):
        TorchPredictor(First())(torch.rand(5, 3, 2, 2))


def test_devices() -> None:
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(BadInput, match="cpu, cuda or auto"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="no CUDA GPU"):
            resolve_device("cuda")
