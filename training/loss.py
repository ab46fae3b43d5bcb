"""The training objective: EDM's denoising loss on target views, with GeNVS's augmentation of the input views."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genvs import random
from genvs.config import AUGMENT_LABELS, SIGMA_RANGES, GeNVSConfig
from genvs.data.types import ViewBatch
from genvs.diffusion.noise import lognormal_sigma, loss_weight, ve_training_sigma, vp_training_sigma
from genvs.errors import InputError
from genvs.models.colours import colours_of
from genvs.models.labels import augment_labels, augmented
from genvs.random import Stream
from genvs.settings import NOT_NEGATIVE, POSITIVE, PROBABILITY, check_numbers


@dataclass(frozen=True)
class LossConfig:
    """Settings of the loss (GeNVS, arXiv 2304.02602, section 3.4).

    P_mean, P_std: of ln sigma, with EDM's preconditioning.
    conditioning_dropout, class_dropout: probability that a target's denoiser does not see its feature image, or its
    class in class-conditional training.
    input_noise_probability, input_noise_max: each input view gets, with this probability, Gaussian noise of standard
    deviation U(0, max), in units of images in [-1, 1].
    rgb_weight: weight of an auxiliary loss that trains the channels of the feature image that show the picture itself
    (genvs.models.colours) to predict the target. It teaches geometry directly, as in pixelNeRF (arXiv 2012.02190).
    augment: probability of each step of `draw_augmentation`.
    """

    P_mean: float = -1.0
    P_std: float = 1.4
    conditioning_dropout: float = 0.1
    input_noise_probability: float = 0.5
    input_noise_max: float = 0.5
    rgb_weight: float = 1.0
    augment: float = 0.0
    class_dropout: float = 0.1

    def __post_init__(self) -> None:
        probabilities = ("conditioning_dropout", "input_noise_probability", "augment", "class_dropout")
        check_numbers(self, PROBABILITY, *probabilities)
        check_numbers(self, POSITIVE, "P_std")
        check_numbers(self, NOT_NEGATIVE, "input_noise_max", "rgb_weight")
        if not math.isfinite(self.P_mean):
            raise InputError(f"`P_mean`={self.P_mean}: give a number")


@dataclass(frozen=True)
class LossTerms:
    """The loss of a batch. total: `[]`, the objective. loss: `[B, T]`, the denoising loss, a mean over channels and
    pixels. rgb_loss: `[B, T]`, the loss of the feature image's colours. sigma: `[B, T]`.
    """

    total: Tensor
    loss: Tensor
    rgb_loss: Tensor
    sigma: Tensor


class GeNVSLoss:
    """lambda(sigma) * |D(target + sigma * noise; sigma, features) - target|^2 (EDM, arXiv 2206.00364, eq. 2, table 1).

    All randomness is a function of (seed, sample index): it does not depend on batches, ranks or resuming.
    """

    def __init__(self, config: LossConfig, net: GeNVSConfig, seed: int) -> None:
        """net: the config of the network that is trained."""
        self.config, self.seed = config, seed
        self.sigma_data, self.precond = net.denoiser.sigma_data, net.denoiser.precond
        self.colours = [colours_of(name, net) for name in net.modalities]

    def __call__(self, net: Callable, batch: ViewBatch) -> LossTerms:
        """net: GeNVS, or what `training_net` makes of it. batch: images float in [-1, 1]."""
        images, weight, given = self.arguments(batch)
        denoised, feature_image = net(**given)
        wanted = self.wanted(images, feature_image, given)
        loss = self.denoising_loss(denoised, wanted, given["sigma"], weight)
        return self.terms(loss, feature_image, batch, given["sigma"])

    def arguments(self, batch: ViewBatch) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """The augmented targets `[B, T, 3, H, W]`, the weights `[B, T]` of their noise levels, and what the network is
        called with: the arguments of `GeNVS.forward`.
        """
        targets = batch.targets.images
        sample_keys = random.sample_keys(self.seed, batch.sample_index)
        numbers = torch.arange(targets.shape[1], device=targets.device)
        keys = random.fold(sample_keys[:, None], Stream.TARGET, numbers)
        sigma, weight = self.noise_levels(random.fold(keys, Stream.SIGMA))
        labels = self.labels(batch, keys)
        images = targets
        if labels is not None and self.config.augment:
            images = augmented(targets.flatten(0, 1), labels[..., -AUGMENT_LABELS:].flatten(0, 1)).view_as(targets)
        noise = random.normal(random.fold(keys, Stream.NOISE), tuple(images.shape[2:]))
        keep = random.uniform(random.fold(keys, Stream.KEEP_CONDITIONING)) >= self.config.conditioning_dropout
        sigma = sigma[..., None, None, None]
        given = {
            "input_images": self.augment_inputs(batch.inputs.images, sample_keys),
            "inputs": batch.inputs.cameras,
            "targets": batch.targets.cameras,
            "noisy": images + sigma * noise,
            "sigma": sigma,
            "keep_conditioning": keep,
            "keys": random.fold(keys, Stream.NETWORK),
            "labels": labels,
        }
        return images, weight, given

    def terms(self, loss: Tensor, feature_image: Tensor, batch: ViewBatch, sigma: Tensor) -> LossTerms:
        """The terms of a batch whose denoising loss is `[B, T]`, at noise levels `[B, T, 1, 1, 1]`."""
        rgb_loss = self.rgb_loss(feature_image, batch.targets.images)
        return LossTerms((loss + self.config.rgb_weight * rgb_loss).mean(), loss, rgb_loss, sigma.flatten(1))

    def wanted(self, images: Tensor, feature_image: Tensor, given: dict[str, Any]) -> Tensor:
        """What the denoiser should return, `[B, T, 3, H, W]`: here the augmented targets, `images`.

        given: the arguments of `GeNVS.forward`.
        """
        return images

    def denoising_loss(self, denoised: Tensor, wanted: Tensor, sigma: Tensor, weight: Tensor) -> Tensor:
        """`[B, T]`, from images `[B, T, 3, H, W]`, their noise levels `[B, T, 1, 1, 1]`, and the levels' weights."""
        return weight * (denoised - wanted).square().mean(dim=(2, 3, 4))

    def rgb_loss(self, feature_image: Tensor, targets: Tensor) -> Tensor:
        """`[B, T]`, from feature images `[B, T, C, H, W]` and targets `[B, T, 3, H, W]`, of the modalities in turn."""
        count, losses = len(self.colours), []
        images = feature_image.chunk(count) if count > 1 else [feature_image]  # a chunk's gradient would be copied
        for colours, image, target in zip(self.colours, images, targets.chunk(count), strict=True):
            shown, wanted = image[:, :, colours.first : colours.last], colours.less_background(target)
            losses.append((shown - wanted[:, :, : colours.last - colours.first]).square().mean(dim=(2, 3, 4)))
        return torch.cat(losses)

    def labels(self, batch: ViewBatch, keys: Tensor) -> Tensor | None:
        """Labels `[B, T, L]` of the targets (genvs.models.labels) from keys `[B, T]`; None if the network has none."""
        parts = []
        if batch.classes is not None:
            keep = random.uniform(random.fold(keys, Stream.KEEP_CLASS)) >= self.config.class_dropout
            parts.append(batch.classes[:, None] * keep[..., None])
        if self.config.augment:
            parts.append(draw_augmentation(keys, self.config.augment))
        return torch.cat(parts, dim=-1) if parts else None

    def noise_levels(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """sigma and its weight in the loss, `[...]` each, from keys `[...]`. The preconditioning decides how."""
        if self.precond == "edm":
            sigma = lognormal_sigma(random.normal(keys), self.config.P_mean, self.config.P_std)
            return sigma, loss_weight(sigma, self.sigma_data)
        uniform = random.uniform(keys)
        sigma = vp_training_sigma(uniform) if self.precond == "vp" else ve_training_sigma(uniform, *SIGMA_RANGES["ve"])
        return sigma, 1 / sigma**2  # with which the initial loss is 1 (EDM, table 1)

    def augment_inputs(self, images: Tensor, sample_keys: Tensor) -> Tensor:
        """Add noise to some input views `[B, V, 3, H, W]`, against overfitting to clean ones (section 3.4)."""
        keys = random.fold(sample_keys[:, None], Stream.INPUT, torch.arange(images.shape[1], device=images.device))
        coin = random.uniform(random.fold(keys, Stream.ADD_NOISE)) < self.config.input_noise_probability
        scale = random.uniform(random.fold(keys, Stream.INPUT_SCALE)) * self.config.input_noise_max * coin
        noise = random.normal(random.fold(keys, Stream.INPUT_NOISE), tuple(images.shape[2:]))
        return images + scale[..., None, None, None] * noise


def draw_augmentation(keys: Tensor, probability: float) -> Tensor:
    """Labels `[..., AUGMENT_LABELS]` (see `genvs.models.labels`) for int64 keys `[...]`.

    A target and its feature image are flipped, turned and shifted by the lossless steps of EDM's pipeline (arXiv
    2206.00364, appendix F.2), before noise is added, so that it stays white. Each of four steps is done with
    `probability`: flips left to right and upside down, of every second image, a turn by 0 to 3 quarters, and a shift
    along both axes by up to MAX_SHIFT of the side.
    """
    done = random.uniform(random.fold(keys, Stream.AUGMENT_STEPS), (4,)) < probability
    values = random.uniform(random.fold(keys, Stream.AUGMENT_VALUES), (5,))
    flip_x, flip_y = (done[..., :2] & (values[..., :2] < 0.5)).unbind(dim=-1)
    quarter_turns = (values[..., 2] * 4).floor() * done[..., 2]
    return augment_labels(flip_x, flip_y, quarter_turns, (2 * values[..., 3:] - 1) * done[..., 3:])
