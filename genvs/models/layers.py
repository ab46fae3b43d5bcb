"""Building blocks that more than one network uses."""

import math
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs import ops

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def he_init(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """Normal weights of standard deviation gain / sqrt(fan_in), biases 0 (He et al., arXiv 1502.01852)."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    return _zero_bias(layer)


def xavier_init(layer: Layer, scale: float = 1.0) -> Layer:
    """Xavier-uniform weights times `scale`, biases 0: the initialisation of EDM's U-Nets."""
    nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(scale)
    return _zero_bias(layer)


def _zero_bias(layer: Layer) -> Layer:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolve(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer's convolution of x, with `bias` instead of its own. x may have more channels, which are padding."""
    if isinstance(layer, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, layer.weight, bias, layer.stride)
    weight, padding = layer.weight, x.shape[1] - layer.in_channels
    if padding and layer.groups == 1:
        weight = F.pad(weight, (0, 0, 0, 0, 0, padding))
    elif padding:
        x = x[:, : layer.in_channels]
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None, "a layer that has one"
    return layer.bias


def conv_act(
    layer: nn.Conv2d | nn.ConvTranspose2d,
    x: Tensor,
    *,
    residual: Tensor | None = None,
    residual_conv: nn.Conv2d | None = None,
    scale: float = 1.0,
    relu: bool = False,
) -> Tensor:
    """relu((layer(x) + residual_conv(residual)) * scale), in as few passes over memory as possible."""
    bias, residual_bias = bias_of(layer), None
    if residual is not None and residual_conv is not None:
        residual, residual_bias = convolve(residual_conv, residual), bias_of(residual_conv)
    if not ops.uses_kernels(x):  # the convolution adds all that is added to every pixel
        x = convolve(layer, x, bias if residual_bias is None else bias + residual_bias)
        return ops.conv_epilogue(x, None, residual=residual, scale=scale, relu=relu)
    x = convolve(layer, x)
    return ops.conv_epilogue(x, bias, residual=residual, residual_bias=residual_bias, scale=scale, relu=relu)


def cat_channels(*parts: Tensor) -> Tensor:
    """Concatenate `[N, C_i, H, W]` along channels, in the lowest precision among them.

    Where kernels run, channels are padded with zeros to a multiple of 8, as tensor cores need it, for `convolve`.
    """
    dtype = min((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    missing = -sum(part.shape[1] for part in parts) % 8
    if missing and ops.uses_kernels(parts[0]):
        parts = (*parts, parts[0].new_zeros((len(parts[0]), missing, *parts[0].shape[2:])))
    return ops.concat(*(part.to(dtype) for part in parts))


def conv_relu_of_two(layer: nn.Conv2d, first: Tensor, second: Tensor) -> Tensor:
    """relu(layer(first and second, concatenated along channels)), as a sum of two convolutions where kernels run.

    That saves the copy, and keeps the channels of `second` aligned as tensor cores need it.
    """
    if not ops.uses_kernels(first):
        return conv_act(layer, cat_channels(first, second), relu=True)
    weights = layer.weight.split([first.shape[1], second.shape[1]], dim=1)
    first, weight = cat_channels(first), F.pad(weights[0], (0, 0, 0, 0, 0, -first.shape[1] % 8))
    residual = F.conv2d(first, weight, None, layer.stride, layer.padding)
    x = F.conv2d(second, weights[1], None, layer.stride, layer.padding)
    return ops.conv_epilogue(x, bias_of(layer), residual=residual, relu=True)


class ConvReLU(nn.Sequential):
    """Convolutions, then a ReLU. Only the last convolution has a bias."""

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self
        for conv in first:
            x = convolve(cast(nn.Conv2d, conv), x)
        return conv_act(cast(nn.Conv2d, last), x, relu=True)


def conv_relu(in_channels: int, out_channels: int, kernel: int = 3) -> ConvReLU:
    """A 'same'-padded convolution and a ReLU, with He initialisation."""
    return ConvReLU(he_init(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)))


def separable_conv_relu(in_channels: int, out_channels: int, *, dilation: int = 1) -> ConvReLU:
    """A depthwise 3x3, a pointwise 1x1 and a ReLU, as in DeepLabV3+ (arXiv 1802.02611)."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, out_channels, 1)
    return ConvReLU(he_init(depthwise, gain=1.0), he_init(pointwise))


def upsample_relu(in_channels: int, out_channels: int) -> ConvReLU:
    """A learned x2 upsampling (2x2 transposed convolution, stride 2) and a ReLU."""
    conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    # Each output pixel sees one tap of every input channel.
    nn.init.normal_(conv.weight, std=math.sqrt(2 / in_channels))
    return ConvReLU(_zero_bias(conv))


class GroupNorm(nn.Module):
    """GroupNorm and SiLU, with EDM's number of groups: the largest that divides min(32, channels / 4) and channels."""

    def __init__(self, channels: int, *, silu: bool = True, eps: float = 1e-6, dropout: float = 0.0) -> None:
        super().__init__()
        self.settings = ops.NormSettings(math.gcd(min(32, channels // 4), channels), eps, silu, dropout)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, shift: Tensor | None = None, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `ops.group_norm_silu`: the result, and x for a shortcut."""
        return ops.group_norm_silu(x, self.weight, self.bias, self.settings, shift, keys)
