"""Preconditioning: EDM's table, its inverses, and the loss that goes with each."""

import math

import pytest
import torch
from torch.testing import assert_close

from genvs.config import SIGMA_RANGES, DenoiserConfig, GeNVSConfig
from genvs.diffusion.noise import vp_sigma, vp_time
from genvs.diffusion.preconditioning import PRECONDITIONINGS
from genvs.models import GeNVS
from tests.small_model import small_config, some_batch
from training.loss import GeNVSLoss, LossConfig

SIGMAS = [0.02, 0.1, 0.5, 3.0, 80.0]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_coefficients_are_those_of_the_table(sigma):
    found = {name: PRECONDITIONINGS[name](torch.tensor(sigma, dtype=torch.float64), 0.5) for name in SIGMA_RANGES}
    total = sigma**2 + 0.25
    time = float(vp_time(torch.tensor(sigma, dtype=torch.float64)))
    expected = {
        "edm": (0.25 / total, sigma * 0.5 / math.sqrt(total), 1 / math.sqrt(total), math.log(sigma) / 4),
        "vp": (1, -sigma, 1 / math.sqrt(sigma**2 + 1), 999 * time),
        "ve": (1, sigma, 1, math.log(sigma / 2)),
    }
    for name, values in expected.items():
        assert [float(value) for value in found[name]] == pytest.approx(values, rel=1e-12), name


def test_vp_noise_grows_with_time_as_its_process_says():
    time = torch.tensor([1e-5, 1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
    sigma = vp_sigma(time)
    assert_close(sigma, (torch.exp(9.95 * time**2 + 0.1 * time) - 1).sqrt(), rtol=1e-9, atol=0)
    assert_close(vp_time(sigma), time, rtol=1e-9, atol=0)
    # In single precision too, where small times would cancel out.
    assert_close(vp_time(vp_sigma(time.float())), time.float(), rtol=1e-5, atol=0)
    assert float(sigma[-1]) == pytest.approx(152.17, abs=0.01)


@pytest.mark.parametrize("precond", list(SIGMA_RANGES))
def test_training_covers_the_levels_that_sampling_asks_for(precond):
    loss_fn = GeNVSLoss(LossConfig(P_mean=0.0, P_std=1.6), GeNVSConfig(denoiser=DenoiserConfig(precond=precond)), 0)
    sigma, _ = loss_fn.noise_levels(torch.arange(20000))
    low, high = SIGMA_RANGES[precond]
    share = ((sigma > low) & (sigma < high)).double().mean()
    assert share > 0.9
    quantiles = torch.quantile(sigma.log(), torch.tensor([0.25, 0.5, 0.75])).tolist()
    if precond == "ve":
        expected = [math.log(0.02) + q * math.log(5000) for q in (0.25, 0.5, 0.75)]
    elif precond == "vp":
        expected = [float(vp_sigma(torch.tensor(q)).log()) for q in (0.25, 0.5, 0.75)]
    else:
        expected = [-0.6745 * 1.6, 0.0, 0.6745 * 1.6]
    assert quantiles == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("precond", list(SIGMA_RANGES))
def test_a_network_that_answers_zero_has_unit_loss(precond):
    """VP and VE then return the noisy image, with the noise as error; EDM too has unit loss, for data of sigma_data."""
    torch.manual_seed(0)
    net = GeNVS(small_config(precond=precond, centre_on_colours=False))
    with torch.no_grad():
        net.denoisers["rgb"].unet.conv_out.weight.zero_()
        net.denoisers["rgb"].unet.conv_out.bias.zero_()
    batch = some_batch(16)
    batch.targets.images.mul_(0.5 / batch.targets.images.std())
    terms = GeNVSLoss(LossConfig(), GeNVSConfig(denoiser=DenoiserConfig(precond=precond)), 0)(net, batch)
    assert terms.loss.shape == (16, 2)
    assert_close(terms.loss, torch.ones(16, 2), rtol=0.15, atol=0)
