"""Distillation and its sampler, on Gaussian data, whose ODE has a closed solution."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from genvs.diffusion.samplers import sample_consistency
from genvs.models import GeNVS
from tests.small_model import SIZE, small_config, some_batch
from tests.small_training import small_run
from training.distillation import HUBER, LAST_SIGMA, TEACHER_STEPS, DistillationLoss, solved

STD = 0.5  # of the data, whose mean is 0


def solution(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function: where the ODE dx / dsigma = sigma x / (std^2 + sigma^2) leads from `noisy`."""
    return noisy * STD / (STD**2 + sigma**2).sqrt()


def denoised(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The expected datum."""
    return noisy * STD**2 / (STD**2 + sigma**2)


@pytest.mark.parametrize(("top", "error"), [(80.0, 0.09), (0.1, 0.006)])
def test_the_teachers_ode_is_solved_at_each_images_own_level(top, error):
    """As well as six evaluations can; each image as if it were alone."""
    sigma = torch.tensor([top, 0.3], dtype=torch.float64)[:, None]
    noisy = sigma * torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calls = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma)
        return denoised(noisy, sigma)

    first, found = solved(denoise, noisy, sigma)
    assert_close(first, denoised(noisy, sigma))
    assert (found - solution(noisy, sigma)).abs().max() < error * 4 * STD
    assert len(calls) == TEACHER_STEPS
    assert_close(calls[-1], torch.full_like(sigma, LAST_SIGMA))
    assert_close(found[1:], solved(denoised, noisy[1:], sigma[1:])[1])


class Teacher(GeNVS):
    """A network that knows Gaussian data, and has seen the conditioning of the student."""

    def denoise_targets(self, feature_image, noisy, sigma, keep_conditioning, keys, labels=None) -> Tensor:
        self.seen = feature_image, keep_conditioning, keys
        return denoised(noisy, sigma)


def test_the_loss_is_the_distance_to_the_teachers_image():
    num_scenes = 100
    feature_image, given = torch.rand(num_scenes, 2, 16, SIZE, SIZE), {}

    def net(**arguments) -> tuple[Tensor, Tensor]:
        given.update(arguments)
        return arguments["noisy"] * 0.1, feature_image

    config, teacher = small_run("nowhere", distill_steps=2), Teacher(small_config())
    terms = DistillationLoss(config, teacher)(net, some_batch(num_scenes))
    noisy, sigma = given["noisy"].double(), given["sigma"].double()
    first, last = sigma == 80, sigma == torch.tensor(0.1).double()
    assert 70 < first.sum() < 130 and 30 < last.sum() < 70 and 30 < (~(first | last)).sum() < 70
    assert len(set(sigma.flatten().tolist())) > 30, "the other levels are those of training"
    wanted = torch.where(first | last, solved(denoised, noisy, sigma)[1], denoised(noisy, sigma))
    error = (0.1 * noisy - wanted).square().mean(dim=(2, 3, 4))
    assert_close(terms.loss.double(), (error + HUBER**2).sqrt() - HUBER, rtol=1e-3, atol=1e-4)
    for seen, expected in zip(teacher.seen, (feature_image, given["keep_conditioning"], given["keys"]), strict=True):
        assert torch.equal(seen, expected)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_samples_have_the_datas_deviation(num_steps):
    noise = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    asked = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        asked.append(sigma.item())
        return solution(noisy, sigma)

    samples = sample_consistency(denoise, noise, num_steps=num_steps)
    assert asked == pytest.approx([80 * (0.1 / 80) ** (n / max(num_steps - 1, 1)) for n in range(num_steps)])
    assert samples.dtype == torch.float32 and samples.std().item() == pytest.approx(STD, rel=0.02)
    alone = sample_consistency(solution, noise[7:8], num_steps=num_steps)
    assert torch.equal(alone, samples[7:8]), "a view depends on its own noise alone"
    if num_steps > 1:
        once = sample_consistency(solution, noise, num_steps=1)
        correlation = float((once * samples).mean() / STD**2)
        assert correlation < 0.985, "noise that is added again is other noise"
