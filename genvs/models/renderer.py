"""Feature volumes to a feature image at a target camera: sampling, view fusion, field MLP, compositing."""

from __future__ import annotations

from torch import Tensor, nn

from genvs.config import RendererConfig
from genvs.geometry import Cameras, frustum_matrix, generate_rays, interval_lengths, stratified_depths
from genvs.models.layers import he_init
from genvs.models.view_weighting import make_view_weighting
from genvs.ops import FieldLayers, RaySamples, render
from genvs.random import Stream, fold, uniform


class Field(nn.Module):
    """The MLP from fused features to density and features, C -> hidden -> hidden -> 1 + C (pixelNeRF, 2012.02190)."""

    # The initial density is 10 * softplus(-2.5) = 0.8 per world unit: a scene of unit depth absorbs about half of the
    # light, so that gradients reach every sample. Behind a ReLU a field could start without any.
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
        """The layers as `genvs.ops.render` takes them."""
        return FieldLayers(tuple(self.layers.parameters()), self.DENSITY_SCALE, self.DENSITY_SHIFT)


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
        keys: int64 `[B, T]`, random seeds to jitter the samples along each ray in training; None for no jitter.
        """
        width, num_samples = self.config.render_width, self.config.num_samples
        origins, directions = (rays.flatten(2, 3) for rays in generate_rays(targets, width, width))
        near, far = (plane[..., None].expand(*targets.shape, width * width) for plane in (targets.near, targets.far))
        weights, frusta = self.view_weights(inputs, targets), frustum_matrix(inputs)
        jitter = None if keys is None else uniform(fold(keys, Stream.JITTER), (width * width, num_samples))
        depths = stratified_depths(near, far, num_samples, jitter)
        lengths = interval_lengths(depths, near, far) * directions.norm(dim=-1, keepdim=True)
        rays = RaySamples(origins, directions, depths, lengths)
        rendered = render(feature_volume, frusta, weights, rays, self.field.tensors())
        return rendered.mT.unflatten(-1, (width, width))
