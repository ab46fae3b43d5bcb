"""Noise levels: their distribution in training, their weight in the loss, their steps in sampling (EDM)."""

import math

import torch
from torch import Tensor


def lognormal_sigma(standard_normal: Tensor, P_mean: float, P_std: float) -> Tensor:
    """Training noise levels: ln sigma ~ N(P_mean, P_std^2) (EDM, table 1). Any shape."""
    return (standard_normal * P_std + P_mean).exp()


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (EDM, table 1), so that the initial loss is 1."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


VP_BETA_D, VP_BETA_MIN = 19.9, 0.1  # of Song et al., arXiv 2011.13456
VP_SHORTEST_TIME = 1e-5


def vp_sigma(time: Tensor) -> Tensor:
    """The noise level of the variance-preserving process at times in [0, 1] (EDM, table 1). Any shape."""
    return (VP_BETA_D / 2 * time**2 + VP_BETA_MIN * time).expm1().sqrt()


def vp_time(sigma: Tensor) -> Tensor:
    """The inverse of `vp_sigma`."""
    log = (sigma**2).log1p()
    return 2 * log / (VP_BETA_MIN + (VP_BETA_MIN**2 + 2 * VP_BETA_D * log).sqrt())


def vp_training_sigma(uniform: Tensor) -> Tensor:
    """Training noise levels of VP: at times uniform in (VP_SHORTEST_TIME, 1], from uniform in [0, 1)."""
    return vp_sigma(1 - (1 - VP_SHORTEST_TIME) * uniform)


def ve_training_sigma(uniform: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """Training noise levels of VE: ln sigma uniform between the two levels, from uniform in [0, 1)."""
    return sigma_min * (sigma_max / sigma_min) ** uniform


def karras_steps(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Sampling noise levels `[num_steps + 1]`, float64, from sigma_max down to sigma_min and 0 (EDM, eq. 5).

    rho: larger values give more low levels; math.inf gives equal steps of ln sigma. num_steps=1: sigma_max and 0.
    """
    ramp = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
    if math.isinf(rho):
        levels = sigma_max * (sigma_min / sigma_max) ** ramp
    else:
        low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        levels = (high + ramp * (low - high)) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
