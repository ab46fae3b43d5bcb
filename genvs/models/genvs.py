"""GeNVS (Chan et al., arXiv 2304.02602): encode input views, render features at a target, denoise the target view."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genvs.config import AUGMENT_LABELS, GeNVSConfig, parse_view_weighting
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models.denoiser import ConditionedDenoiser
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.models.labels import augmented
from genvs.models.renderer import FeatureRenderer
from genvs.models.view_weighting import make_view_weighting


class GeNVS(nn.Module):
    """The whole model, composed of an encoder, a renderer and a denoiser. Keeps no state between calls."""

    def __init__(
        self,
        config: GeNVSConfig,
        encoder: type[FeatureVolumeEncoder] = FeatureVolumeEncoder,
        renderer: type[FeatureRenderer] = FeatureRenderer,
        denoiser: type[ConditionedDenoiser] = ConditionedDenoiser,
    ) -> None:
        """Random weights. Raises InputError for a config that cannot be built."""
        super().__init__()
        self.config = config
        self.notes: dict[str, Any] = {}  # of its snapshot, such as cur_nimg (genvs.snapshot)
        channels = config.encoder.volume_channels
        background = config.scene.background_levels
        self.encoder = encoder(config.encoder, config.resolution, background)
        self.renderer = renderer(config.renderer, channels, config.view_weighting)
        self.denoiser = denoiser(config.denoiser, config.resolution, channels, config.scene.num_classes, background)

    def to_device(self, device: torch.device | str) -> GeNVS:
        """Move to `device`, in the memory format that is fastest there. Returns itself."""
        # Tensor cores read channels last. On CPUs it gains little, and torch 2.13's backward then corrupts the heap.
        if torch.device(device).type == "cuda":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.to(device)

    def set_view_weighting(self, name: str) -> None:
        """Weight input views by another method than the network was trained with (`genvs.models.view_weighting`).

        Raises InputError for an unknown name, and for a method with learned weights, which the network does not have.
        """
        if parse_view_weighting(name) == parse_view_weighting(self.config.view_weighting):
            return
        weighting = make_view_weighting(name)
        if isinstance(weighting, nn.Module):
            raise InputError(
                f"view weighting {name!r} has weights, and the network was trained with "
                f"{self.config.view_weighting!r}: choose that, or one without weights"
            )
        del self.renderer.view_weights  # a module cannot be replaced by a function
        self.renderer.view_weights = weighting
        self.config = dataclasses.replace(self.config, view_weighting=name)

    def encode(self, images: Tensor) -> Tensor:
        """Input images `[B, V, 3, H, W]` in [-1, 1] to feature volumes `[B, V, C, D, h, w]`."""
        return self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def render(self, feature_volume: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor | None = None) -> Tensor:
        """Feature images `[B, T, C, H, W]` at `targets` `[B, T]`, from the volumes `[B, V, ...]` of `inputs` `[B, V]`.

        keys: int64 `[B, T]`, random seeds to jitter ray samples in training; None for inference.
        """
        low = self.renderer(feature_volume, inputs, targets, keys)
        return self.enlarge(low.flatten(0, 1)).unflatten(0, targets.shape)

    def enlarge(self, feature_image: Tensor) -> Tensor:
        """Rendered feature images `[N, C, h, w]`, upsampled to the model's resolution."""
        size = (self.config.resolution, self.config.resolution)
        return F.interpolate(feature_image, size=size, mode="bilinear", align_corners=False)

    def without_conditioning(self, feature_image: Tensor, keys: Tensor) -> Tensor:
        """The denoiser's input in place of feature images `[..., C, H, W]` where conditioning is dropped: zeros.

        keys: int64 `[...]`, random seeds; the unofficial numerics use noise instead of zeros.
        """
        return torch.zeros_like(feature_image)

    def denoise(
        self,
        noisy: Tensor,
        sigma: Tensor,
        feature_image: Tensor,
        keys: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The expected images `[N, 3, H, W]`, float32, given noisy ones.

        noisy: `[N, 3, H, W]`. sigma: a scalar or `[N, 1, 1, 1]`. feature_image: `[N, C, H, W]`. keys: int64 `[N]`,
        random seeds of dropout in training; None for inference. labels: `[N, L]`, of the images' classes and
        augmentation (genvs.models.labels); None for zeros.
        """
        return self.denoiser(noisy, sigma, feature_image, keys, labels)

    def forward(
        self,
        input_images: Tensor,
        inputs: Cameras,
        targets: Cameras,
        noisy: Tensor,
        sigma: Tensor,
        keep_conditioning: Tensor,
        keys: Tensor,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The whole network in a training step, in one call, as DDP needs it.

        input_images: `[B, V, 3, H, W]`. noisy: `[B, T, 3, H, W]`. sigma: `[B, T, 1, 1, 1]`. keep_conditioning: bool
        `[B, T]`; where it is False the denoiser sees `without_conditioning`. keys: int64 `[B, T]`, random seeds of
        jitter and dropout. labels: `[B, T, L]` of the targets, or None for a network without labels.
        Returns denoised `[B, T, 3, H, W]` and feature_image `[B, T, C, H, W]`. Feature images are augmented like their
        targets for the denoiser, but not in the result.
        """
        feature_image = self.render(self.encode(input_images), inputs, targets, keys)
        return self.denoise_targets(feature_image, noisy, sigma, keep_conditioning, keys, labels), feature_image

    def denoise_targets(
        self,
        feature_image: Tensor,
        noisy: Tensor,
        sigma: Tensor,
        keep_conditioning: Tensor,
        keys: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The second half of `forward`, with its arguments: the denoised targets `[B, T, 3, H, W]`."""
        without = self.without_conditioning(feature_image, keys)
        conditioning = torch.where(keep_conditioning[..., None, None, None], feature_image, without).flatten(0, 1)
        labels = None if labels is None else labels.flatten(0, 1)
        if labels is not None and self.config.denoiser.augment_labels:
            conditioning = augmented(conditioning, labels[:, -AUGMENT_LABELS:])
        denoised = self.denoise(noisy.flatten(0, 1), sigma.flatten(0, 1), conditioning, keys.flatten(), labels)
        return denoised.unflatten(0, noisy.shape[:2])
