"""Samplers over any `denoise(noisy, sigma) -> denoised`, and the table of them.

denoise takes noisy `[N, ...]` (float32) and sigma (a scalar tensor); noise is unit Gaussian, `[N, ...]`. Samplers
integrate in float64 and return samples `[N, ...]`, float32. With one step they return the denoiser's estimate at
sigma_max. They never wait for a device: the coefficients of all steps are computed on the host, and all noise levels
are sent to the device before the first step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genvs.diffusion.noise import karras_steps

Denoise = Callable[[Tensor, Tensor], Tensor]


def sample_heun(
    denoise: Denoise,
    noise: Tensor,
    *,
    num_steps: int = 25,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    rng: torch.Generator | None = None,
) -> Tensor:
    """EDM's stochastic second-order sampler (arXiv 2206.00364, algorithm 2); S_churn = 0 is the ODE (algorithm 1).

    rng: for the churn's noise, on noise's device. Evaluates `denoise` 2 * num_steps - 1 times.
    """
    steps = karras_steps(num_steps, sigma_min, sigma_max, rho)
    gamma = min(S_churn / num_steps, math.sqrt(2) - 1)
    churned = torch.where((S_min <= steps) & (steps <= S_max), steps * (1 + gamma), steps)
    levels = torch.stack([steps[:-1], churned[:-1], steps[1:]], dim=1)
    sigmas = levels.float().to(noise.device, non_blocking=True)

    def slope(x: Tensor, sigma: float, level: Tensor) -> Tensor:
        return (x - denoise(x.float(), level).double()) / sigma

    x = noise.double() * sigma_max
    for (quiet, sigma, next_sigma), (_, level, next_level) in zip(levels.tolist(), sigmas, strict=True):
        if sigma > quiet:
            fresh = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
            x = x + (sigma**2 - quiet**2) ** 0.5 * S_noise * fresh
        d = slope(x, sigma, level)
        euler = x + (next_sigma - sigma) * d
        x = euler if next_sigma == 0 else x + (next_sigma - sigma) * (d + slope(euler, next_sigma, next_level)) / 2
    return x.float()


def sample_unipc(
    denoise: Denoise,
    noise: Tensor,
    *,
    num_steps: int = 12,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = math.inf,
    sigma_end: float = 0.015,
) -> Tensor:
    """UniPC of order two (arXiv 2302.04867, B_2, data prediction), which evaluates `denoise` once per step.

    With lambda = -ln sigma, a step of width h in lambda is
    x(h) = exp(-h) x(0) + integral over t from 0 to h of exp(t - h) D(t) dt, with an approximation of D(t).
    The predictor is DPM-Solver++(2M)'s (arXiv 2211.01095): a line through D at this level and the one before. D at the
    predicted point serves twice: the corrector first repeats the last step, with the parabola through three levels.

    rho: infinite, which is best for few steps. sigma_end: the last level before 0, unless sigma_min is above it; steps
    at levels too low to be seen would be wasted.
    """
    steps = karras_steps(num_steps, max(sigma_min, sigma_end), sigma_max, rho)
    sigmas = steps.float().to(noise.device, non_blocking=True)
    x = start = noise.double() * sigma_max
    before: list[tuple[Tensor, float]] = []  # D at the start of each step, and the step's width in lambda
    for h, level in zip((-steps[:-1].log().diff()).tolist(), sigmas[:-2], strict=True):
        denoised = line = denoise(x.float(), level).double()
        if before:
            x = _unipc_corrected(start, denoised, before)
            last, width = before[-1]
            line = denoised + h / (2 * width) * (denoised - last)
        start, before = x, [*before[-1:], (denoised, h)]
        x = math.exp(-h) * start - math.expm1(-h) * line
    return denoise(x.float(), sigmas[-2]).float()  # where the step to sigma = 0 ends


def _unipc_corrected(start: Tensor, here: Tensor, before: list[tuple[Tensor, float]]) -> Tensor:
    """The end of the step from `start`, corrected with D at its end, `here`. before: D and the width of this step and,
    unless this is the first step, of the one before.
    """
    last, h = before[-1]
    moment0 = -math.expm1(-h)  # moment_k: the integral of exp(t - h) t^k from 0 to h
    if len(before) == 1:
        return math.exp(-h) * start + moment0 / 2 * (here + last)
    older, older_h = before[-2]
    moment1 = h - moment0
    moment2 = h**2 - 2 * moment1
    of_here = (moment2 + older_h * moment1) / (h * (h + older_h))
    of_older = (moment2 - h * moment1) / (older_h * (h + older_h))
    return math.exp(-h) * start + moment0 * last + of_here * (here - last) + of_older * (older - last)


def consistency_levels(num_steps: int, sigma_max: float) -> Tensor:
    """The noise levels `[num_steps]`, float64, of `sample_consistency`: from sigma_max to 0.1 in equal steps of ln
    sigma. A single one is sigma_max.
    """
    return karras_steps(num_steps, 0.1, sigma_max, math.inf)[:-1]


def sample_consistency(
    denoise: Denoise,
    noise: Tensor,
    *,
    num_steps: int = 2,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Tensor:
    """Multistep consistency sampling (arXiv 2303.01469, algorithm 1): each step draws an image, to which the next step
    adds noise again. For few-step networks; others return the mean of all possible images, which is blurred.

    sigma_min: unused. The noise of later steps is that of the first one, shifted along each side, so images depend on
    `noise` alone: not on the batch, and a video with one noise for all views does not flicker.
    """
    levels = consistency_levels(num_steps, sigma_max)
    noise, sides = noise.float(), range(1, noise.ndim)
    image = torch.zeros_like(noise)
    for number, level in enumerate(levels.float().to(noise.device, non_blocking=True)):
        shifted = noise.roll([noise.shape[side] * number // num_steps for side in sides], list(sides))
        image = denoise(image + level * shifted, level).float()
    return image


@dataclass(frozen=True)
class Sampler:
    """An entry of SAMPLERS. sample: called as `sample(denoise, noise, num_steps=, sigma_min=, sigma_max=)`.

    num_steps: the default. fewest_steps: fewer steps (but not a single one) leave noise in the images. evaluations: of
    the denoiser, from the number of steps. stochastic: whether it takes `S_churn` and `rng` too.
    """

    sample: Callable[..., Tensor]
    num_steps: int
    fewest_steps: int
    evaluations: Callable[[int], int]
    stochastic: bool = False


# Root-mean-square distance from the ODE's exact solution, of images in [-1, 1], with two trained networks of preset
# cpu-demo: Heun 0.0040 with 49 evaluations; UniPC 0.0080, 0.0050, 0.0029 and 0.0019 with 10, 12, 16 and 25.
# With 10 and 12, DPM-Solver++(2M) at the same levels has 0.0100 and 0.0068, UniPC at Heun's levels 0.027 and 0.019.
SAMPLERS = {
    "heun": Sampler(
        sample_heun, num_steps=25, fewest_steps=5, evaluations=lambda steps: 2 * steps - 1, stochastic=True
    ),
    "unipc": Sampler(sample_unipc, num_steps=12, fewest_steps=2, evaluations=lambda steps: steps),
    "consistency": Sampler(sample_consistency, num_steps=2, fewest_steps=1, evaluations=lambda steps: steps),
}
