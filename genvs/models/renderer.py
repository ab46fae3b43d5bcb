"""Feature volumes to a feature image at a target camera: sampling, view fusion, field MLP, compositing."""

import torch
from torch import Tensor, nn

from genvs.config import RendererConfig
from genvs.geometry import Cameras, interval_lengths, stratified_depths
from genvs.geometry.projections import PROJECTIONS
from genvs.modalities import MODALITIES, depth_coded, to_levels
from genvs.models.layers import he_init
from genvs.models.view_weighting import make_view_weighting
from genvs.ops import FieldLayers, Known, RaySamples, render
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
    """Volume-renders the input views' feature volumes at target cameras.

    shows_geometry: the first two channels are each ray's opacity and expected depth, not the field's (for viewers).
    """

    shows_geometry = False

    def __init__(
        self, config: RendererConfig, channels: int, view_weighting: str, modalities: tuple[str, ...] = ("rgb",)
    ) -> None:
        super().__init__()
        self.config = config
        self.modalities = [MODALITIES[name] for name in modalities]
        self.field = Field(channels, config.hidden_channels)
        self.view_weights = make_view_weighting(view_weighting)

    def forward(
        self,
        feature_volume: Tensor,
        inputs: Cameras,
        targets: Cameras,
        keys: Tensor | None = None,
        modality: str = "rgb",
    ) -> Tensor:
        """Render `[B, T, C, render_width, render_width]`.

        feature_volume: `[B, V, C, D, H, W]`, in the charts of `inputs` `[B, V]`. targets: `[B, T]`, all of `modality`.
        keys: int64 `[B, T]`, random seeds to jitter the samples along each ray in training; None for no jitter.
        """
        width, projection = self.config.render_width, PROJECTIONS[MODALITIES[modality].projection]
        # A picture that keeps the range has a row for each sample.
        num_samples = width if projection.keeps_range else self.config.num_samples
        origins, directions = projection.rays(targets, width)
        near, far = (plane[..., None].expand(*targets.shape, width * width) for plane in (targets.near, targets.far))
        jitter = None if keys is None else uniform(fold(keys, Stream.JITTER), (width * width, num_samples))
        depths = stratified_depths(near, far, num_samples, jitter)
        lengths = interval_lengths(depths, near, far) * directions.norm(dim=-1, keepdim=True)
        rendered = render(
            feature_volume,
            self.charts(inputs),
            self.view_weights(inputs, targets),
            RaySamples(origins, directions, depths, lengths),
            self.field.tensors(),
            elevations=width if projection.keeps_range else None,
            known=self.known(depths, near, far, modality),
        )
        if projection.keeps_range:  # [B, T, azimuth, sample, C], and the far end is the top row
            return rendered.flip(3).permute(0, 1, 4, 3, 2)
        return rendered.mT.unflatten(-1, (width, width))

    def charts(self, inputs: Cameras) -> Tensor:
        """The matrices `[B, V, 4, 4]` that map world points into the volumes of `inputs` `[B, V]`."""
        first, *others = self.modalities
        matrices = PROJECTIONS[first.projection].matrix(inputs)
        for other in others:
            matrix = PROJECTIONS[other.projection].matrix(inputs)
            matrices = torch.where((inputs.modality == other.index)[..., None, None], matrix, matrices)
        return matrices

    def known(self, depths: Tensor, near: Tensor, far: Tensor, modality: str) -> Known | None:
        """The channels whose values follow from the samples' depths. depths: `[..., S]`. near, far: `[...]`."""
        if modality != "depth" and not self.shows_geometry:
            return None
        # What a depth picture shows, less its background: a ray then renders the expected depth.
        value = to_levels(depth_coded(depths, near[..., None], far[..., None])) - to_levels(0)
        if self.shows_geometry:
            return Known(0, torch.stack([torch.ones_like(value), value], dim=-1))
        return Known(MODALITIES["depth"].features[0], value[..., None])
