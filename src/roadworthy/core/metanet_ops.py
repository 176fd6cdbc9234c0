"""The operators of MetaNet: convolutions, attention, and the modules between stages.

All of them take and give maps ``[b c h w]`` of any size. After UniNet (arXiv 2207.05420), of whose
search MetaNet is a result; where the paper is silent the choice is the one that meets the published
counts (see `metanet`).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

Map = Float[Tensor, "b c h w"]
Out = Float[Tensor, "b d h2 w2"]
Tokens = Float[Tensor, "b t d"]


def tokens_of(x: Map) -> Float[Tensor, "b t c"]:
    """The pixels of a map, row by row.

    >>> tokens_of(torch.zeros(1, 8, 2, 3)).shape
    torch.Size([1, 6, 8])
    """
    return x.flatten(2).transpose(1, 2)


def map_of(tokens: Tokens, height: int, width: int) -> Float[Tensor, "b d h w"]:
    """What `tokens_of` was made from."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


class SqueezeExcite(nn.Module):
    """Scales each channel by what the mean over the image says, a quarter of the channels wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = -(-(channels // 4) // 8) * 8
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Map) -> Map:
        """`x`, each channel scaled by 0 to 1."""
        scale = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


def shortcut(cin: int, cout: int, stride: int) -> nn.Module:
    """The residual branch: nothing where the shape stays, else a pool and a 1x1 convolution."""
    if cin == cout and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.MaxPool2d(3, stride, padding=1), nn.Conv2d(cin, cout, 1))


def _spatial(
    cin: int, cout: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, padding=1, groups=groups, bias=bias)


class _Residual(nn.Module):
    """A shortcut plus a body that starts as zero."""

    def __init__(self, shortcut: nn.Module, body: list[nn.Module], cout: int, drop: float) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(cout)
        nn.init.zeros_(norm.weight)
        self.shortcut = shortcut
        self.body = nn.Sequential(*body, norm)
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: Map) -> Out:
        """Shortcut plus body."""
        return self.shortcut(x) + self.drop(self.body(x))


def mbconv(cin: int, cout: int, stride: int, expansion: int, drop: float = 0.0) -> nn.Module:
    """1x1 to `expansion` times the width, depthwise 3x3, squeeze-excite, 1x1."""
    wide = cin * expansion
    body: list[nn.Module] = []
    if expansion > 1 or stride > 1:
        widen = nn.Conv2d(cin, wide, 1, bias=False)
        body += [nn.BatchNorm2d(cin), widen, nn.BatchNorm2d(wide), nn.GELU()]
    body += [_spatial(wide, wide, stride, groups=wide), nn.BatchNorm2d(wide), nn.GELU()]
    body += [SqueezeExcite(wide), nn.Conv2d(wide, cout, 1)]
    return _Residual(shortcut(cin, cout, stride), body, cout, drop)


def fused_mbconv(cin: int, cout: int, stride: int, expansion: int, drop: float = 0.0) -> nn.Module:
    """A full 3x3 in place of the first 1x1 and the depthwise 3x3; alone where nothing widens."""
    wide = cin * expansion
    body: list[nn.Module]
    if expansion == 1:
        body = [SqueezeExcite(cin), _spatial(cin, cout, stride, bias=True)]
    else:
        body = [nn.BatchNorm2d(cin), _spatial(cin, wide, stride), nn.BatchNorm2d(wide), nn.GELU()]
        body += [SqueezeExcite(wide), nn.Conv2d(wide, cout, 1)]
    return _Residual(shortcut(cin, cout, stride), body, cout, drop)


class SelfAttention(nn.Module):
    """Tokens attend to tokens, `cin / head_dim` heads."""

    def __init__(self, cin: int, cout: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(cin, 3 * cin)
        self.proj = nn.Linear(cin, cout)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b t e"]:
        """Mixed tokens of width `cout`."""
        query, key, value = _heads(self.qkv(tokens), 3, self.head_dim)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossCovariance(nn.Module):
    """Channels attend to channels: softmax(tau Q^T K), both normalised over the tokens (XCA).

    Its cost grows with the tokens, not with their square (arXiv 2106.09681, equation 2).
    """

    def __init__(self, cin: int, cout: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(cin, 3 * cin)
        self.temperature = nn.Parameter(torch.ones(cin // head_dim, 1, 1))
        self.proj = nn.Linear(cin, cout)

    def forward(self, tokens: Tokens) -> Float[Tensor, "b t e"]:
        """Mixed tokens of width `cout`."""
        query, key, value = _heads(self.qkv(tokens), 3, self.head_dim)
        query, key = F.normalize(query, dim=-2), F.normalize(key, dim=-2)
        weights = (query.transpose(-2, -1) @ key * self.temperature).softmax(-1)
        mixed = value @ weights.transpose(-2, -1)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _heads(packed: Tokens, parts: int, head_dim: int) -> Float[Tensor, "parts b heads t e"]:
    split = packed.unflatten(2, (parts, -1, head_dim))
    return split.permute(2, 0, 3, 1, 4)


class AttentionBlock(nn.Module):
    """Depthwise positions, a mixer of tokens and an MLP, each added at `scale` times its size."""

    def __init__(
        self, mixer: nn.Module, width: int, expansion: int, scale: float, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.position = _spatial(width, width, groups=width, bias=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer = mixer
        wide = width * expansion
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))
        self.gamma1 = nn.Parameter(torch.full((width,), scale))
        self.gamma2 = nn.Parameter(torch.full((width,), scale))
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: Map) -> Map:
        """A map of the same shape."""
        x = x + self.position(x)
        tokens = tokens_of(x)
        tokens = tokens + self.drop(self.gamma1 * self.mixer(self.norm1(tokens)))
        tokens = tokens + self.drop(self.gamma2 * self.mlp(self.norm2(tokens)))
        return map_of(tokens, *x.shape[-2:])


class AttentionDown(nn.Module):
    """The first attention block of a stage: the mixer sees pooled tokens, there is no MLP."""

    def __init__(self, mixer: nn.Module, cin: int, cout: int, stride: int, scale: float) -> None:
        super().__init__()
        self.position = _spatial(cin, cin, groups=cin, bias=True)
        self.norm = nn.LayerNorm(cin)
        self.pool = nn.MaxPool2d(3, stride, padding=1)
        self.mixer = mixer
        self.gamma = nn.Parameter(torch.full((cout,), scale))
        self.shortcut = shortcut(cin, cout, stride)

    def forward(self, x: Map) -> Out:
        """A map of `cout` channels, `stride` times smaller."""
        x = x + self.position(x)
        pooled = self.pool(map_of(self.norm(tokens_of(x)), *x.shape[-2:]))
        mixed = self.gamma * self.mixer(tokens_of(pooled))
        return self.shortcut(x) + map_of(mixed, *pooled.shape[-2:])


def _local(cin: int, cout: int, stride: int) -> nn.Sequential:
    depthwise = _spatial(cin, cin, stride, groups=cin, bias=True)
    return nn.Sequential(depthwise, nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 1))


def _pooled(cin: int, cout: int, stride: int) -> nn.Module:
    """The residual branch of a module between stages, which has no identity to keep."""
    pool = nn.MaxPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(cin, cout, 1))


class LocalDown(nn.Module):
    """Between stages: a strided depthwise convolution and a 1x1 (UniNet's L-DSM)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.shortcut = _pooled(cin, cout, stride)
        self.body = _local(cin, cout, stride)

    def forward(self, x: Map) -> Out:
        """A map of `cout` channels, `stride` times smaller."""
        return self.shortcut(x) + self.body(x)


class GlobalDown(nn.Module):
    """Between stages: few queries attend to all tokens.

    Args:
        local: queries out of a strided depthwise convolution (UniNet's LG-DSM), else out of a
            max pool, which is our reading of its G-DSM.
    """

    def __init__(self, cin: int, cout: int, stride: int, head_dim: int, *, local: bool) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.shortcut = _pooled(cin, cout, stride)
        self.query = _local(cin, cout, stride) if local else _pooled(cin, cout, stride)
        self.query_norm, self.norm = nn.LayerNorm(cout), nn.LayerNorm(cin)
        self.key_value = nn.Linear(cin, 2 * cout)
        self.proj = nn.Linear(cout, cout)

    def forward(self, x: Map) -> Out:
        """A map of `cout` channels, `stride` times smaller."""
        small = self.shortcut(x)
        (query,) = _heads(self.query_norm(tokens_of(self.query(x))), 1, self.head_dim)
        key, value = _heads(self.key_value(self.norm(tokens_of(x))), 2, self.head_dim)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return small + map_of(self.proj(mixed), *small.shape[-2:])
