"""Rays through pixel centres, and sample depths along them.

Ray directions have camera-z 1, so the ray parameter is the depth, and the metric length of an interval is its extent in
depth times the direction's norm.
"""

import torch
from torch import Tensor

from genvs.geometry.cameras import Cameras, directions_through


def pixel_centers(height: int, width: int, *, device=None, dtype=torch.float32) -> Tensor:
    """Normalised coordinates uv `[height, width, 2]` of all pixel centres: (i + 0.5) / size."""
    v = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    u = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def generate_rays(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The ray through the centre of each pixel.

    cameras: `[...]`. Returns ray_origins and ray_directions, each `[..., height, width, 3]`, world. Directions have
    camera-z 1, so that origin + depth * direction has that depth.
    """
    uv = pixel_centers(height, width, device=cameras.device, dtype=cameras.c2w.dtype)
    directions = directions_through(uv.flatten(0, 1), cameras).unflatten(-2, (height, width))
    return cameras.centers[..., None, None, :].expand_as(directions), directions


def stratified_depths(near: Tensor, far: Tensor, num_samples: int, jitter: Tensor | None = None) -> Tensor:
    """One depth in each of `num_samples` equal bins between the planes (NeRF, arXiv 2003.08934, eq. 2).

    near, far: `[...]`, world units. jitter: in [0, 1), broadcastable to `[..., num_samples]`, the position within each
    bin; None for the middle. Returns depths `[..., num_samples]`, increasing.
    """
    bins = torch.arange(num_samples, device=near.device, dtype=near.dtype)
    offset = 0.5 if jitter is None else jitter
    return near[..., None] + (far - near)[..., None] * ((bins + offset) / num_samples)


def interval_lengths(depths: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """The extent in depth of each sample's interval. Intervals meet halfway between samples and end at the planes.

    depths: `[..., S]`, increasing; near, far: `[...]`. Returns `[..., S]`, world units, summing to far - near.
    """
    middles = (depths[..., 1:] + depths[..., :-1]) / 2
    near, far = (plane[..., None].expand_as(depths[..., :1]) for plane in (near, far))
    return torch.cat([near, middles, far], dim=-1).diff(dim=-1)
