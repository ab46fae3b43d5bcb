"""ADM (Dhariwal and Nichol, arXiv 2105.05233) in EDM's form (arXiv 2206.00364, appendix F.2).

The embedding scales and shifts the output of a block's second norm. Attention has several heads, and the decoder has it
in all blocks of a level. Weights start as torch initialises them (Kaiming uniform), those that end a residual branch at
zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.models.layers import GroupNorm, Layer, conv_act, convolve
from genvs.models.unet import UNet
from genvs.random import dropout

EPS = 1e-5
CHANNELS_PER_HEAD = 64


def adm_init(layer: Layer, scale: float = 1.0) -> Layer:
    """The layer as torch initialised it, or zero where DDPM++ has a tiny `scale`."""
    if scale < 1e-4:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


class MultiHeadAttention(nn.Module):
    """Attention over all pixels, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wanted = max(1, channels // CHANNELS_PER_HEAD)
        self.heads = next(heads for heads in range(wanted, 0, -1) if channels % heads == 0)
        self.norm = GroupNorm(channels, silu=False, eps=EPS)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = adm_init(nn.Conv2d(channels, channels, 1), scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x: `[N, C, H, W]`. Returns the same shape."""
        normalized, x = self.norm(x)
        # Channels are grouped by heads; within a head q, k and v are interleaved, as in EDM's weights.
        query, key, value = self.qkv(normalized).flatten(2).unflatten(1, (self.heads, -1, 3)).permute(3, 0, 1, 4, 2)
        attended = F.scaled_dot_product_attention(query, key, value).mT.flatten(1, 2).unflatten(2, x.shape[2:])
        return conv_act(self.proj, attended, residual=x)


class ADMBlock(nn.Module):
    """Norm, SiLU, conv, twice; the second norm's result is scaled and shifted by the noise embedding."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        *,
        dropout: float,
        resample=None,
        attention: bool = False,
    ) -> None:
        """As `UNetBlock`."""
        super().__init__()
        self.dropout, self.resample = dropout, resample
        self.norm0 = GroupNorm(in_channels, eps=EPS)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm1 = GroupNorm(out_channels, silu=False, eps=EPS)
        self.conv1 = adm_init(nn.Conv2d(out_channels, out_channels, 3, padding=1), scale=0.0)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.attention = MultiHeadAttention(out_channels) if attention else None

    def forward(self, x: Tensor, scale_and_shift: Tensor, keys: Tensor | None) -> Tensor:
        """x: `[N, in, H, W]`. scale_and_shift: `[N, 2 out]`. keys: int64 `[N]`, seeds of dropout, or None."""
        x, shortcut = self.norm0(x)
        if self.resample is not None:
            shortcut, x = self.resample(shortcut), self.resample(x)
        x, _ = self.norm1(convolve(self.conv0, x, self.conv0.bias))
        scale, shift = scale_and_shift[:, :, None, None].chunk(2, dim=1)
        x = F.silu(torch.addcmul(shift, x, scale + 1))
        if keys is not None and self.dropout > 0:
            x = dropout(x, self.dropout, keys)
        x = conv_act(self.conv1, x, residual=shortcut, residual_conv=self.skip)
        return x if self.attention is None else self.attention(x)


class ADM(UNet):
    """As `UNet`."""

    block_type = ADMBlock
    init = staticmethod(adm_init)
    norm_eps = EPS
    attends_in_all_of_decoder = True
    augment_init_scale = 0.0

    def encode_noise(self, c_noise: Tensor) -> Tensor:
        half = self.noise_channels // 2
        frequencies = (1 / 10000) ** (torch.arange(half, dtype=torch.float32, device=c_noise.device) / half)
        angles = c_noise.float()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def class_layer(self, embedding_channels: int) -> nn.Linear:
        layer = nn.Linear(self.num_classes, embedding_channels, bias=False)
        nn.init.normal_(layer.weight)
        return layer

    def embed(self, c_noise: Tensor, classes: Tensor | None, augment: Tensor | None) -> Tensor:
        x = self.encode_noise(c_noise)
        if self.embed_augment is not None:
            x = x + self.embed_augment(augment)
        x = self.embed1(F.silu(self.embed0(x)))
        if self.embed_class is not None:
            x = x + self.embed_class(classes)
        return F.silu(x)

    def shifts(self, blocks: Sequence[nn.Module], embedding: Tensor) -> Iterator[Tensor]:
        return iter([cast(ADMBlock, block).affine(embedding) for block in blocks])
