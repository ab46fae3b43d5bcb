"""NCSN++ (Song et al., arXiv 2011.13456) in EDM's form (arXiv 2206.00364, appendix F.2).

It differs from DDPM++ in a random Fourier embedding of the noise, a smooth resampling filter, and the input skip.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.config import DenoiserConfig
from genvs.models.unet import UNet

FOURIER_SCALE = 16.0


def smooth_filter(x: Tensor) -> Tensor:
    """[1, 3, 3, 1] / 8 along both axes, for each channel of x: `[C, 1, 4, 4]`."""
    # Created on the device, because a copy from the host would wait for it.
    taps = (2 - (torch.arange(4, device=x.device) - 1.5).abs()).to(x.dtype) / 4
    return (taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)


def smooth_downsample(x: Tensor, padding: int = 1) -> Tensor:
    """Every second pixel of the filtered `[N, C, H, W]`. padding: the width of the zeros around it."""
    return F.conv2d(x, smooth_filter(x), stride=2, padding=padding, groups=x.shape[1])


def smooth_upsample(x: Tensor) -> Tensor:
    """Twice the resolution: the transpose of `smooth_downsample`, times 4."""
    return F.conv_transpose2d(x, 4 * smooth_filter(x), stride=2, padding=1, groups=x.shape[1])


class NCSNpp(UNet):
    """The whole network; arguments as of `UNet`, usually with `residual_encoder`."""

    frequencies: Tensor
    channel_mult_noise = 2
    down, up = staticmethod(smooth_downsample), staticmethod(smooth_upsample)
    branch_padding = 2  # this includes the filter's padding

    def __init__(self, config: DenoiserConfig, *sizes: int) -> None:
        super().__init__(config, *sizes)
        self.register_buffer("frequencies", torch.empty(self.noise_channels // 2).normal_(std=FOURIER_SCALE))

    def encode_noise(self, c_noise: Tensor) -> Tensor:
        angles = 2 * math.pi * c_noise.float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def branch_down(self, x: Tensor) -> Tensor:
        return smooth_downsample(x, padding=0)
