"""Feature volumes -> feature image at a target camera: pixel-aligned sampling, view fusion, field MLP, compositing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.config import RendererConfig
from genvs.geometry import Cameras, generate_rays, interval_lengths, project, stratified_depths
from genvs.models.layers import he_init
from genvs.models.view_weighting import VIEW_WEIGHTINGS
from genvs.ops import composite, sample_depths_by_weight, sample_volume
from torch_utils import stateless_random

JITTER_STREAM, IMPORTANCE_STREAM = 1, 2


class Field(nn.Module):
    """Fused features -> density and features, as in pixelNeRF (arXiv 2012.02190): C -> hidden -> hidden -> 1 + C."""

    # At birth density is 10 * softplus(-2.5) = 0.8 per world unit: about half of the light of a unit-deep scene is
    # absorbed, so that gradients reach every sample, and nothing can be born dead as behind a ReLU.
    DENSITY_SCALE, DENSITY_SHIFT = 10.0, -2.5

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            he_init(nn.Linear(channels, hidden_channels)),
            nn.ReLU(inplace=True),
            he_init(nn.Linear(hidden_channels, hidden_channels)),
            nn.ReLU(inplace=True),
            he_init(nn.Linear(hidden_channels, 1 + channels), gain=0.1),
        )

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """fused: `[..., C]`. Returns density `[...]`, per world unit, and features `[..., C]`."""
        raw = self.layers(fused).float()
        density = self.DENSITY_SCALE * F.softplus(raw[..., 0] + self.DENSITY_SHIFT)
        return density, fused + raw[..., 1:]


class FeatureRenderer(nn.Module):
    """Volume-renders the input views' feature volumes at target cameras."""

    def __init__(self, config: RendererConfig, channels: int, view_weighting: str) -> None:
        super().__init__()
        self.config = config
        self.field = Field(channels, config.hidden_channels)
        self.view_weights = VIEW_WEIGHTINGS[view_weighting]

    def forward(self, feature_volume: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor | None = None) -> Tensor:
        """Render `[B, T, C, render_width, render_width]`.

        feature_volume: `[B, V, C, D, H, W]`, the frusta of `inputs` `[B, V]`. targets: `[B, T]`.
        keys: int64 `[B, T]`, to jitter the samples along each ray in training; None puts them in the middle.
        """
        width, config = self.config.render_width, self.config
        origins, directions = (rays.flatten(2, 3) for rays in generate_rays(targets, width, width))
        near, far = (plane[..., None].expand(*targets.shape, width * width) for plane in (targets.near, targets.far))
        weights = self.view_weights(inputs, targets)

        def field_at(depths: Tensor) -> tuple[Tensor, Tensor]:
            points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
            return self.field(fuse_views(feature_volume, points, inputs, weights))

        def random(stream: int, count: int) -> Tensor | None:
            shape = (width * width, count)
            return None if keys is None else stateless_random.uniform(stateless_random.fold(keys, stream), shape)

        depths = stratified_depths(near, far, config.num_samples, random(JITTER_STREAM, config.num_samples))
        metric = directions.norm(dim=-1, keepdim=True)
        if config.importance_samples:
            with torch.no_grad():
                intervals = interval_lengths(depths, near, far)
                density, features = field_at(depths)
                _, coarse_weights, _ = composite(density, features, intervals * metric)
                edges = torch.cat([near[..., None], near[..., None] + intervals.cumsum(dim=-1)], dim=-1)
                quantiles = stratified_depths(
                    torch.zeros_like(near),
                    torch.ones_like(near),
                    config.importance_samples,
                    random(IMPORTANCE_STREAM, config.importance_samples),
                )
                finer = sample_depths_by_weight(edges, coarse_weights, quantiles)
            depths = torch.cat([depths, finer], dim=-1).sort(dim=-1).values
        density, features = field_at(depths)
        rendered, _, _ = composite(density, features, interval_lengths(depths, near, far) * metric)
        return rendered.mT.unflatten(-1, (width, width))


def fuse_views(feature_volume: Tensor, points: Tensor, inputs: Cameras, weights: Tensor) -> Tensor:
    """Features of world points: the weighted mean of what the input views that see each point say of it.

    feature_volume: `[B, V, C, D, H, W]`. points: `[B, T, R, S, 3]`, world. inputs: `[B, V]`. weights: `[B, T, V]`.
    Returns `[B, T, R, S, C]`; 0 where no input view sees the point.
    """
    batch, num_targets, num_rays, num_samples, _ = points.shape
    num_inputs, channels = feature_volume.shape[1:3]
    flat = points.flatten(1, 3)[:, None].expand(-1, num_inputs, -1, -1)
    uv, depth = project(flat, inputs)
    w = (depth - inputs.near[..., None]) / (inputs.far - inputs.near)[..., None]
    uvw = torch.cat([uv, w[..., None]], dim=-1)
    valid = ((uvw >= 0) & (uvw <= 1)).all(dim=-1) & (depth > 0)
    sampled = sample_volume(feature_volume.flatten(0, 1), uvw.flatten(0, 1)).unflatten(0, (batch, num_inputs))
    share = weights.mT[..., None].expand(-1, -1, -1, num_rays * num_samples).flatten(2) * valid
    share = share / share.sum(dim=1, keepdim=True).clamp_min(1e-6)
    fused = torch.einsum("bvcp,bvp->bpc", sampled, share.to(sampled.dtype))
    return fused.reshape(batch, num_targets, num_rays, num_samples, channels)
