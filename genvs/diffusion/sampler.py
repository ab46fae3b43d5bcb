"""Samplers over any `denoise(noisy, sigma) -> denoised`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genvs.diffusion.noise import karras_steps


def sample_heun(
    denoise: Callable[[Tensor, Tensor], Tensor],
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

    denoise: takes noisy `[N, ...]` (float32) and sigma (a scalar tensor). noise: `[N, ...]`, unit Gaussian.
    rng: for the churn's noise, on noise's device. Integrated in float64. Evaluates `denoise` 2 * num_steps - 1 times;
    one step is the denoiser's estimate at sigma_max. Returns samples `[N, ...]`, float32.
    """
    # The few noise levels stay on the CPU, so that no step waits for a device to report them.
    steps = karras_steps(num_steps, sigma_min, sigma_max, rho)

    def slope(x: Tensor, sigma: float) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device)
        return (x - denoise(x.float(), level).double()) / sigma

    x = noise.double() * steps[0].item()
    for sigma, next_sigma in zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True):
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0.0
        if gamma > 0:
            churned = sigma * (1 + gamma)
            fresh = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
            x = x + (churned**2 - sigma**2) ** 0.5 * S_noise * fresh
            sigma = churned
        d = slope(x, sigma)
        euler = x + (next_sigma - sigma) * d
        x = euler if next_sigma == 0 else x + (next_sigma - sigma) * (d + slope(euler, next_sigma)) / 2
    return x.float()
