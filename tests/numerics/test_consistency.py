"""Consistency tuning (arXiv 2406.14548) on Gaussian data, where all is known in closed form, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from genvs.config import GeNVSConfig
from genvs.data.types import ViewBatch, Views
from genvs.diffusion.noise import LEAST_RATIO, lower_sigma
from genvs.diffusion.preconditioning import edm
from genvs.diffusion.samplers import sample_consistency
from tests.small_model import some_cameras
from training.distillation import FIRST_GAP, HUBER, LAST_GAP, ConsistencyLoss
from training.loss import LossConfig

STD = 0.5  # of the data, whose mean is 0
LEVELS = torch.logspace(-3, 2, 50, dtype=torch.float64)


def solution(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function: where the ODE dx / dsigma = sigma x / (std^2 + sigma^2) leads from `noisy`."""
    return noisy * STD / (STD**2 + sigma**2).sqrt()


def test_without_noise_the_image_is_the_answer():
    """Whatever the U-Net says: c_skip is 1 and c_out 0; and close to it, the error is no larger than the noise."""
    c_skip, c_out, *_ = edm(torch.zeros((), dtype=torch.float64), STD)
    assert (float(c_skip), float(c_out)) == (1, 0)
    for sigma in (1e-2, 1e-4):
        c_skip, c_out, *_ = edm(torch.tensor(sigma, dtype=torch.float64), STD)
        assert abs(c_skip - 1) <= sigma and abs(c_out) <= sigma


def test_the_levels_of_a_pair():
    expected = [t * max(1 - (1 + 8 / (1 + math.exp(t))) / 2**5, LEAST_RATIO) for t in LEVELS.tolist()]
    assert_close(lower_sigma(LEVELS, torch.tensor(2.0**-5)), torch.tensor(expected, dtype=torch.float64))
    gaps = FIRST_GAP * (LAST_GAP / FIRST_GAP) ** torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    lower = lower_sigma(LEVELS, gaps)
    assert (0 < lower).all() and (lower < LEVELS).all() and (lower.diff(dim=0) >= 0).all(), "they approach each other"
    assert_close(lower_sigma(LEVELS, torch.ones(())), LEVELS * LEAST_RATIO)


@pytest.mark.parametrize(("gap", "kept"), [(1.0, (0, 0.2)), (LAST_GAP, (0.9, 1)), (2.0**-8, (0.99, 1))])
def test_closer_levels_lead_from_the_mean_of_images_to_an_image(gap, kept):
    """What is least in the mean of squares is linear here: D(x; t) = a(t) x with a(t) = a(r) E[x_r | x_t] / x_t. As far
    levels it is the mean, 0, so that samples of one step have no deviation; that of close levels tends to the data's.
    """
    level, slope = torch.tensor(80.0, dtype=torch.float64), 1.0
    while level > 1e-3:
        lower = lower_sigma(level, torch.tensor(gap, dtype=torch.float64))
        slope *= float((STD**2 + lower * level) / (STD**2 + level**2))
        level = lower
    deviation = slope * math.hypot(STD, 80) / STD
    assert kept[0] < deviation < kept[1]


def test_the_loss_is_the_distance_of_both_answers():
    """Of a stand-in for the network, with one noise for both levels, and a gradient through the higher one alone."""
    given, factor = [], torch.tensor(0.7, requires_grad=True)

    def net(**arguments) -> tuple[Tensor, Tensor]:
        given.append(arguments)
        return factor * arguments["noisy"], torch.zeros(5, 2, 4, 4, 4)

    images = STD * torch.randn(2, 5, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    cameras, index = some_cameras(5, 2), torch.arange(5) * 20
    batch = ViewBatch(Views(images[0], cameras), Views(images[1], cameras), index)
    terms = ConsistencyLoss(LossConfig(rgb_weight=0.0), GeNVSConfig(), 0, num_samples=100)(net, batch)
    terms.total.backward()
    lower, higher = given
    assert lower.keys() == higher.keys()
    for name in lower.keys() - {"noisy", "sigma", "inputs", "targets", "labels"}:
        assert torch.equal(lower[name], higher[name]), name
    t, r = (arguments["sigma"].detach().double() for arguments in (higher, lower))
    gap = FIRST_GAP * (LAST_GAP / FIRST_GAP) ** (index / 100).double()
    assert_close(r, lower_sigma(t, gap[:, None, None, None, None]), rtol=1e-5, atol=0)
    x = images[1].double()
    noise = (higher["noisy"] - x) / t
    assert_close((lower["noisy"] - x) / r, noise, rtol=1e-3, atol=1e-2)
    error = (0.7 * (t - r) * noise).square().mean(dim=(2, 3, 4))
    weight = ((t**2 + STD**2).sqrt() / (t * STD) / (1 - r / t))[..., 0, 0, 0]
    assert_close(terms.loss.double(), weight * ((error + HUBER**2).sqrt() - HUBER), rtol=1e-3, atol=1e-4)
    difference = 0.7 * (t - r) * noise
    slope = (difference * (x + t * noise)).mean(dim=(2, 3, 4)) / (error + HUBER**2).sqrt()
    assert_close(factor.grad.double(), (weight * slope).mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_samples_have_the_datas_deviation(num_steps):
    noise = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    asked = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        asked.append(sigma.item())
        return solution(noisy, sigma)

    samples = sample_consistency(denoise, noise, num_steps=num_steps)
    assert asked == pytest.approx([80 * (0.8 / 80) ** (n / max(num_steps - 1, 1)) for n in range(num_steps)])
    assert samples.dtype == torch.float32 and samples.std().item() == pytest.approx(STD, rel=0.02)
    alone = sample_consistency(solution, noise[7:8], num_steps=num_steps)
    assert torch.equal(alone, samples[7:8]), "a view depends on its own noise alone"
    if num_steps > 1:
        once = sample_consistency(solution, noise, num_steps=1)
        correlation = float((once * samples).mean() / STD**2)
        assert correlation < 0.9, "noise that is added again is other noise"
