"""Few-step networks: a trained network, tuned to draw in one or two evaluations instead of a dozen.

Knowledge distillation (Luhman and Luhman, arXiv 2101.02388), at the noise levels of the few-step sampler: where the
trained denoiser's ODE would lead from a noisy image in many steps, the tuned one learns to say at once. So the same
image and noise always have the same answer, and there is nothing to average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genvs import random
from genvs.diffusion.samplers import consistency_levels
from genvs.models import GeNVS
from training.loss import GeNVSLoss, LossConfig

TEACHER_STEPS, LAST_SIGMA = 8, 0.015
HUBER = 0.03  # c of the pseudo-Huber distance, for images in [-1, 1]


class DistillationLoss(GeNVSLoss):
    """sqrt(e + c^2) - c, with the mean square e over pixels of D(x; sigma, features) - S(x; sigma, features).

    S solves the ODE of the trained network `teacher`, which has the same encoder and renderer, from x to an image. The
    noise levels are those of `sample_consistency`, each of them as often as the others.
    """

    def __init__(self, config: LossConfig, teacher: GeNVS, seed: int, num_steps: int) -> None:
        super().__init__(config, teacher.config, seed)
        denoiser = teacher.config.denoiser
        self.teacher, self.levels = teacher, consistency_levels(num_steps, denoiser.sigma_max)

    def noise_levels(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        place = (random.uniform(keys) * len(self.levels)).long()
        levels = self.levels.float().to(keys.device, non_blocking=True)[place]
        return levels, torch.ones_like(levels)

    @torch.no_grad()
    def wanted(
        self, images: Tensor, noisy: Tensor, sigma: Tensor, feature_image: Tensor, given: dict[str, Any]
    ) -> Tensor:
        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            return self.teacher.denoise_targets(feature_image, noisy, sigma, **given)

        return solved(denoise, noisy, sigma[..., None, None, None])

    def denoising_loss(self, error: Tensor, weight: Tensor) -> Tensor:
        return (error.square().mean(dim=(2, 3, 4)) + HUBER**2).sqrt() - HUBER


def solved(denoise: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, sigma: Tensor) -> Tensor:
    """The ODE from `noisy` to an image, for a level of each image: DPM-Solver++(2M) (arXiv 2211.01095).

    TEACHER_STEPS evaluations, at levels in equal steps of ln sigma from sigma to LAST_SIGMA.
    """
    ratio = (LAST_SIGMA / sigma) ** (1 / (TEACHER_STEPS - 1))
    before = None
    for _ in range(TEACHER_STEPS - 1):
        here = denoise(noisy, sigma)
        line = here if before is None else 1.5 * here - 0.5 * before
        noisy, sigma, before = ratio * noisy + (1 - ratio) * line, ratio * sigma, here
    return denoise(noisy, sigma)
