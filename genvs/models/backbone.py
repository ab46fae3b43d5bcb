"""The encoder's image backbones, and the table of them. A new one is a class and a line in `BACKBONES`.

ResNet's modules have torchvision's names, so that its weights load: each BatchNorm is folded into the convolution
before it, and ImageNet's colour normalisation into the first convolution.
"""

import typing
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genvs.errors import InputError
from genvs.models.layers import cat_channels, conv_act, he_init

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Images to features at several strides. Built as `Class(widths, blocks)`, of an EncoderConfig.

    channels: the features' widths by stride: 2, 4, 8, 16 and 32. The last stage is dilated instead of strided, as in
    DeepLab, so that its features, called 32, have stride 16.
    """

    channels: dict[int, int]

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        """images: `[N, 3, H, W]` in [-1, 1]. Returns features `[N, C, H / stride, W / stride]` by stride."""
        return super().__call__(images)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = he_init(nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation))
        # Without normalisation, residual branches that start at zero keep the signal's scale through any depth
        # (Fixup, arXiv 1901.09321).
        self.conv2 = he_init(nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation), gain=0.0)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(he_init(nn.Conv2d(in_channels, out_channels, 1, stride=stride), gain=1.0))

    def forward(self, x: Tensor) -> Tensor:
        branch = conv_act(self.conv1, x, relu=True)
        # torchvision wraps the shortcut's convolution together with a BatchNorm.
        shortcut = None if self.downsample is None else typing.cast(nn.Conv2d, self.downsample[0])
        return conv_act(self.conv2, branch, residual=x, residual_conv=shortcut, relu=True)


class ResNet(Backbone):
    """A ResNet of basic blocks, without normalisation layers."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = he_init(nn.Conv2d(3, widths[0], 7, stride=2, padding=3))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = widths[0]
        self.channels = {2: channels}
        stages = zip(widths, blocks, (1, 2, 2, 1), (1, 1, 1, 2), strict=True)
        for number, (width, count, stride, dilation) in enumerate(stages, start=1):
            first = BasicBlock(channels, width, stride=stride, dilation=dilation)
            rest = [BasicBlock(width, width, dilation=dilation) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            channels = self.channels[2 ** (number + 1)] = width

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        features = {2: conv_act(self.conv1, cat_channels(images), relu=True)}
        x = self.maxpool(features[2])
        for number in range(1, len(self.channels)):
            x = features[2 ** (number + 1)] = self.get_submodule(f"layer{number}")(x)
        return features


BACKBONES: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], Backbone]] = {"resnet": ResNet}


def load_imagenet_weights(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Load a torchvision ResNet state dict, which has BatchNorm, into `backbone`, which has none.

    Raises InputError where the weights are of another architecture.
    """
    folded = {}
    for name, parameter in backbone.state_dict().items():
        layer, _, kind = name.rpartition(".")
        head, _, last = layer.rpartition(".")
        norm = f"{head}.1" if head.endswith("downsample") else f"{head}.{last.replace('conv', 'bn')}".lstrip(".")
        try:
            scale = state[f"{norm}.weight"] * (state[f"{norm}.running_var"] + 1e-5).rsqrt()
            if kind == "weight":
                folded[name] = state[name] * scale[:, None, None, None]
            else:
                folded[name] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        except (LookupError, TypeError, AttributeError):
            raise InputError(f"the encoder weights have no {name}: give a torchvision ResNet-34 state dict") from None
        if folded[name].shape != parameter.shape:
            raise InputError(
                f"the encoder weights' {name} is {tuple(folded[name].shape)}, this preset's {tuple(parameter.shape)}: "
                "ImageNet weights fit the full ResNet-34 of preset srn64 or srn128"
            )
    # torchvision's input is ((image + 1) / 2 - mean) / std.
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    folded["conv1.bias"] = folded["conv1.bias"] + (folded["conv1.weight"] * (0.5 - mean) / std).sum(dim=(1, 2, 3))
    folded["conv1.weight"] = folded["conv1.weight"] / (2 * std)
    backbone.load_state_dict(folded)
