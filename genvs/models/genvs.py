"""GeNVS (Chan et al., arXiv 2304.02602): encode input views, render features at a target, denoise the target view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.config import GeNVSConfig
from genvs.geometry import Cameras
from genvs.models.denoiser import ConditionedDenoiser
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.models.renderer import FeatureRenderer


class GeNVS(nn.Module):
    """The whole model, composed of an encoder, a renderer and a denoiser. Keeps no state between calls."""

    def __init__(self, config: GeNVSConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.encoder.volume_channels
        self.encoder = FeatureVolumeEncoder(config.encoder, config.resolution)
        self.renderer = FeatureRenderer(config.renderer, channels, config.view_weighting)
        self.denoiser = ConditionedDenoiser(config.denoiser, config.resolution, channels)

    def place_on(self, device: torch.device | str) -> GeNVS:
        """Move to `device`, laid out in memory as its convolutions want it there. Returns itself."""
        # Matrix units read channels last. On CPUs it gains little, and torch 2.13's backward then damages its heap.
        if torch.device(device).type == "cuda":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.to(device)

    def encode(self, images: Tensor) -> Tensor:
        """Input images `[B, V, 3, H, W]` in [-1, 1] to feature volumes `[B, V, C, D, h, w]`."""
        return self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def render(self, feature_volume: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor | None = None) -> Tensor:
        """Feature images `[B, T, C, H, W]` at `targets` `[B, T]`, from the volumes `[B, V, ...]` of `inputs` `[B, V]`.

        keys: int64 `[B, T]`, to jitter ray samples in training; None for inference.
        """
        size = self.config.resolution
        low = self.renderer(feature_volume, inputs, targets, keys)
        feature_image = F.interpolate(low.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
        return feature_image.unflatten(0, targets.shape)

    def denoise(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor, keys: Tensor | None = None) -> Tensor:
        """The expected image: noisy `[N, 3, H, W]`, sigma a scalar or `[N, 1, 1, 1]`, feature_image `[N, C, H, W]`.

        keys: int64 `[N]`, for dropout in training; None for inference.
        """
        return self.denoiser(noisy, sigma, feature_image, keys)

    def forward(
        self,
        input_images: Tensor,
        inputs: Cameras,
        targets: Cameras,
        noisy: Tensor,
        sigma: Tensor,
        keep_conditioning: Tensor,
        keys: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All that a training step needs, in one call (what DDP synchronises).

        input_images: `[B, V, 3, H, W]`; noisy: `[B, T, 3, H, W]`; sigma: `[B, T, 1, 1, 1]`.
        keep_conditioning: bool `[B, T]`; elsewhere the denoiser sees zeros and learns to do without.
        keys: int64 `[B, T]`. Returns denoised `[B, T, 3, H, W]` and feature_image `[B, T, C, H, W]`.
        """
        feature_image = self.render(self.encode(input_images), inputs, targets, keys)
        return self.denoise_targets(feature_image, noisy, sigma, keep_conditioning, keys), feature_image

    def denoise_targets(
        self, feature_image: Tensor, noisy: Tensor, sigma: Tensor, keep_conditioning: Tensor, keys: Tensor
    ) -> Tensor:
        """The last part of `forward`, with its arguments: all targets denoised, `[B, T, 3, H, W]`."""
        conditioning = feature_image.masked_fill(~keep_conditioning[..., None, None, None], 0.0)
        denoised = self.denoise(noisy.flatten(0, 1), sigma.flatten(0, 1), conditioning.flatten(0, 1), keys.flatten())
        return denoised.unflatten(0, noisy.shape[:2])
