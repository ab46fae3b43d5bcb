"""The channels of feature images that show the picture itself, for each modality its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genvs.config import GeNVSConfig, SceneConfig
from genvs.modalities import MODALITIES, PICTURE_CHANNELS, to_levels


@dataclass(frozen=True)
class Colours:
    """Where feature images show the picture of one modality, and its background.

    The channels `first` to `last`, exclusive, are the picture minus the background, so that a ray that hits nothing,
    which renders zeros, shows the background.

    background: levels in [-1, 1], of each channel of a picture. reserved: the channels below it are for pictures.
    """

    first: int
    last: int
    background: tuple[float, ...]
    reserved: int

    def picture(self, feature_images: Tensor) -> Tensor:
        """Feature images `[..., C, H, W]` to pictures `[..., 3, H, W]`, levels."""
        own = feature_images[..., self.first : self.last, :, :]
        return _plus(own.expand(*own.shape[:-3], PICTURE_CHANNELS, *own.shape[-2:]), self.background)

    def less_background(self, pictures: Tensor) -> Tensor:
        """Pictures `[..., 3, H, W]`, levels, minus the background: its first channels are what feature images show."""
        return _plus(pictures, [-level for level in self.background])


def colours_of(name: str, config: GeNVSConfig) -> Colours:
    """The `Colours` of a modality in a network of this config."""
    reserved = max(MODALITIES[other].features[1] for other in config.modalities)
    return Colours(*MODALITIES[name].features, background_of(name, config.scene), reserved)


def background_of(name: str, scene: SceneConfig) -> tuple[float, ...]:
    """The background of a modality's pictures, as levels."""
    background = MODALITIES[name].background
    return scene.background_levels if background is None else (to_levels(background),) * PICTURE_CHANNELS


def as_stored(pictures: Tensor, modality: str) -> Tensor:
    """Drawn pictures `[..., 3, H, W]`, with equal channels if files of the modality are gray."""
    if MODALITIES[modality].channels == PICTURE_CHANNELS:
        return pictures
    return pictures.mean(dim=-3, keepdim=True).expand_as(pictures)


def _plus(pictures: Tensor, levels: Sequence[float]) -> Tensor:
    """Pictures `[..., 3, H, W]` plus a level for each channel. Needs no tensor on the device for it."""
    if len(set(levels)) == 1:
        return pictures + levels[0]
    return torch.cat([part + level for part, level in zip(pictures.split(1, dim=-3), levels, strict=True)], dim=-3)
