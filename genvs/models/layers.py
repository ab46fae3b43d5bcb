"""Building blocks that more than one network uses."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _zero_bias(layer: Layer) -> Layer:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv_relu(in_channels: int, out_channels: int, kernel: int = 3, *, dilation: int = 1) -> nn.Sequential:
    """A 'same'-padded convolution and a ReLU, with He initialisation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    return nn.Sequential(he_init(conv), nn.ReLU(inplace=True))


def separable_conv_relu(in_channels: int, out_channels: int, *, dilation: int = 1) -> nn.Sequential:
    """A depthwise 3x3, a pointwise 1x1 and a ReLU, as in DeepLabV3+ (arXiv 1802.02611)."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1)
    return nn.Sequential(he_init(depthwise, gain=1.0), he_init(pointwise), nn.ReLU(inplace=True))


def upsample_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A learned x2 upsampling (2x2 transposed convolution, stride 2) and a ReLU."""
    conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    # Each output pixel sees one tap of every input channel.
    nn.init.normal_(conv.weight, std=math.sqrt(2 / in_channels))
    _zero_bias(conv)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def he_init(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """Normal weights of standard deviation gain / sqrt(fan_in), biases 0 (He et al., arXiv 1502.01852)."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    return _zero_bias(layer)


def group_norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """GroupNorm with EDM's number of groups, min(32, channels / 4), or the largest divisor of it that fits."""
    return nn.GroupNorm(math.gcd(min(32, channels // 4), channels), channels, eps=eps)


def positional_embedding(x: Tensor, channels: int) -> Tensor:
    """DDPM's sinusoidal embedding of a scalar, [sin, cos]: x `[N]` to `[N, channels]`."""
    half = channels // 2
    frequencies = (1 / 10000) ** (torch.arange(half, dtype=torch.float32, device=x.device) / (half - 1))
    angles = x.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class SelfAttention(nn.Module):
    """Single-head attention over all pixels, with a residual connection (x + projection)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = xavier_init(nn.Conv2d(channels, 3 * channels, 1), scale=math.sqrt(0.2))
        self.proj = xavier_init(nn.Conv2d(channels, channels, 1), scale=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """x: `[N, C, H, W]`, kept."""
        # The channels of q, k and v are interleaved (channel-major, then the three), as in EDM's weights.
        query, key, value = self.qkv(self.norm(x)).flatten(2).unflatten(1, (-1, 3)).permute(2, 0, 3, 1)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj(attended.mT.reshape(x.shape))


def xavier_init(layer: Layer, scale: float = 1.0) -> Layer:
    """Xavier-uniform weights times `scale`, biases 0: the initialisation of EDM's U-Nets."""
    nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(scale)
    return _zero_bias(layer)
