"""Few-step networks: a trained network, tuned to draw in one or two evaluations instead of a dozen.

First by knowledge distillation (Luhman and Luhman, arXiv 2101.02388), at the noise levels of the few-step sampler: the
network learns to return at once the image to which the trained network's ODE leads from a noisy one in several steps.
What it cannot predict of that image it leaves out, so the finest details stay weak. Then by distribution matching (Yin
et al., arXiv 2311.18828 and 2405.14867), which compares images as a whole: they become as likely as the trained
network's. At all other levels the network learns to remain the trained one, so that other samplers work too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genvs import random
from genvs.data.types import ViewBatch
from genvs.diffusion.samplers import consistency_levels
from genvs.models import GeNVS
from genvs.random import Stream
from genvs.sampling.cuda_graphs import CUDAGraphed
from training.config import TrainConfig
from training.loss import GeNVSLoss, LossTerms

LAST_SIGMA = 0.015
HUBER = 0.03  # c, for images in [-1, 1]
MATCHING_RATE = 0.1  # share of the learning rate that is left when matching begins; the critic keeps all of it


class DistillationLoss(GeNVSLoss):
    """sqrt(e + c^2) - c, the pseudo-Huber distance (arXiv 2310.14189, section 3.3), with the mean square e over pixels
    of D(x; sigma, features) - S(x; sigma, features), both of them clamped to [-1, 1] at the second step's level.

    x is an image of the data with noise. For half of the images sigma is the first level of `sample_consistency`, which
    is the hardest to learn, and for a quarter the last one: there S solves the ODE of the trained network from x to an
    image. For the other quarter sigma is drawn as in training, and S is what the trained network returns.
    """

    teacher_steps = 6

    def __init__(self, config: TrainConfig, teacher: GeNVS) -> None:
        """teacher: the trained network, with the same encoder and renderer. A GPU replays it as a CUDA graph, like the
        training step.
        """
        super().__init__(config.loss, teacher.config, config.seed)
        device, steps = next(teacher.parameters()).device, self.teacher_steps
        levels = consistency_levels(config.distill_steps, teacher.config.denoiser.sigma_max)
        self.levels = levels[[0, 0, -1]].float().to(device)

        def solve(feature_image: Tensor, noisy: Tensor, sigma: Tensor, *others: Tensor) -> Tensor:
            denoised, image = solved(
                lambda x, level: teacher.denoise_targets(feature_image, x, level, *others), noisy, sigma, steps
            )
            return torch.where((sigma[..., None] == self.levels).any(dim=-1), image, denoised)

        self._solve = CUDAGraphed(solve, device) if config.cuda_graphs else torch.no_grad()(solve)

    def noise_levels(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        sigma, weight = super().noise_levels(random.fold(keys, Stream.SIGMA))
        quarter = (random.uniform(keys) * 4).long()
        sigma = torch.where(quarter < 3, self.levels[quarter.clamp(max=2)], sigma)
        return sigma, torch.ones_like(weight)

    def wanted(self, images: Tensor, feature_image: Tensor, given: dict[str, Any]) -> Tensor:
        names = ("noisy", "sigma", "keep_conditioning", "keys", "labels")
        return self._solve(feature_image, *(given[name] for name in names if given[name] is not None))

    def denoising_loss(self, denoised: Tensor, wanted: Tensor, sigma: Tensor, weight: Tensor) -> Tensor:
        # The second step's result is shown clamped to [-1, 1], so it is compared clamped. A white background may then
        # lie a little above 1, where rounding errors do not turn single pixels gray, which LPIPS would notice.
        shown = (sigma == self.levels[-1]) & (sigma != self.levels[0])
        error = torch.where(shown, denoised.clamp(-1, 1) - wanted.clamp(-1, 1), denoised - wanted)
        return (error.square().mean(dim=(2, 3, 4)) + HUBER**2).sqrt() - HUBER


class MatchingLoss(DistillationLoss):
    """Distribution matching of the images that the first step draws; the rest is learned as before.

    A critic, which begins as the trained network, learns to denoise the images that the few-step network draws. When
    noise is added to such an image, the trained network denoises it towards its own images, and the critic towards what
    is drawn: their difference is the direction in which the image becomes more likely (arXiv 2311.18828, eq. 7). The
    loss is the distance to the image moved by this difference.

    The critic hardly sees a grain that is weaker than the noise. The second step removes it: from what the first one
    draws (arXiv 2405.14867, section 4.4), with noise, it learns where the ODE of the trained network leads.
    """

    teacher_steps = 3  # enough, because here only images at the last level are solved

    def __init__(self, config: TrainConfig, teacher: GeNVS, critic: nn.Module) -> None:
        """critic: as training calls it. Its gradients are computed with those of the few-step network."""
        super().__init__(config, teacher)
        self.critic = critic

    def __call__(self, net: Callable, batch: ViewBatch) -> LossTerms:
        images, weight, given = self.arguments(batch)
        keys, sigma, shape = given["keys"], given["sigma"], tuple(images.shape[2:])
        first, last = self.levels[0], self.levels[-1]
        matched = sigma == first
        with torch.no_grad():
            noisy = first * random.normal(random.fold(keys, Stream.FIRST_STEP), shape)
            drawn, _ = net(**given | {"noisy": noisy, "sigma": first.expand_as(sigma)})
            drawn = drawn.clone()  # before a replay overwrites it
        second = drawn + last * random.normal(random.fold(keys, Stream.SECOND_STEP), shape)
        given["noisy"] = torch.where((sigma == last) & ~matched, second, given["noisy"])
        denoised, feature_image = net(**given)
        drawn = torch.where(matched, denoised.detach(), drawn)

        level, critics_weight = GeNVSLoss.noise_levels(self, random.fold(keys, Stream.CRITIC_SIGMA))
        level = level[..., None, None, None]
        noise = random.normal(random.fold(keys, Stream.CRITIC_NOISE), shape)
        judged_at = {"noisy": drawn + level * noise, "sigma": level}
        judged, _ = self.critic(**given | judged_at)
        known_at = {name: torch.where(matched, value, given[name]) for name, value in judged_at.items()}
        known = self.wanted(images, feature_image, given | known_at)
        wanted = torch.where(matched, drawn + known - judged.detach(), known)
        terms = self.terms(self.denoising_loss(denoised, wanted, sigma, weight), feature_image, batch, sigma)
        critics_loss = critics_weight * (judged - drawn).square().mean(dim=(2, 3, 4))
        return dataclasses.replace(terms, total=terms.total + critics_loss.mean())


def solved(denoise: Callable, noisy: Tensor, sigma: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """What `denoise` returns for `noisy`, whose images have each its own level, and the image at the end of the ODE, by
    DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    There are `steps` evaluations, at levels from sigma to LAST_SIGMA in equal steps of ln sigma.
    """
    ratio = (LAST_SIGMA / sigma) ** (1 / (steps - 1))
    first = here = line = denoise(noisy, sigma)
    for _ in range(steps - 1):
        noisy, sigma, before = ratio * noisy + (1 - ratio) * line, ratio * sigma, here
        here = denoise(noisy, sigma)
        line = 1.5 * here - 0.5 * before
    return first, here
