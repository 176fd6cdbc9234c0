"""What a stage trains: MetaNet, or any timm model behind the same face."""

import math
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.core.metanet import MetaNet
from roadworthy.core.models import load_model
from roadworthy.errors import BadModel

STRIDES = (4, 8, 16, 32)


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    A stride at which the model has no map is filled from its nearest one, enlarged bilinearly or
    max-pooled: a plain ViT, which has one resolution only, stands in too.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        face: Any = model
        face.reset_classifier(0)
        info = [(int(row["num_chs"]), int(row["reduction"])) for row in _rows(face)]
        own = [stride for _, stride in info]
        self.model = model
        self.picks = [_nearest(own, stride) for stride in STRIDES]
        self.scales = [own[pick] / stride for pick, stride in zip(self.picks, STRIDES, strict=True)]
        self.channels = tuple(info[pick][0] for pick in self.picks)
        self.width = int(getattr(face, "head_hidden_size", face.num_features))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width"]:
        """Pooled features."""
        return self.model(images)

    def forward_features(
        self, images: Float[Tensor, "b c h w"]
    ) -> list[Float[Tensor, "b d h2 w2"]]:
        """Maps at strides 4, 8, 16, 32, of `channels` channels."""
        face: Any = self.model
        asked = sorted({*self.picks})
        found = face.forward_intermediates(images, indices=asked, intermediates_only=True)
        maps = dict(zip(asked, found, strict=True))
        pairs = zip(self.picks, self.scales, strict=True)
        return [_rescaled(maps[pick], scale) for pick, scale in pairs]


Backbone = MetaNet | TimmBackbone
"""`forward`: pooled features ``[b width]``; `forward_features`: maps at strides 4, 8, 16, 32."""


def architecture_of(spec: str) -> str:
    """The spec without weights of what `backbone` would build.

    >>> architecture_of("metanet:mn_xs@weights.safetensors")
    'metanet:mn_xs@random'
    """
    from roadworthy.learn.manifest import is_stage, read_config

    if is_stage(spec):
        return read_config(Path(spec)).architecture
    return spec.partition("@")[0] + "@random"


def backbone(spec: str) -> Backbone:
    """The model of a spec, or of the folder of a stage, without its classifier, to be trained.

    >>> backbone("metanet:mn_xs@random").channels
    (24, 48, 64, 128)

    Raises:
        BadModel: as `load_model`, or a model that hands out no maps.
    """
    from roadworthy.learn.manifest import fill, is_stage

    if is_stage(spec):
        body = backbone(architecture_of(spec))
        fill(body, Path(spec))
        return body
    module = load_model(spec).module.requires_grad_(True).train()
    if isinstance(module, MetaNet):
        module.classifier = nn.Identity()
        return module
    if not spec.startswith("timm:") or not hasattr(module, "forward_intermediates"):
        raise BadModel(
            f"{spec} hands out no maps; metanet:NAME and timm models that do are allowed, "
            "e.g. metanet:mn_s@random or timm:resnet18@random"
        )
    return TimmBackbone(module)


def _rows(model: Any) -> Any:
    """timm keeps a list of dicts, or wraps it."""
    return getattr(model.feature_info, "info", model.feature_info)


def _nearest(own: list[int], stride: int) -> int:
    """The deepest of the maps whose stride is nearest to the one asked for."""
    far = [abs(math.log2(found / stride)) for found in own]
    return max(index for index, value in enumerate(far) if value == min(far))


def _rescaled(x: Float[Tensor, "b d h w"], scale: float) -> Float[Tensor, "b d h2 w2"]:
    if scale > 1:
        return F.interpolate(x, scale_factor=scale, mode="bilinear")
    return x if scale == 1 else F.max_pool2d(x, round(1 / scale))
