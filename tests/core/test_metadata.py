import numpy as np
import pytest
import timm
import torch
from images_on_disk import picture
from PIL import Image

from roadworthy.core.images import Preprocess
from roadworthy.core.metadata import from_processor, of_timm, of_torchvision, stated
from roadworthy.errors import BadPreprocess

CONFIGS = [
    {"input_size": (3, 96, 96), "interpolation": "bicubic", "crop_pct": 0.9},
    {"input_size": (3, 64, 64), "interpolation": "bilinear", "crop_pct": 1.0},
    {"input_size": (3, 64, 64), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"},
    {"input_size": (3, 64, 64), "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(120, 90), (77, 131), (50, 50)])
def test_timms_metadata_give_timms_transform(config, size) -> None:
    config = {**config, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    wanted = timm.data.create_transform(**config)(image)
    assert torch.allclose(of_timm(config)(image), wanted, atol=1e-6)


def test_torchvisions_second_recipe_differs() -> None:
    from torchvision.models import MobileNet_V2_Weights as Weights

    image = picture(size=(300, 280))
    for entry in Weights:
        assert torch.equal(of_torchvision(entry)(image), entry.transforms()(image))


@pytest.mark.parametrize(
    "config",
    [
        {
            "do_resize": True,
            "size": {"shortest_edge": 40},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": 32, "width": 32},
        },
        {"do_resize": True, "size": {"height": 32, "width": 24}, "resample": 2},
    ],
)
def test_hugging_face_processors_agree_within_a_shade(config) -> None:
    from transformers import CLIPImageProcessor

    rest = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    config = {"do_center_crop": False, **config, **rest}
    image = picture(size=(90, 60))
    wanted = CLIPImageProcessor(**config, do_convert_rgb=False)(image, return_tensors="pt")
    found = from_processor(config)(image)
    assert found.shape == wanted["pixel_values"][0].shape
    assert (found - wanted["pixel_values"][0]).abs().max() < 2.1 / 255 / 0.5


def test_metadata_by_hand() -> None:
    assert stated({"crop": 4}) == stated(Preprocess(crop=(4, 4)))
    with pytest.raises(BadPreprocess, match="a dict of stages"):
        stated([1])
