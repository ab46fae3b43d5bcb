"""Denoising U-Net: DDPM++ (Song et al., arXiv 2011.13456) in EDM's form (arXiv 2206.00364, appendix F.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.config import DenoiserConfig
from genvs.models.layers import SelfAttention, group_norm, positional_embedding, xavier_init
from torch_utils import stateless_random

SKIP_SCALE = math.sqrt(0.5)


def downsample(x: Tensor) -> Tensor:
    """Half the resolution by 2x2 means (resample filter [1, 1])."""
    return F.avg_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    """Twice the resolution by nearest neighbours (the transpose of `downsample`, times 4)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class UNetBlock(nn.Module):
    """Norm, SiLU, conv, twice, with the noise embedding added between, a shortcut, and attention where asked."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        *,
        dropout: float,
        stream: int,
        resample=None,
        attention: bool = False,
    ) -> None:
        """resample: `downsample`, `upsample` or None. stream: this block's own stream of dropout randomness."""
        super().__init__()
        self.dropout, self.stream, self.resample = dropout, stream, resample
        self.norm0 = group_norm(in_channels)
        self.conv0 = xavier_init(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.affine = xavier_init(nn.Linear(embedding_channels, out_channels))
        self.norm1 = group_norm(out_channels)
        self.conv1 = xavier_init(nn.Conv2d(out_channels, out_channels, 3, padding=1), scale=1e-5)
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels or resample is not None:
            self.skip = xavier_init(nn.Conv2d(in_channels, out_channels, 1))
        self.attention = SelfAttention(out_channels) if attention else None

    def forward(self, x: Tensor, embedding: Tensor, keys: Tensor | None) -> Tensor:
        """x: `[N, in, H, W]`; embedding: `[N, E]`; keys: `[N]`, for dropout, or None for none."""
        shortcut, x = x, F.silu(self.norm0(x))
        if self.resample is not None:
            shortcut, x = self.resample(shortcut), self.resample(x)
        x = self.conv0(x) + self.affine(embedding)[:, :, None, None]
        x = F.silu(self.norm1(x))
        if keys is not None and self.dropout > 0:
            x = stateless_random.dropout(x, self.dropout, stateless_random.fold(keys, self.stream))
        x = (self.conv1(x) + self.skip(shortcut)) * SKIP_SCALE
        return x if self.attention is None else self.attention(x) * SKIP_SCALE


class UNet(nn.Module):
    """F(x; c_noise): `[N, in_channels, H, W]` to `[N, out_channels, H, W]`. No preconditioning inside."""

    def __init__(self, config: DenoiserConfig, resolution: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.noise_channels = config.model_channels
        embedding_channels = 4 * config.model_channels
        self.embed0 = xavier_init(nn.Linear(self.noise_channels, embedding_channels))
        self.embed1 = xavier_init(nn.Linear(embedding_channels, embedding_channels))
        num_blocks = 0

        def block(in_channels: int, out_channels: int, **kwargs) -> UNetBlock:
            nonlocal num_blocks
            num_blocks += 1
            return UNetBlock(
                in_channels, out_channels, embedding_channels, dropout=config.dropout, stream=num_blocks, **kwargs
            )

        widths = [config.model_channels * mult for mult in config.channel_mult]
        attends = [resolution >> level in config.attention_resolutions for level in range(len(widths))]
        channels, branch_channels, skips = config.model_channels, in_channels, [config.model_channels]
        self.conv_in = xavier_init(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.encoder, self.residual_convs = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.encoder.append(block(channels, channels, resample=downsample))
                skips.append(channels)
                if config.residual_encoder:
                    self.residual_convs.append(xavier_init(nn.Conv2d(branch_channels, channels, 3, padding=1)))
                    branch_channels = channels
            for _ in range(config.blocks_per_level):
                self.encoder.append(block(channels, width, attention=attends[level]))
                channels = width
                skips.append(channels)

        self.middle = nn.ModuleList([block(channels, channels, attention=True), block(channels, channels)])
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                self.decoder.append(block(channels, channels, resample=upsample))
            for index in range(config.blocks_per_level + 1):
                last = index == config.blocks_per_level
                self.decoder.append(block(channels + skips.pop(), width, attention=last and attends[level]))
                channels = width
        self.norm_out = group_norm(channels)
        self.conv_out = xavier_init(nn.Conv2d(channels, out_channels, 3, padding=1), scale=1e-5)

    def forward(self, x: Tensor, c_noise: Tensor, keys: Tensor | None = None) -> Tensor:
        """x: `[N, in, H, W]`; c_noise: `[N]`; keys: int64 `[N]`, one a sample, for dropout, or None for none."""
        embedding = F.silu(self.embed0(positional_embedding(c_noise, self.noise_channels)))
        embedding = F.silu(self.embed1(embedding))
        branch, x = x, self.conv_in(x)
        skips, residual_convs = [x], iter(self.residual_convs)
        for layer in self.encoder:
            x = layer(x, embedding, keys)
            if layer.resample is downsample and len(self.residual_convs) > 0:
                # NCSN++'s input skip: the network's input comes down beside the main path and joins it.
                branch = x = (x + downsample(next(residual_convs)(branch))) * SKIP_SCALE
            skips.append(x)
        for layer in self.middle:
            x = layer(x, embedding, keys)
        for layer in self.decoder:
            x = layer(x if layer.resample is upsample else torch.cat([x, skips.pop()], dim=1), embedding, keys)
        return self.conv_out(F.silu(self.norm_out(x)))
