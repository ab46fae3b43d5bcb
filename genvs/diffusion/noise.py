"""Noise levels: their distribution in training, their weight in the loss, their steps in sampling (EDM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lognormal_sigma(standard_normal: Tensor, P_mean: float, P_std: float) -> Tensor:
    """Training noise levels: ln sigma ~ N(P_mean, P_std^2) (EDM, table 1). Any shape, kept."""
    return (standard_normal * P_std + P_mean).exp()


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (EDM, table 1): unit loss at birth everywhere."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def karras_steps(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Sampling noise levels `[num_steps + 1]`, float64, from sigma_max down to sigma_min and 0 (EDM, eq. 5).

    rho: the larger, the more of the levels are low; math.inf is the limit, equal steps of ln sigma. One step goes from
    sigma_max to 0.
    """
    ramp = torch.arange(num_steps, dtype=torch.float64) / max(num_steps - 1, 1)
    if math.isinf(rho):
        levels = sigma_max * (sigma_min / sigma_max) ** ramp
    else:
        low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        levels = (high + ramp * (low - high)) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
