"""Plain torch: the definition of correct, on any device and in any dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_volume(volume: Tensor, uvw: Tensor) -> Tensor:
    """Trilinear samples of feature volumes.

    volume: `[N, C, D, H, W]`; the centre of voxel (d, h, w) lies at w=(d+.5)/D, v=(h+.5)/H, u=(w+.5)/W.
    uvw: `[N, P, 3]`, normalised; positions beyond the outermost centres take the border's value.
    Returns `[N, C, P]`.
    """
    grid = (2 * uvw - 1)[:, :, None, None, :]
    sampled = F.grid_sample(volume, grid.to(volume.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.flatten(2)


def composite(density: Tensor, features: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Volume rendering (NeRF, arXiv 2003.08934, eq. 3), with a transmittance that excludes the own sample.

    density: `[..., S]`, per world unit. features: `[..., S, C]`. deltas: `[..., S]`, world units.
    Returns the rendered features `[..., C]`, weights `[..., S]` and the final transmittance `[...]`;
    weights and final transmittance sum to 1.
    """
    optical_depth = density * deltas
    # Shifted, not subtracted: cumsum - own cancels catastrophically behind an opaque sample.
    before = F.pad(optical_depth.cumsum(dim=-1), (1, 0))
    transmittance = torch.exp(-before)
    weights = -torch.expm1(-optical_depth) * transmittance[..., :-1]
    return (weights[..., None] * features).sum(dim=-2), weights, transmittance[..., -1]


def sample_depths_by_weight(edges: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Depths drawn where the weights are: the inverse of their piecewise linear distribution (NeRF, section 5.2).

    edges: `[..., S + 1]`, increasing. weights: `[..., S]`, >= 0. quantiles: `[..., K]` in [0, 1).
    Returns depths `[..., K]`; increasing where the quantiles are.
    """
    # A floor under the weights keeps an empty ray samplable; it is far below any weight that matters.
    density = weights + 1e-5
    cdf = F.pad((density / density.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0)).contiguous()
    upper = torch.searchsorted(cdf, quantiles.contiguous(), right=True).clamp(1, weights.shape[-1])
    cdf_low, cdf_high = cdf.gather(-1, upper - 1), cdf.gather(-1, upper)
    edge_low, edge_high = edges.gather(-1, upper - 1), edges.gather(-1, upper)
    share = ((quantiles - cdf_low) / (cdf_high - cdf_low)).clamp(0, 1)
    return edge_low + share * (edge_high - edge_low)
