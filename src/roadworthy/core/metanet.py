"""MetaNet, INTERN's backbone (arXiv 2111.08687), and UniNet-B1, its sibling (arXiv 2207.05420).

A 3x3 stem of stride 2, six stages of strides 1, 2, 2, 2, 1, 2, a 1x1 head, the mean over the image.

The published counts include a classifier of 1000 classes, and their FLOPs are multiply-accumulates:
so 31.7 M and 3.17 G of MN-B4 and 11.451 M of UniNet-B1 come out here. What the papers leave open is
as in the authors' public code, and those counts confirm it: squeeze-excite at a quarter of the
hidden width, rounded up to a multiple of 8; biases in queries, keys and values; no MLP in the block
that changes a stage's shape; in UniNet a module before every stage but the first. Initial weights,
and the points mn_xs and mn_s, are ours.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

from jaxtyping import Float
from torch import Tensor, nn

from roadworthy.core import metanet_ops as ops
from roadworthy.errors import BadModel

Op = Literal["mbconv", "fused", "attention", "xca"]
"""What the blocks of a stage are."""
Down = Literal["inside", "local", "global", "local-global"]
"""How a stage is entered: by its own first block, or by a module of its own before it."""


@dataclass(frozen=True)
class Stage:
    """A row of blocks at one resolution.

    Args:
        channels: width of its maps.
        expansion: hidden width of a block, in widths of its input.
        head_dim: channels a head of attention; divides the width wherever there is attention.
    """

    op: Op
    repeats: int
    channels: int
    stride: int
    expansion: int
    head_dim: int = 32
    down: Down = "inside"

    def __post_init__(self) -> None:
        if self.stride not in (1, 2):
            raise BadModel(f"stride {self.stride} given; 1 and 2 are allowed")
        for name in ("repeats", "channels", "expansion", "head_dim"):
            if getattr(self, name) < 1:
                raise BadModel(f"{name} {getattr(self, name)} given; 1 or more is allowed")
        for name, allowed in (("op", get_args(Op)), ("down", get_args(Down))):
            if getattr(self, name) not in allowed:
                raise BadModel(
                    f"{name} {getattr(self, name)!r} given; {', '.join(allowed)} are allowed"
                )

    @property
    def heads(self) -> tuple[bool, bool]:
        """Whether the stage splits its input's channels, and its own, into heads."""
        attends = self.op in ("attention", "xca")
        return attends and self.down == "inside", attends or "global" in self.down


@dataclass(frozen=True)
class MetaNetConfig:
    """A whole network.

    Args:
        stem: channels after the first convolution.
        head: width of the pooled features.
        layer_scale: what attention and MLPs are first multiplied by.
        drop_path: chance of leaving out the last block in training; earlier ones less.

    Raises:
        BadModel: the strides do not come to 32, or heads do not divide channels.
    """

    stages: tuple[Stage, ...]
    stem: int = 32
    head: int = 1280
    layer_scale: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.strides[-1:] != (32,) or not {4, 8, 16} <= {*self.strides}:
            raise BadModel(f"stages of strides {self.strides} given; 4, 8, 16, 32 must be there")
        widths = [self.stem, *(stage.channels for stage in self.stages)]
        for stage, pair in zip(self.stages, itertools.pairwise(widths), strict=True):
            for splits, width in zip(stage.heads, pair, strict=True):
                if splits and width % stage.head_dim:
                    raise BadModel(
                        f"heads of {stage.head_dim} channels do not divide {width}; give a "
                        f"head_dim that does, or channels that are multiples of it"
                    )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image to one of each stage's maps."""
        steps = (stage.stride for stage in self.stages)
        return tuple(itertools.accumulate(steps, int.__mul__, initial=2))[1:]

    @property
    def taps(self) -> tuple[int, ...]:
        """The last stage at each of the strides 4, 8, 16, 32."""
        last = {stride: index for index, stride in enumerate(self.strides)}
        return tuple(last[stride] for stride in (4, 8, 16, 32))


_NOTHING: Mapping[int, Tensor] = {}


