"""What a stage trains: MetaNet, or any timm model behind the same face."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from roadworthy.core.images import IMAGENET, Preprocess
from roadworthy.core.metanet import POINTS, MetaNet, MetaNetConfig, named
from roadworthy.core.models import load_model
from roadworthy.core.sources import reason
from roadworthy.core.specs import MetaNetSpec, PySpec, parse_model_spec
from roadworthy.errors import BadInput, BadModel
from roadworthy.learn.transfers import Transfers

STRIDES = (4, 8, 16, 32)
Both = tuple[Tensor, list[Tensor]]
"""Pooled features ``[b width]``, and maps at strides 4, 8, 16, 32."""


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    A stride at which the model has no map is filled from its nearest one, enlarged bilinearly or
    max-pooled: a plain ViT, which has one resolution only, stands in too.

    Args:
        stages: what normalises the model's inputs; what it is given is normalised by ImageNet's.
    """

    def __init__(self, model: nn.Module, stages: Preprocess = IMAGENET) -> None:
        super().__init__()
        (mean, std), (given_mean, given_std) = _colours(stages), _colours(IMAGENET)
        self.register_buffer("factor", given_std / std, persistent=False)
        self.register_buffer("offset", (given_mean - mean) / std, persistent=False)
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
        return self.model(self._coloured(images))

    def forward_features(
        self, images: Float[Tensor, "b c h w"]
    ) -> list[Float[Tensor, "b d h2 w2"]]:
        """Maps at strides 4, 8, 16, 32, of `channels` channels."""
        face: Any = self.model
        asked = sorted({*self.picks})
        seen = self._coloured(images)
        found = face.forward_intermediates(seen, indices=asked, intermediates_only=True)
        return self._scaled(found)

    def forward_both(self, images: Float[Tensor, "b c h w"]) -> Both:
        """Pooled features and maps, in one pass."""
        face: Any = self.model
        seen = self._coloured(images)
        last, found = face.forward_intermediates(seen, indices=sorted({*self.picks}))
        return face.forward_head(last), self._scaled(found)

    def _coloured(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return images * self.get_buffer("factor") + self.get_buffer("offset")

    def _scaled(self, found: list[Tensor]) -> list[Tensor]:
        maps = dict(zip(sorted({*self.picks}), found, strict=True))
        pairs = zip(self.picks, self.scales, strict=True)
        return [_rescaled(maps[pick], scale) for pick, scale in pairs]


Single = MetaNet | TimmBackbone
"""A backbone of one branch."""
Architecture = str | MetaNetConfig
"""What a `Single` is built by: a spec without weights, or a MetaNet that has no name."""


class Generalist(nn.Module):
    """A MetaNet that frozen auxiliaries add to at its taps, shown beside the auxiliaries' own maps.

    Its features are the main branch's, then each auxiliary's: what stands on them can read every
    expert as it was, however the main branch changes.

    Args:
        main: learns; its later stages see the changed maps.
        auxiliaries: stay as they are, in eval mode and without gradient.
    """

    def __init__(self, main: MetaNet, auxiliaries: Sequence[Single]) -> None:
        super().__init__()
        self.main = main
        self.auxiliaries = nn.ModuleList(auxiliaries).requires_grad_(False).eval()
        self.transfers = nn.ModuleList(Transfers(e.channels, main.channels) for e in auxiliaries)
        shown = [each.channels for each in (main, *auxiliaries)]
        self.channels = tuple(map(sum, zip(*shown, strict=True)))
        self.width = sum(each.width for each in (main, *auxiliaries))

    def train(self, mode: bool = True) -> "Generalist":
        """The auxiliaries stay in eval mode."""
        super().train(mode)
        self.auxiliaries.eval()
        return self

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width"]:
        """Pooled features."""
        return self.forward_both(images)[0]

    def forward_features(
        self, images: Float[Tensor, "b c h w"]
    ) -> list[Float[Tensor, "b d h2 w2"]]:
        """Maps at strides 4, 8, 16, 32, of `channels` channels."""
        own, seen = self._see(images)
        return _beside([own, *(maps for _, maps in seen)])

    def forward_both(self, images: Float[Tensor, "b c h w"]) -> Both:
        """Pooled features and maps, in one pass."""
        own, seen = self._see(images)
        whole = [(self.main.pool(own[-1]), own), *seen]
        return torch.cat([pooled for pooled, _ in whole], 1), _beside([maps for _, maps in whole])

    def _see(self, images: Tensor) -> tuple[list[Tensor], list[Both]]:
        """Merged maps of the main branch, and all of each auxiliary."""
        branches: Any = self.auxiliaries
        with torch.no_grad():
            seen = [each.forward_both(images) for each in branches]
        sums = [t(maps) for t, (_, maps) in zip(self.transfers, seen, strict=True)]
        added = [torch.stack(each).sum(0) for each in zip(*sums, strict=True)]
        return self.main.forward_features(images, added), seen


def _beside(branches: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(each, 1) for each in zip(*branches, strict=True)]


Backbone = Single | Generalist
"""`forward`: pooled features ``[b width]``; `forward_features`: maps at strides 4, 8, 16, 32."""


def architectures_of(spec: str) -> tuple[Architecture, ...]:
    """What `backbone` would build, without its weights: main branch, then auxiliaries.

    >>> architectures_of("metanet:mn_xs@weights.safetensors")
    ('metanet:mn_xs@random',)
    """
    from roadworthy.learn.manifest import is_stage, read_config

    if is_stage(spec):
        config = read_config(Path(spec))
        return config.architecture, *config.auxiliaries
    told = parse_model_spec(spec)
    if isinstance(told, MetaNetSpec) and told.name not in POINTS:
        return (named(told.name),)
    if isinstance(told, PySpec):
        return (spec,)
    return (spec.partition("@")[0] + "@random",)


def backbone(spec: str) -> Backbone:
    """The model of a spec, or of the folder of a stage, without its classifier, to be trained.

    >>> backbone("metanet:mn_xs@random").channels
    (24, 48, 64, 128)

    Raises:
        BadModel: as `load_model`, or a model that hands out no maps.
    """
    from roadworthy.learn.manifest import fill, is_stage

    if is_stage(spec):
        main, *auxiliaries = map(single, architectures_of(spec))
        body = generalist(main, auxiliaries) if auxiliaries else main
        fill(body, Path(spec))
        return body
    return single(spec)


def generalist(main: Single, auxiliaries: Sequence[Single]) -> Generalist:
    """A new `Generalist`; BadModel where its main branch cannot be run stage by stage."""
    if not isinstance(main, MetaNet):
        raise BadModel(
            f"the main branch is {type(main.model).__name__} of timm; a metanet is needed, whose "
            "later stages see what auxiliaries add; auxiliaries may be of timm"
        )
    return Generalist(main, auxiliaries)


def single(spec: Architecture) -> Single:
    """The model of a spec, without its classifier, to be trained.

    Raises:
        BadModel: as `load_model`, or a model that hands out no maps.
    """
    if isinstance(spec, MetaNetConfig):
        return MetaNet(spec)
    loaded = load_model(spec)
    module = loaded.module.requires_grad_(True).train()
    if isinstance(module, MetaNet):
        module.classifier = nn.Identity()
        return module
    if not hasattr(module, "forward_intermediates"):
        raise BadModel(
            f"{spec} hands out no maps; metanet:NAME and models of timm that do are allowed, "
            "e.g. metanet:mn_s@random or timm:resnet18@random"
        )
    return TimmBackbone(module, loaded.preprocess or IMAGENET)


def _colours(stages: Preprocess) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """Mean and deviation, on the scale where white is 1."""
    mean, std = stages.mean or (0.0,) * 3, stages.std or (1.0,) * 3
    return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]


def check_size(body: Backbone, side: int) -> None:
    """BadInput where a backbone cannot be shown squares of `side` pixels, as a ViT of a fixed size.

    >>> check_size(backbone("timm:vit_tiny_patch16_224@random"), 64)
    Traceback (most recent call last):
        ...
    roadworthy.errors.BadInput: 64 pixels a side given, which VisionTransformer cannot be shown ...
    """
    learning = body.training
    try:
        with torch.no_grad():
            body.eval().forward_both(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError) as error:
        at_fault = body.model if isinstance(body, TimmBackbone) else body
        built = getattr(at_fault, "pretrained_cfg", {}).get("input_size", ())
        raise BadInput(
            f"{side} pixels a side given, which {type(at_fault).__name__} cannot be shown "
            f"({reason(error)}); give --size {built[-1] if built else 'of another number'}"
        ) from error
    finally:
        body.train(learning)


def backbone_for(begin: str, side: int) -> Backbone:
    """`backbone`, which can be shown squares of `side` pixels; fails as `check_size` too."""
    body = backbone(begin)
    check_size(body, side)
    return body


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
