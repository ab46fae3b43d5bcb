"""Few-step networks: a trained network, tuned to draw in one or two evaluations instead of a dozen.

Easy consistency tuning (Geng et al., arXiv 2406.14548): the denoiser learns to say the same at two noise levels of one
image and one noise, the lower of which says it without gradient. At first the lower level is next to 0, which is
ordinary training; the two approach each other, until one evaluation at the highest level says what many would have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genvs.config import GeNVSConfig
from genvs.diffusion.noise import lower_sigma
from training.loss import Denoise, GeNVSLoss, LossConfig

# Of `lower_sigma`, at the start and at the end. On Gaussian data the last one keeps 96% of the deviation.
FIRST_GAP, LAST_GAP = 0.5, 2.0**-5
HUBER = 0.00054  # c of the pseudo-Huber distance (arXiv 2310.14189), for images in [-1, 1]


class ConsistencyLoss(GeNVSLoss):
    """sqrt(lambda(t)) t / (t - r) * d(D(x + t noise; t, features), D(x + r noise; r, features)), for t = sigma.

    d is the pseudo-Huber distance sqrt(e + c^2) - c of the mean square e over pixels, lambda EDM's weight: with r = 0
    and without the root it is the ordinary loss. 1 / (t - r) is consistency tuning's own weight. D(x; 0) = x follows
    from the preconditioning.
    """

    def __init__(self, config: LossConfig, net: GeNVSConfig, seed: int, num_samples: int) -> None:
        """num_samples: of the whole run. The gap between the levels is a function of each sample's index."""
        super().__init__(config, net, seed)
        self.num_samples = num_samples

    def denoising_loss(
        self, denoise: Denoise, images: Tensor, sigma: Tensor, weight: Tensor, sample_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        gap = FIRST_GAP * (LAST_GAP / FIRST_GAP) ** (sample_index[:, None] / self.num_samples)
        lower = lower_sigma(sigma, gap)
        with torch.no_grad():
            target = denoise(lower)[0].clone()  # a CUDA graph's next replay overwrites it
        denoised, feature_image = denoise(sigma)
        distance = ((denoised - target).square().mean(dim=(2, 3, 4)) + HUBER**2).sqrt() - HUBER
        return weight.sqrt() / (1 - lower / sigma) * distance, feature_image