class MetaNet(nn.Module):
    """The network of a config, for images of any size.

    Args:
        num_classes: 0 leaves the classifier out; the answer is then the pooled features.

    >>> import torch
    >>> net = MetaNet(POINTS["mn_xs"], num_classes=10)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> [tuple(m.shape[1:]) for m in net.forward_features(torch.zeros(2, 3, 64, 64))]
    [(24, 16, 16), (48, 8, 8), (64, 4, 4), (128, 2, 2)]
    """

    def __init__(self, config: MetaNetConfig, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        self.channels = tuple(config.stages[tap].channels for tap in config.taps)
        self.width = config.head
        stem = nn.Conv2d(3, config.stem, 3, 2, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(config.stem), nn.GELU())
        self.stages = nn.ModuleList(_stages(config))
        head = nn.Conv2d(config.stages[-1].channels, config.head, 1, bias=False)
        self.head = nn.Sequential(head, nn.BatchNorm2d(config.head), nn.GELU())
        self.classifier = nn.Linear(config.head, num_classes) if num_classes else nn.Identity()
        self.apply(_initialise)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits, or pooled features ``[b width]`` of a network without classifier."""
        return self.classifier(self.pool(self._maps(images)[-1]))

    def forward_features(
        self, images: Float[Tensor, "b c h w"], added: Sequence[Tensor] = ()
    ) -> list[Float[Tensor, "b d h2 w2"]]:
        """Maps at strides 4, 8, 16, 32, of `channels` channels.

        Args:
            added: to each of the four, before later stages see it; () adds nothing.
        """
        more = dict(zip(self.config.taps, added, strict=bool(added)))
        maps = self._maps(images, more)
        return [maps[tap] for tap in self.config.taps]

    def forward_both(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b width"], list[Float[Tensor, "b d h2 w2"]]]:
        """Pooled features and maps, in one pass."""
        maps = self.forward_features(images)
        return self.pool(maps[-1]), maps

    def pool(self, last: Float[Tensor, "b d h2 w2"]) -> Float[Tensor, "b width"]:
        """Pooled features of the last stage's maps."""
        return self.head(last).mean((2, 3))

    def _maps(self, images: Tensor, added: Mapping[int, Tensor] = _NOTHING) -> list[Tensor]:
        maps = [self.stem(images)]
        for index, stage in enumerate(self.stages):
            x = stage(maps[-1])
            maps.append(x + added[index] if index in added else x)
        return maps[1:]


def _stages(config: MetaNetConfig) -> list[nn.Sequential]:
    total = sum(stage.repeats for stage in config.stages)
    drops = iter([config.drop_path * index / max(total - 1, 1) for index in range(total)])
    built: list[nn.Sequential] = []
    width = config.stem
    for stage in config.stages:
        own = list(itertools.islice(drops, stage.repeats))
        built.append(stage_of(stage, width, config.layer_scale, own))
        width = stage.channels
    return built


def stage_of(stage: Stage, cin: int, layer_scale: float, drops: Sequence[float]) -> nn.Sequential:
    """The modules of one stage for maps of `cin` channels; `drops`: of each block."""
    before = entry(stage, cin)
    widths = [cin if before is None else stage.channels] + [stage.channels] * stage.repeats
    strides = [stage.stride if before is None else 1] + [1] * stage.repeats
    blocks = [
        block(stage, width, stride, layer_scale, drop)
        for width, stride, drop in zip(widths[:-1], strides[:-1], drops, strict=True)
    ]
    return nn.Sequential(*([] if before is None else [before]), *blocks)


def entry(stage: Stage, cin: int) -> nn.Module | None:
    """The module before the blocks, None where the first block changes the resolution itself."""
    match stage.down:
        case "inside":
            return None
        case "local":
            return ops.LocalDown(cin, stage.channels, stage.stride)
        case "global" | "local-global" as down:
            local = down == "local-global"
            return ops.GlobalDown(cin, stage.channels, stage.stride, stage.head_dim, local=local)
        case _:
            assert_never(stage.down)


def block(stage: Stage, cin: int, stride: int, layer_scale: float, drop: float) -> nn.Module:
    """One block of a stage, from `cin` channels to the stage's."""
    cout = stage.channels
    match stage.op:
        case "mbconv":
            return ops.mbconv(cin, cout, stride, stage.expansion, drop)
        case "fused":
            return ops.fused_mbconv(cin, cout, stride, stage.expansion, drop)
        case "attention" | "xca" as op:
            mixer = ops.SelfAttention if op == "attention" else ops.CrossCovariance
            mix = mixer(cin, cout, stage.head_dim)
            if cin != cout or stride > 1:
                return ops.AttentionDown(mix, cin, cout, stride, layer_scale)
            return ops.AttentionBlock(mix, cout, stage.expansion, layer_scale, drop)
        case _:
            assert_never(stage.op)


def _initialise(module: nn.Module) -> None:
    """Variance is kept from the first step on; norms keep the gains that their blocks gave them."""
    match module:
        case nn.Linear():
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        case nn.Conv2d():
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case ops.AttentionBlock() | ops.AttentionDown():
            # Added to its own input without a norm, block after block: at any size it would double.
            nn.init.zeros_(module.position.weight)
        case _:
            pass


def _six(
    ops: Sequence[Op],
    repeats: Sequence[int],
    channels: Sequence[int],
    head_dim: int,
    downs: Sequence[Down] = ("inside",) * 6,
) -> tuple[Stage, ...]:
    rows = zip(ops, repeats, channels, (1, 2, 2, 2, 1, 2), (1, 4, 6, 3, 2, 5), downs, strict=True)
    return tuple(Stage(op, r, c, s, e, head_dim, down) for op, r, c, s, e, down in rows)


_ATTENTION: tuple[Op, ...] = ("mbconv", "mbconv", "mbconv", "mbconv", "attention", "attention")
_XCA: tuple[Op, ...] = ("fused", "fused", "mbconv", "mbconv", "xca", "xca")
_MODULES: tuple[Down, ...] = ("inside", "local", "local", "local", "local-global", "local-global")

POINTS = {
    "mn_xs": MetaNetConfig(
        _six(_ATTENTION, (1, 1, 1, 2, 2, 2), (16, 24, 48, 64, 64, 128), 16),
        stem=16,
        head=448,
        layer_scale=0.1,
    ),
    "mn_s": MetaNetConfig(
        _six(_ATTENTION, (1, 2, 3, 3, 3, 6), (16, 32, 64, 96, 96, 192), 32),
        stem=24,
        layer_scale=0.1,
    ),
    "uninet_b1": MetaNetConfig(
        _six(_ATTENTION, (1, 2, 4, 4, 4, 8), (24, 48, 80, 128, 128, 256), 32, _MODULES)
    ),
    "mn_b4": MetaNetConfig(_six(_ATTENTION, (2, 3, 6, 6, 6, 12), (32, 64, 128, 192, 192, 384), 48)),
    "mn_b15": MetaNetConfig(
        _six(_XCA, (4, 6, 12, 12, 12, 24), (128, 256, 512, 768, 768, 1536), 64),
        stem=96,
        drop_path=0.3,
    ),
}
"""The named points: two small ones of ours, then the published ones."""


def named(name: str) -> MetaNetConfig:
    """The network of one of `POINTS`, or of a ``.json`` file that says what `config_of` reads.

    >>> named("mn_xs").head
    448

    Raises:
        BadModel: no such name or file, or one that says no network.
    """
    if name in POINTS:
        return POINTS[name]
    if not name.endswith(".json"):
        near = get_close_matches(name, POINTS, n=1) or POINTS
        raise BadModel(
            f"metanet:{name} given; there is no such network; did you mean {', '.join(near)}? "
            "Others are named by a file: metanet:FILE.json"
        )
    try:
        return config_of(json.loads(Path(name).read_text()))
    except (OSError, ValueError) as error:
        raise BadModel(f"{name} cannot be read as a network: {error}") from error


def config_of(values: Any) -> MetaNetConfig:
    """The network of plain values, the way `asdict` and JSON leave one.

    >>> config_of(json.loads(json.dumps(asdict(POINTS["mn_s"])))) == POINTS["mn_s"]
    True

    Raises:
        BadModel: a value is missing, unknown, of another type or not allowed.
    """
    like = asdict(POINTS["mn_xs"])
    try:
        _check_types(values, {**like, "stages": []})
        for row in values["stages"]:
            _check_types(row, like["stages"][0])
        rest = {name: value for name, value in values.items() if name != "stages"}
        return MetaNetConfig(tuple(Stage(**row) for row in values["stages"]), **rest)
    except (AttributeError, TypeError) as error:
        raise BadModel(f"a network of other values than a MetaNet's given: {error}") from error


def _check_types(values: Any, like: Mapping[str, Any]) -> None:
    said, wanted = (
        {name: type(value).__name__ for name, value in each.items()} for each in (values, like)
    )
    if said != wanted:
        odd = sorted({*said.items()} ^ {*wanted.items()})
        raise BadModel(f"a network that differs in {odd} given; exactly {wanted} are needed")
