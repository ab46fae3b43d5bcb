"""Denoising U-Net: DDPM++ (Song et al., arXiv 2011.13456) in EDM's form (arXiv 2206.00364, appendix F.2)."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from genvs import ops
from genvs.config import DenoiserConfig
from genvs.models.layers import GroupNorm, bias_of, conv_act, convolve, xavier_init
from genvs.random import Stream, fold

SKIP_SCALE = math.sqrt(0.5)
# All but cuDNN's, whose gradients can be NaN on H100 and H200 where the number of pixels is no multiple of its tile,
# 128, and all scores of a pixel are below -88 (github.com/pytorch/pytorch/issues/196678).
ATTENTION_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class SelfAttention(nn.Module):
    """Attention over all pixels, with a residual connection: (x + projection) * scale."""

    def __init__(self, channels: int, heads: int, init: Callable, *, eps: float, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm = GroupNorm(channels, silu=False, eps=eps)
        self.qkv = init(nn.Conv2d(channels, 3 * channels, 1), scale=math.sqrt(0.2))
        self.proj = init(nn.Conv2d(channels, channels, 1), scale=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """x: `[N, C, H, W]`. Returns the same shape."""
        normalized, x = self.norm(x)
        # Channels are grouped by heads. Within a head q, k and v are interleaved, as in EDM's weights.
        qkv = conv_act(self.qkv, normalized).flatten(2).unflatten(1, (self.heads, -1, 3)).permute(3, 0, 1, 4, 2)
        query, key, value = qkv.contiguous()
        with sdpa_kernel(ATTENTION_BACKENDS):
            attended = F.scaled_dot_product_attention(query, key, value).mT.reshape(x.shape)
        return conv_act(self.proj, attended, residual=x, scale=self.scale)


class UNetBlock(nn.Module):
    """Norm, SiLU and convolution, twice, with the noise embedding added between; a shortcut; optional attention.

    ADM's block has the same layers; it overrides the class attributes and some methods.
    """

    init = staticmethod(xavier_init)
    norm_eps = 1e-6
    adaptive_scale = False  # whether the embedding scales channels too, after the second norm
    projects_resampled = True  # whether a shortcut that changes the resolution has a convolution

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
        """resample: the network's `down` or `up`, or None."""
        super().__init__()
        self.dropout, self.resample = dropout, resample
        self.norm0 = GroupNorm(in_channels, eps=self.norm_eps)
        self.conv0 = self.init(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.affine = self.init(nn.Linear(embedding_channels, (1 + self.adaptive_scale) * out_channels))
        self.norm1 = GroupNorm(out_channels, silu=not self.adaptive_scale, eps=self.norm_eps, dropout=dropout)
        self.conv1 = self.init(nn.Conv2d(out_channels, out_channels, 3, padding=1), scale=1e-5)
        self.skip: nn.Conv2d | None = None
        if in_channels != out_channels or resample is not None and self.projects_resampled:
            self.skip = self.init(nn.Conv2d(in_channels, out_channels, 1))
        self.attention = self.make_attention(out_channels) if attention else None

    def make_attention(self, channels: int) -> SelfAttention:
        return SelfAttention(channels, 1, self.init, eps=self.norm_eps, scale=SKIP_SCALE)

    def forward(self, x: Tensor, shift: Tensor, keys: Tensor | None) -> Tensor:
        """x: `[N, in, H, W]`. shift: `[N, out]`, from the embedding. keys: int64 `[N]`, seeds of dropout, or None."""
        x, shortcut = self.norm0(x)
        if self.resample is not None:
            shortcut, x = self.resample(shortcut), self.resample(x)
        x, _ = self.norm1(convolve(self.conv0, x), shift, keys)
        x = conv_act(self.conv1, x, residual=shortcut, residual_conv=self.skip, scale=SKIP_SCALE)
        return x if self.attention is None else self.attention(x)


class UNet(nn.Module):
    """F(x; c_noise): `[N, in_channels, H, W]` to `[N, out_channels, H, W]`, without preconditioning.

    NCSN++ and ADM have the same layout; they override the class attributes and some methods.
    """

    block_type = UNetBlock
    down, up = staticmethod(ops.downsample), staticmethod(ops.upsample)
    branch_padding = 1  # of the input skip's convolutions
    channel_mult_noise = 1
    attends_in_all_of_decoder = False
    augment_init_scale = 1.0

    def __init__(
        self, config: DenoiserConfig, resolution: int, in_channels: int, out_channels: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        embedding_channels = 4 * config.model_channels
        self.num_classes, self.num_labels = num_classes, num_classes + config.augment_labels
        self.noise_channels, init = self.channel_mult_noise * config.model_channels, self.block_type.init
        self.embed0 = init(nn.Linear(self.noise_channels, embedding_channels))
        self.embed1 = init(nn.Linear(embedding_channels, embedding_channels))
        self.embed_class = self.class_layer(embedding_channels) if num_classes else None
        self.embed_augment: nn.Linear | None = None
        if config.augment_labels:
            layer = nn.Linear(config.augment_labels, self.noise_channels, bias=False)
            self.embed_augment = init(layer, scale=self.augment_init_scale)

        def block(in_channels: int, out_channels: int, **kwargs) -> UNetBlock:
            return self.block_type(in_channels, out_channels, embedding_channels, dropout=config.dropout, **kwargs)

        widths = [config.model_channels * mult for mult in config.channel_mult]
        attends = [resolution >> level in config.attention_resolutions for level in range(len(widths))]
        channels, branch_channels, skips = config.model_channels, in_channels, [config.model_channels]
        self.conv_in = init(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.encoder, self.residual_convs = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.encoder.append(block(channels, channels, resample=self.down))
                skips.append(channels)
                if config.residual_encoder:
                    branch = nn.Conv2d(branch_channels, channels, 3, padding=self.branch_padding)
                    self.residual_convs.append(init(branch))
                    branch_channels = channels
            for _ in range(config.blocks_per_level):
                self.encoder.append(block(channels, width, attention=attends[level]))
                channels = width
                skips.append(channels)

        self.middle = nn.ModuleList([block(channels, channels, attention=True), block(channels, channels)])
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                self.decoder.append(block(channels, channels, resample=self.up))
            for index in range(config.blocks_per_level + 1):
                here = self.attends_in_all_of_decoder or index == config.blocks_per_level
                self.decoder.append(block(channels + skips.pop(), width, attention=here and attends[level]))
                channels = width
        self.norm_out = GroupNorm(channels, eps=self.block_type.norm_eps)
        self.conv_out = init(nn.Conv2d(channels, out_channels, 3, padding=1), scale=1e-5)

    def encode_noise(self, c_noise: Tensor) -> Tensor:
        """c_noise `[N]` to `[N, noise_channels]`."""
        half = self.noise_channels // 2
        frequencies = (1 / 10000) ** (torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - 1))
        angles = c_noise.float()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def class_layer(self, embedding_channels: int) -> nn.Linear:
        return self.block_type.init(nn.Linear(self.num_classes, self.noise_channels))

    def embed(self, c_noise: Tensor, classes: Tensor, augment: Tensor) -> Tensor:
        """The embedding `[N, E]` of c_noise `[N]`, classes `[N, K]` and augmentation labels `[N, A]`."""
        x = self.encode_noise(c_noise)
        if self.embed_class is not None:
            x = x + self.embed_class(classes * math.sqrt(self.num_classes))
        if self.embed_augment is not None:
            x = x + self.embed_augment(augment)
        return F.silu(self.embed1(F.silu(self.embed0(x))))

    def shifts(self, blocks: Sequence[UNetBlock], embedding: Tensor) -> Iterator[Tensor]:
        """The embedding's projections, `[N, out]`, which blocks add after their first convolution.

        One product computes all. It includes the convolutions' biases, which saves a pass over memory.
        """
        weight = torch.cat([block.affine.weight for block in blocks])
        biases = [*(block.affine.bias for block in blocks), *(bias_of(block.conv0) for block in blocks)]
        # Joined before the sum: the sum of two joined tensors would give both gradients the same memory.
        bias = torch.cat(biases).view(2, -1).sum(dim=0)
        projected = F.linear(embedding, weight, bias)
        # From here on in float32, because every norm has its shift's gradient in that.
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        return iter(projected.split([block.affine.out_features for block in blocks], dim=1))

    def branch_down(self, x: Tensor) -> Tensor:
        """Half the resolution, after a convolution of NCSN++'s input skip."""
        return self.down(x)

    def forward(self, x: Tensor, c_noise: Tensor, keys: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """x: `[N, in, H, W]`. c_noise: `[N]`. keys: int64 `[N]`, random seeds of the samples' dropout, or None.

        labels: `[N, L]` (genvs.models.labels), or None for zeros.
        """
        if labels is None:
            labels = c_noise.new_zeros(len(c_noise), self.num_labels)
        embedding = self.embed(c_noise, labels[:, : self.num_classes], labels[:, self.num_classes :])
        blocks = cast(list[UNetBlock], [*self.encoder, *self.middle, *self.decoder])
        keys_of_blocks: Iterable[Tensor | None] = [None] * len(blocks)
        if keys is not None:
            keys_of_blocks = fold(keys, Stream.DROPOUT, torch.arange(len(blocks), device=keys.device)[:, None])
        arguments = zip(self.shifts(blocks, embedding), keys_of_blocks, strict=True)
        branch, x = x, conv_act(self.conv_in, x)
        skips, residual_convs = [x], iter(self.residual_convs)
        for layer in self.encoder:
            x = layer(x, *next(arguments))
            if layer.resample is self.down and len(self.residual_convs) > 0:
                # NCSN++'s input skip: the network's input is downsampled beside the main path and added to it.
                conv = cast(nn.Conv2d, next(residual_convs))
                down = self.branch_down(convolve(conv, branch))
                branch = x = ops.conv_epilogue(down, bias_of(conv), residual=x, scale=SKIP_SCALE)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, *next(arguments))
        for layer in self.decoder:
            x = x if layer.resample is self.up else ops.concat(x, skips.pop())
            x = layer(x, *next(arguments))
        return self.conv_out(self.norm_out(x)[0])
