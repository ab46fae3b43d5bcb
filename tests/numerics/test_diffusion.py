"""Noise levels and samplers: against Gaussian data, whose ODE has a closed solution, and mixtures of Gaussians."""

import functools
import math

import pytest
import torch
from torch.testing import assert_close

from genvs.diffusion.noise import karras_steps
from genvs.diffusion.samplers import SAMPLERS, sample_heun

MEAN, STD = 0.3, 0.5  # of the data


def gaussian_denoiser(noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The expected datum, of a normal prior and a normal observation; in float64, so that only steps cause errors."""
    noisy, sigma = noisy.double(), sigma.double()
    return (STD**2 * noisy + sigma**2 * MEAN) / (STD**2 + sigma**2)


def gaussian_solution(noise: torch.Tensor, sigma_max: float) -> torch.Tensor:
    """dx/dsigma = (x - D) / sigma = sigma (x - mean) / (std^2 + sigma^2), solved from sigma_max to 0."""
    return MEAN + (sigma_max * noise - MEAN) * STD / math.hypot(STD, sigma_max)


def some_noise(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# Noise levels


@pytest.mark.parametrize("num_steps", [2, 25])
@pytest.mark.parametrize("rho", [7, math.inf])
def test_steps_go_from_sigma_max_over_sigma_min_to_zero(num_steps, rho):
    """Equal steps of sigma^(1 / rho); in the limit, of ln sigma."""
    steps = karras_steps(num_steps, 0.002, 80.0, rho)
    assert steps.shape == (num_steps + 1,) and steps.dtype == torch.float64
    assert (steps[0].item(), steps[-2].item(), steps[-1].item()) == pytest.approx((80, 0.002, 0), rel=1e-9)
    widths = (steps[:-1].log() if math.isinf(rho) else steps[:-1] ** (1 / rho)).diff()
    assert (widths < 0).all()
    assert_close(widths, widths.mean().expand(num_steps - 1))


# The samplers


def sample(noise: torch.Tensor, num_steps: int, **options) -> torch.Tensor:
    return sample_heun(gaussian_denoiser, noise, num_steps=num_steps, **options).double()


@pytest.mark.parametrize(
    ("name", "options", "rates"),
    # UniPC's corrector adds one to the order of the predictor, two (arXiv 2302.04867, theorem 3.1).
    [("heun", {}, (3.5, 5)), ("unipc", {"sigma_min": 1e-4, "sigma_end": 0.0}, (5, 11))],
)
def test_the_ode_is_solved_to_the_samplers_order(name, options, rates):
    noise = some_noise(200)
    exact = gaussian_solution(noise, 80.0)
    solutions = [SAMPLERS[name].sample(gaussian_denoiser, noise, num_steps=n, **options) for n in (32, 64, 128, 256)]
    errors = [(solution - exact).abs().max().item() for solution in solutions]
    for coarse, fine in zip(errors[:2], errors[1:3], strict=True):
        assert rates[0] < coarse / fine < rates[1], errors
    assert errors[-1] < 4e-4


@functools.cache
def mixture(components: int, dimensions: int, std: float, spread: float):
    """The denoiser of a mixture of Gaussians, some noise, and the ODE's solution from it, at its finest."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(components, dimensions, generator=generator, dtype=torch.float64) * spread

    def denoise(noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        noisy, variance = noisy.double(), std**2 + sigma.double() ** 2
        share = torch.softmax(-(torch.cdist(noisy, means) ** 2) / (2 * variance), dim=1)
        return (std**2 * noisy + sigma.double() ** 2 * share @ means) / variance

    noise = torch.randn(200, dimensions, generator=generator, dtype=torch.float64)
    return denoise, noise, sample_heun(denoise, noise, num_steps=400)


@pytest.mark.parametrize("data", [(8, 16, 0.2, 0.5), (32, 64, 0.1, 0.1)], ids=["well apart", "overlapping"])
def test_unipc_needs_a_quarter_of_heuns_evaluations(data):
    denoise, noise, solution = mixture(*data)

    def error(sampler: str, evaluations: int) -> float:
        """Root mean square over dimensions, median over samples: a few start on the border between two solutions."""
        candidates = {SAMPLERS[sampler].evaluations(steps): steps for steps in range(1, 30)}
        samples = SAMPLERS[sampler].sample(denoise, noise, num_steps=candidates[evaluations])
        return (samples - solution).square().mean(dim=1).sqrt().median().item()

    heun = error("heun", 49)
    assert error("unipc", 12) < 1.1 * heun
    assert error("unipc", 10) < 2.5 * heun
    assert error("unipc", 16) < 0.6 * heun
    assert error("heun", 11) > 15 * heun, "fewer steps of Heun are no way out"


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigma_max", [80.0, 10.0])
def test_one_step_is_the_denoisers_estimate_at_sigma_max(name, sigma_max):
    noise = some_noise(50).float()[:, None]
    expected = gaussian_denoiser(noise * sigma_max, torch.tensor(sigma_max))
    samples = SAMPLERS[name].sample(gaussian_denoiser, noise, num_steps=1, sigma_max=sigma_max)
    assert_close(samples.double(), expected, rtol=0, atol=1e-5)


HEUN_LEVELS = karras_steps(4, 0.1, 10, 7).tolist()


@pytest.mark.parametrize(
    ("name", "sigma_min", "expected"),
    [
        ("heun", 0.1, [HEUN_LEVELS[index] for index in (0, 1, 1, 2, 2, 3, 3)]),
        ("unipc", 0.1, karras_steps(4, 0.1, 10, math.inf)[:-1].tolist()),
        ("unipc", 0.001, karras_steps(4, 0.015, 10, math.inf)[:-1].tolist()),
    ],
)
def test_what_the_denoiser_is_asked(name, sigma_min, expected):
    """As many evaluations as the table says, in float32, with a scalar level, at the levels of karras_steps."""
    asked: list[float] = []

    def denoise(noisy, sigma):
        assert noisy.dtype == sigma.dtype == torch.float32 and sigma.shape == ()
        asked.append(sigma.item())
        return gaussian_denoiser(noisy, sigma)

    result = SAMPLERS[name].sample(denoise, some_noise(3), num_steps=4, sigma_min=sigma_min, sigma_max=10)
    assert result.dtype == torch.float32
    assert len(asked) == SAMPLERS[name].evaluations(4)
    assert asked == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("S_churn", "num_steps"), [(20.0, 128), (100.0, 256)])
def test_churn_keeps_the_marginals(S_churn, num_steps):
    noise = some_noise(30000)
    churned = sample(noise, num_steps, S_churn=S_churn, rng=torch.Generator().manual_seed(1))
    assert churned.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert churned.std().item() == pytest.approx(STD, rel=0.015)
    correlation = torch.corrcoef(torch.stack([churned, noise]))[0, 1]
    assert correlation < 0.5, "the churn replaces most of the noise that it began with"


def test_churn_is_repeatable_and_bounded_by_its_levels():
    noise = some_noise(10)

    def churned(seed: int, **options) -> torch.Tensor:
        return sample(noise, 8, S_churn=4.0, rng=torch.Generator().manual_seed(seed), **options)

    assert torch.equal(churned(0), churned(0))
    assert (churned(0) - churned(1)).abs().max() > 0.01
    assert torch.equal(churned(0, S_min=1e3), sample(noise, 8)), "no level is above S_min"
    assert torch.equal(churned(0, S_max=1e-3), sample(noise, 8)), "no level is below S_max"
