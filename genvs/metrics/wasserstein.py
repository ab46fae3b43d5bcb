"""The sliced Wasserstein distance between sets of images, scale by scale: Karras et al., arXiv 1710.10196, section 5.

The patches of one size at each level of a Laplacian pyramid (Burt and Adelson, 1983) are compared as distributions, so
the finest level tells of details and noise, the coarsest of large shapes. No network is needed.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 7  # of a patch
COARSEST = 16  # pixels a side of the last level; up to 31 where the side of images is not a power of two
PROJECTIONS, CHUNK = 512, 64


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Images `[N, C, H, W]` as details, finest first, and the remaining small images: a list of `[N, C, h, w]`."""
    levels = []
    while min(images.shape[-2:]) >= 2 * COARSEST:
        small = _smooth(images)[..., ::2, ::2]
        enlarged = torch.zeros_like(images)
        enlarged[..., ::2, ::2] = 4 * small
        levels.append(images - _smooth(enlarged))
        images = small
    return [*levels, images]


def _smooth(images: Tensor) -> Tensor:
    channels, binomial = images.shape[1], images.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (binomial[:, None] * binomial).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def random_patches(images: Tensor, count: int) -> Tensor:
    """`count` patches of each level of each image: `[N, C, H, W]` to `[N, levels, count, C, SIDE * SIDE]`.

    The places are random, but the same in every call for equal shapes: so equal sets have the distance 0.
    """
    generator, found = torch.Generator().manual_seed(0), []
    number = torch.arange(len(images), device=images.device)[:, None]
    for level in laplacian_pyramid(images):
        windows = level.unfold(2, SIDE, 1).unfold(3, SIDE, 1)
        row, column = (
            torch.randint(places, (len(images), count), generator=generator).to(images.device)
            for places in windows.shape[2:4]
        )
        found.append(windows[number, :, row, column].flatten(3))
    return torch.stack(found, dim=1)


def sliced_wasserstein(real: Tensor, drawn: Tensor) -> Tensor:
    """The distance of two sets of patches at each level, finest first: `[levels]`.

    real: `[N, levels, count, C, SIDE * SIDE]`, drawn: `[k * N, ...]`, of `random_patches`, for a whole number k; both
    on the CPU.

    Every set's channels are first brought to mean 0 and standard deviation 1. The Wasserstein-1 distance in one
    dimension is the mean difference of sorted values; it is averaged over projections on PROJECTIONS random directions
    (Rabin et al., 2011), which are always the same. The paper's tables give a thousand times these values.
    """
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(PROJECTIONS, real[0, 0, 0].numel(), generator=generator))
    distances = []
    for level in range(real.shape[1]):
        a, b = (_normalized(patches[:, level]) for patches in (real, drawn))
        chunks = []
        for some in directions.split(CHUNK):
            sorted_a, sorted_b = (np.sort((some @ patches.T).numpy()) for patches in (a, b))  # far faster than torch's
            chunks.append(np.abs(sorted_a.repeat(len(b) // len(a), axis=1) - sorted_b).mean(dtype=np.float64))
        distances.append(np.mean(chunks))
    return torch.tensor(distances)


def _normalized(patches: Tensor) -> Tensor:
    """`[N, count, C, SIDE * SIDE]` to `[N * count, C * SIDE * SIDE]`."""
    std, mean = torch.std_mean(patches, dim=(0, 1, 3), keepdim=True)
    return ((patches - mean) / std.clamp_min(1e-4)).flatten(2).flatten(0, 1)
