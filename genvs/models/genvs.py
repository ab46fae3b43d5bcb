"""GeNVS (Chan et al., arXiv 2304.02602): encode input views, render features at a target, denoise the target view."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genvs.config import AUGMENT_LABELS, GeNVSConfig, parse_view_weighting
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.projections import PROJECTIONS
from genvs.modalities import MODALITIES
from genvs.models.colours import colours_of
from genvs.models.denoiser import ConditionedDenoiser
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.models.labels import augmented
from genvs.models.renderer import FeatureRenderer
from genvs.models.view_weighting import make_view_weighting
from genvs.ops import resample_volume


class GeNVS(nn.Module):
    """The whole model: an encoder and a denoiser for each modality, and one renderer. Keeps no state between calls.

    Targets that are drawn together are of one `modality`, by name; by default the config's first.
    """

    encoder_type, renderer_type, denoiser_type = FeatureVolumeEncoder, FeatureRenderer, ConditionedDenoiser

    def __init__(self, config: GeNVSConfig) -> None:
        """Random weights. Raises InputError for a config that cannot be built."""
        super().__init__()
        self.config = config
        self.notes: dict[str, Any] = {}  # of its snapshot, such as cur_nimg (genvs.snapshot)
        size, channels, num_classes = config.resolution, config.encoder.volume_channels, config.scene.num_classes
        colours = {name: colours_of(name, config) for name in config.modalities}
        self.encoders = nn.ModuleDict(
            {name: self.encoder_type(config.encoder, size, colours[name]) for name in colours}
        )
        self.renderer = self.renderer_type(config.renderer, channels, config.view_weighting, config.modalities)
        self.denoisers = nn.ModuleDict(
            {name: self.denoiser_type(config.denoiser, size, channels, num_classes, colours[name]) for name in colours}
        )
        self.register_load_state_dict_pre_hook(name_modality)

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

    def set_sizes(self, config: GeNVSConfig) -> None:
        """Draw at another resolution, with the same weights. config: this network's with that resolution."""
        self.config, self.renderer.config = config, config.renderer
        for encoder in self.encoders.values():
            cast(FeatureVolumeEncoder, encoder).aspp.set_rates(config.encoder.aspp_rates)

    def encode(self, images: Tensor, cameras: Cameras | None = None) -> Tensor:
        """Input views to feature volumes `[B, V, C, D, h, w]`, each by the encoder of its own modality.

        images: `[B, V, 3, H, W]` in [-1, 1]. cameras: `[B, V]`; a network for photos alone does not need them.
        """
        counts: list[int] = []  # not needed for one modality
        if len(self.config.modalities) > 1:
            assert cameras is not None
            of_all = cameras.modality.flatten().bincount(minlength=len(MODALITIES)).tolist()
            counts = [of_all[MODALITIES[name].index] for name in self.config.modalities]
        return self._encode(images, cameras, counts, parts=1)[0]

    def encode_evenly(self, images: Tensor, cameras: Cameras) -> list[Tensor]:
        """`encode`, with the scenes in as many parts as there are modalities, `[B / M, V, C, D, h, w]` each.

        Each modality must have equally many of the B * V images, so that the host does not have to ask the device.
        """
        parts = len(self.config.modalities)
        return self._encode(images, cameras, [images.shape[:2].numel() // parts] * parts, parts)

    def _encode(self, images: Tensor, cameras: Cameras | None, counts: list[int], parts: int) -> list[Tensor]:
        """counts: of the images of each modality. parts: into how many the scenes are divided."""
        shape, names = images.shape[:2], self.config.modalities
        images = images.flatten(0, 1)
        cameras = None if cameras is None else cameras.map(lambda part: part.flatten(0, 1))
        if cameras is None or len(names) == 1:
            return [self.encode_as(names[0], images, cameras).unflatten(0, shape)]
        order = cameras.modality.argsort(stable=True)
        volumes = [
            self.encode_as(name, images[rows], cameras[rows]).permute(0, 3, 4, 2, 1)  # as they lie in memory
            for name, rows in zip(names, order.split(counts), strict=True)
            if len(rows)
        ]
        reordered = Reorder.apply(order, parts, *volumes)
        return [part.permute(0, 4, 3, 1, 2).unflatten(0, (-1, shape[1])) for part in reordered]

    def encode_as(self, modality: str, images: Tensor, cameras: Cameras | None) -> Tensor:
        """Images `[N, 3, H, W]` of one modality and their cameras `[N]` to feature volumes `[N, C, D, h, w]`."""
        volumes = self.encoders[modality](images)
        projection = PROJECTIONS[MODALITIES[modality].projection]
        places = None if cameras is None else projection.places(cameras, volumes.shape[2:])
        return volumes if places is None else resample_volume(volumes, places)

    def render(
        self,
        feature_volume: Tensor,
        inputs: Cameras,
        targets: Cameras,
        keys: Tensor | None = None,
        modality: str | None = None,
    ) -> Tensor:
        """Feature images `[B, T, C, H, W]` at `targets` `[B, T]`, from the volumes `[B, V, ...]` of `inputs` `[B, V]`.

        keys: int64 `[B, T]`, random seeds to jitter ray samples in training; None for inference.
        """
        low = self.renderer(feature_volume, inputs, targets, keys, modality or self.config.modalities[0])
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
        modality: str | None = None,
    ) -> Tensor:
        """The expected images `[N, 3, H, W]`, float32, given noisy ones.

        noisy: `[N, 3, H, W]`. sigma: a scalar or `[N, 1, 1, 1]`. feature_image: `[N, C, H, W]`. keys: int64 `[N]`,
        random seeds of dropout in training; None for inference. labels: `[N, L]`, of the images' classes and
        augmentation (genvs.models.labels); None for zeros.
        """
        return self.denoisers[modality or self.config.modalities[0]](noisy, sigma, feature_image, keys, labels)

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
        """The whole network in a training step, in one call.

        input_images: `[B, V, 3, H, W]`. noisy: `[B, T, 3, H, W]`. sigma: `[B, T, 1, 1, 1]`. keep_conditioning: bool
        `[B, T]`; where it is False the denoiser sees `without_conditioning`. keys: int64 `[B, T]`, random seeds of
        jitter and dropout. labels: `[B, T, L]` of the targets, or None for a network without labels.
        Each modality has equally many inputs. The scenes' targets are of the modalities in turn: the first B / M scenes
        have targets of the first one, and so on (`training.data.batch_schedule`).
        Returns denoised `[B, T, 3, H, W]` and feature_image `[B, T, C, H, W]`. Feature images are augmented like their
        targets for the denoiser, but not in the result.
        """
        feature_image = self.render_targets(input_images, inputs, targets, keys)
        return self.denoise_targets(feature_image, noisy, sigma, keep_conditioning, keys, labels), feature_image

    def render_targets(self, input_images: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor) -> Tensor:
        """The first half of `forward`, with its arguments: the feature images `[B, T, C, H, W]`."""
        volumes = self.encode_evenly(input_images, inputs)
        given = map(self._own, (inputs, targets, keys))
        parts = list(map(self.render, volumes, *given, self.config.modalities))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

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
        of_images = None if labels is None else labels.flatten(0, 1)
        if of_images is not None and self.config.denoiser.augment_labels:
            conditioning = augmented(conditioning, of_images[:, -AUGMENT_LABELS:])
        given = map(self._own, (noisy.flatten(0, 1), sigma.flatten(0, 1), conditioning, keys.flatten(0, 1), of_images))
        parts = list(map(self.denoise, *given, self.config.modalities))
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).unflatten(0, noisy.shape[:2])

    def _own(self, batch: Any) -> Sequence[Any]:
        """The part of each modality's targets, of a tensor or cameras of a training batch; of None, None for each.

        With one modality that is all of it, without a slice, whose gradient would be copied.
        """
        count = len(self.config.modalities)
        if batch is None or count == 1:
            return [batch] * count
        if isinstance(batch, Tensor):
            return batch.chunk(count)
        share = len(batch.near) // count
        return [batch[start : start + share] for start in range(0, count * share, share)]


