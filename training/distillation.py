"""Few-step networks: a trained network, tuned to draw in one or two evaluations instead of a dozen.

Knowledge distillation (Luhman and Luhman, arXiv 2101.02388), at the noise levels of the few-step sampler: the network
learns to return at once the image to which the trained network's ODE leads from a noisy one in several steps. That
image is a function of the noisy one, so nothing is averaged and the results are not blurred. At all other levels it
learns to remain the trained network, so that other samplers work too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genvs import random
from genvs.diffusion.samplers import consistency_levels
from genvs.models import GeNVS
from genvs.random import Stream
from genvs.sampling.cuda_graphs import CUDAGraphed
from training.config import TrainConfig
from training.loss import GeNVSLoss

TEACHER_STEPS, LAST_SIGMA = 6, 0.015
HUBER = 0.03  # c, for images in [-1, 1]


class DistillationLoss(GeNVSLoss):
    """sqrt(e + c^2) - c, the pseudo-Huber distance (arXiv 2310.14189, section 3.3), with the mean square e over pixels
    of D(x; sigma, features) - S(x; sigma, features).

    x is an image of the data with noise. For half of the images sigma is the first level of `sample_consistency`, which
    is the hardest to learn, and for a quarter the last one: there S solves the ODE of the trained network from x to an
    image. For the other quarter sigma is drawn as in training, and S is what the trained network returns.
    """

    def __init__(self, config: TrainConfig, teacher: GeNVS) -> None:
        """teacher: the trained network, with the same encoder and renderer. A GPU replays it, as it does the step."""
        super().__init__(config.loss, teacher.config, config.seed)
        device = next(teacher.parameters()).device
        levels = consistency_levels(config.distill_steps, teacher.config.denoiser.sigma_max)
        self.levels = levels[[0, 0, -1]].float().to(device)

        def solve(feature_image: Tensor, noisy: Tensor, sigma: Tensor, *others: Tensor) -> Tensor:
            denoised, image = solved(
                lambda x, level: teacher.denoise_targets(feature_image, x, level, *others), noisy, sigma
            )
            return torch.where((sigma[..., None] == self.levels).any(dim=-1), image, denoised)

        self._solve = CUDAGraphed(solve, device) if config.cuda_graphs else torch.no_grad()(solve)

    def noise_levels(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        sigma, weight = super().noise_levels(random.fold(keys, Stream.SIGMA))
        quarter = (random.uniform(keys) * 4).long()
        sigma = torch.where(quarter < 3, self.levels[quarter.clamp(max=2)], sigma)
        return sigma, torch.ones_like(weight)

    def wanted(self, images: Tensor, feature_image: Tensor, to_denoise: dict[str, Any]) -> Tensor:
        return self._solve(feature_image, *(value for value in to_denoise.values() if value is not None))

    def denoising_loss(self, error: Tensor, weight: Tensor) -> Tensor:
        return (error.square().mean(dim=(2, 3, 4)) + HUBER**2).sqrt() - HUBER


def solved(denoise: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What `denoise` returns for `noisy`, whose images have each its own level, and the image at the end of the ODE, by
    DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    There are TEACHER_STEPS evaluations, at levels from sigma to LAST_SIGMA in equal steps of ln sigma.
    """
    ratio = (LAST_SIGMA / sigma) ** (1 / (TEACHER_STEPS - 1))
    first = here = line = denoise(noisy, sigma)
    for _ in range(TEACHER_STEPS - 1):
        noisy, sigma, before = ratio * noisy + (1 - ratio) * line, ratio * sigma, here
        here = denoise(noisy, sigma)
        line = 1.5 * here - 0.5 * before
    return first, here
