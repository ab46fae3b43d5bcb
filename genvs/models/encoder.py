"""Image to feature volume: DeepLabV3+ (arXiv 1802.02611) with learned upsampling, and a 1x1 head for all depths.

Sizes and connections are those of the unofficial GeNVS implementation, without normalisation and dropout.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.config import STEM_STRIDE, EncoderConfig
from genvs.errors import InputError
from genvs.modalities import PICTURE_CHANNELS
from genvs.models.backbone import BACKBONES
from genvs.models.colours import Colours
from genvs.models.layers import cat_channels, conv_relu, conv_relu_of_two, he_init, separable_conv_relu, upsample_relu


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: dilated separable convolutions and the global mean, side by side."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.pointwise = conv_relu(in_channels, channels, 1)
        self.atrous = nn.ModuleList(separable_conv_relu(in_channels, channels, dilation=rate) for rate in rates)
        self.pooled = conv_relu(in_channels, channels, 1)
        self.project = conv_relu((len(rates) + 2) * channels, channels, 1)
        self.refine = separable_conv_relu(channels, channels)

    def set_rates(self, rates: tuple[int, ...]) -> None:
        """Other dilation rates, with the same weights."""
        for conv, rate in zip(self.atrous, rates, strict=True):
            depthwise = cast(nn.Conv2d, cast(nn.Sequential, conv)[0])
            depthwise.dilation = depthwise.padding = (rate, rate)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [self.pointwise(x), *(conv(x) for conv in self.atrous), pooled]
        return self.refine(self.project(cat_channels(*branches)))


class Stage(nn.Sequential):
    """Three 3x3 convolutions over the backbone's features at one resolution and the coarser stage's features."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(conv_relu(in_channels, channels), conv_relu(channels, channels), conv_relu(channels, channels))

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        first, second, third = self
        return third(second(conv_relu_of_two(cast(nn.Conv2d, cast(nn.Sequential, first)[0]), skip, x)))


class FeatureVolumeEncoder(nn.Module):
    """`[N, 3, H, W]` images to `[N, C, D, volume_width, volume_width]` feature volumes, D bins linear in depth."""

    def __init__(self, config: EncoderConfig, resolution: int, colours: Colours) -> None:
        super().__init__()
        if config.backbone not in BACKBONES:
            raise InputError(f"`backbone`={config.backbone} is not known: choose one of {', '.join(BACKBONES)}")
        self.config, self.colours = config, colours
        self.backbone = BACKBONES[config.backbone](config.widths, config.blocks)
        widths = self.backbone.channels
        channels = config.decoder_channels
        self.aspp = ASPP(widths[32], channels, config.aspp_rates)
        self.stage16 = Stage(widths[16] + widths[32] + channels, channels)
        self.up8 = upsample_relu(channels, channels)
        self.stage8 = Stage(widths[8] + channels, channels)
        self.up4 = upsample_relu(channels, channels)
        self.stage4 = Stage(widths[4] + channels, channels)
        self.low_level = conv_relu(widths[4], config.low_level_channels, 1)
        self.fuse = separable_conv_relu(channels + config.low_level_channels, channels)
        # The head upsamples from 1/4 of the image's resolution to the volume's.
        num_upsamplings = int(math.log2(config.volume_width * STEM_STRIDE // resolution))
        skips = (widths[2], PICTURE_CHANNELS)[:num_upsamplings]
        self.head_ups = nn.ModuleList(upsample_relu(channels, channels) for _ in skips)
        self.head_stages = nn.ModuleList(Stage(skip + channels, channels) for skip in skips)
        # A linear layer for each pixel. Its outputs are depth-major, so that volumes lie in memory as (H, W, D, C).
        volume = nn.Linear(channels + PICTURE_CHANNELS, config.volume_depth * config.volume_channels)
        self.to_volume = he_init(volume, gain=1.0)
        self._start_from_colours()

    @torch.no_grad()
    def _start_from_colours(self) -> None:
        """Initialise the volume's own channels to the picture minus the background, the same at every depth.

        A ray then renders the mean colour of the input views along it, and zero where they show the background: a
        soft visual hull, with which the network learns colour and silhouette many times faster.
        """
        weight = self.to_volume.weight.unflatten(0, (self.config.volume_depth, self.config.volume_channels))
        weight[:, :, -PICTURE_CHANNELS:] = 0
        weight[:, : self.colours.reserved] = 0
        for number, channel in enumerate(range(self.colours.first, self.colours.last)):
            weight[:, channel, number - PICTURE_CHANNELS] = 1

    def head_weight(self) -> Tensor:
        """The last layer's weight; its last columns are for the picture's channels."""
        return self.to_volume.weight

    def forward(self, images: Tensor) -> Tensor:
        """images: `[N, 3, H, W]` in [-1, 1]. Returns `[N, C, D, h, w]`, in memory `[N, h, w, D, C]`."""
        features = self.backbone(images)
        x = self.stage16(cat_channels(features[16], features[32]), self.aspp(features[32]))
        x = self.stage8(features[8], self.up8(x))
        x = self.stage4(features[4], self.up4(x))
        x = self.fuse(cat_channels(x, self.low_level(features[4])))
        for up, stage, skip in zip(self.head_ups, self.head_stages, (features[2], images), strict=False):
            x = stage(skip, up(x))
        colours = self.colours.less_background(F.interpolate(images, size=x.shape[2:], mode="area"))
        x = cat_channels(x, colours).permute(0, 2, 3, 1)
        weight = F.pad(self.head_weight(), (0, x.shape[-1] - self.to_volume.in_features))
        volume = F.linear(x, weight, self.to_volume.bias)
        return volume.unflatten(-1, (self.config.volume_depth, self.config.volume_channels)).permute(0, 4, 3, 1, 2)
