"""Feature volumes -> feature image at a target camera: pixel-aligned sampling, view fusion, field MLP, compositing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genvs import random as stateless_random
from genvs.config import RendererConfig
from genvs.geometry import Cameras, frustum_matrix, generate_rays, interval_lengths, stratified_depths
from genvs.models.layers import he_init
from genvs.models.view_weighting import make_view_weighting
from genvs.ops import FieldLayers, composite, evaluate_field, fuse_views, render, sample_depths_by_weight

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

    def tensors(self) -> FieldLayers:
        """What `genvs.ops` evaluates."""
        return FieldLayers(tuple(self.layers.parameters()), self.DENSITY_SCALE, self.DENSITY_SHIFT)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """fused: `[..., C]`. Returns density `[...]`, per world unit, and features `[..., C]`."""
        return evaluate_field(fused, self.tensors())


class FeatureRenderer(nn.Module):
    """Volume-renders the input views' feature volumes at target cameras."""

    def __init__(self, config: RendererConfig, channels: int, view_weighting: str) -> None:
        super().__init__()
        self.config = config
        self.field = Field(channels, config.hidden_channels)
        self.view_weights = make_view_weighting(view_weighting)

    def forward(self, feature_volume: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor | None = None) -> Tensor:
        """Render `[B, T, C, render_width, render_width]`.

        feature_volume: `[B, V, C, D, H, W]`, the frusta of `inputs` `[B, V]`. targets: `[B, T]`.
        keys: int64 `[B, T]`, to jitter the samples along each ray in training; None puts them in the middle.
        """
        width, config = self.config.render_width, self.config
        origins, directions = (rays.flatten(2, 3) for rays in generate_rays(targets, width, width))
        near, far = (plane[..., None].expand(*targets.shape, width * width) for plane in (targets.near, targets.far))
        weights, frusta = self.view_weights(inputs, targets), frustum_matrix(inputs)

        def random(stream: int, count: int) -> Tensor | None:
            shape = (width * width, count)
            return None if keys is None else stateless_random.uniform(stateless_random.fold(keys, stream), shape)

        depths = stratified_depths(near, far, config.num_samples, random(JITTER_STREAM, config.num_samples))
        metric = directions.norm(dim=-1, keepdim=True)
        if config.importance_samples:
            with torch.no_grad():
                intervals = interval_lengths(depths, near, far)
                points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
                density, features = self.field(fuse_views(feature_volume, points, frusta, weights))
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
        lengths = interval_lengths(depths, near, far) * metric
        rendered = render(feature_volume, frusta, weights, origins, directions, depths, lengths, self.field.tensors())
        return rendered.mT.unflatten(-1, (width, width))
