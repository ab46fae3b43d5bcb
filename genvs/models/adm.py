"""ADM (Dhariwal and Nichol, arXiv 2105.05233) in EDM's form (arXiv 2206.00364, appendix F.2).

The embedding scales and shifts the output of a block's second norm. Attention has several heads, and the decoder has it
in all blocks of a level. Weights start as torch initialises them (Kaiming uniform), those that end a residual branch at
zero.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.models.layers import Layer, conv_act, convolve
from genvs.models.unet import SelfAttention, UNet, UNetBlock
from genvs.random import dropout

CHANNELS_PER_HEAD = 64


def adm_init(layer: Layer, scale: float = 1.0) -> Layer:
    """The layer as torch initialised it, or zero where DDPM++ has a tiny `scale`."""
    if scale < 1e-4:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


class ADMBlock(UNetBlock):
    """Norm, SiLU, conv, twice; the second norm's result is scaled and shifted by the noise embedding."""

    init = staticmethod(adm_init)
    norm_eps = 1e-5
    adaptive_scale = True
    projects_resampled = False

    def make_attention(self, channels: int) -> SelfAttention:
        most = max(1, channels // CHANNELS_PER_HEAD)
        heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        return SelfAttention(channels, heads, self.init, eps=self.norm_eps, scale=1.0)

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
    """The whole network; arguments as of `UNet`."""

    block_type = ADMBlock
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

    def embed(self, c_noise: Tensor, classes: Tensor, augment: Tensor) -> Tensor:
        x = self.encode_noise(c_noise)
        if self.embed_augment is not None:
            x = x + self.embed_augment(augment)
        x = self.embed1(F.silu(self.embed0(x)))
        if self.embed_class is not None:
            x = x + self.embed_class(classes)
        return F.silu(x)

    def shifts(self, blocks: Sequence[UNetBlock], embedding: Tensor) -> Iterator[Tensor]:
        return iter([block.affine(embedding) for block in blocks])