class Reorder(torch.autograd.Function):
    """Joins several tensors, puts their rows in another order, and splits the result into equal parts.

    Indexing and splitting would do, but the gradient of one adds up atomically, and that of the other copies all.
    """

    @staticmethod
    def forward(ctx: Any, order: Tensor, parts: int, *given: Tensor) -> tuple[Tensor, ...]:
        """order: where the rows of `given`, one after the other, go: a permutation. parts: number of results."""
        ctx.sizes = [len(rows) for rows in given]
        result = given[0].new_empty((len(order), *given[0].shape[1:]))
        for at, rows in zip(order.split(ctx.sizes), given, strict=True):
            in_words(result).index_copy_(0, at, in_words(rows))
        ctx.save_for_backward(order)
        return result.chunk(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (order,) = ctx.saved_tensors
        result = gradients[0].new_empty((len(order), *gradients[0].shape[1:]))
        for at, rows in zip(order.argsort().chunk(len(gradients)), gradients, strict=True):
            in_words(result).index_copy_(0, at, in_words(rows))
        return None, None, *result.split(ctx.sizes)


def in_words(rows: Tensor) -> Tensor:
    """The memory of `rows` in units of 8 bytes where they fit, which copy several times faster than numbers of 2."""
    rows = rows.contiguous()
    return rows.view(torch.int64) if rows.shape[-1] * rows.element_size() % 8 == 0 else rows


def name_modality(net: GeNVS, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """Rename the weights of older networks, which were for photos alone and did not name the modality."""
    for name in list(state):
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part in ("encoder", "denoiser"):
            state[f"{prefix}{part}s.rgb.{rest}"] = state.pop(name)
