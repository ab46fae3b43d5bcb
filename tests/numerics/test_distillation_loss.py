"""Distillation and its sampler, on Gaussian data, whose ODE has a closed solution."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from genvs.diffusion.samplers import sample_consistency
from genvs.models import GeNVS
from tests.small_model import SIZE, small_config, some_batch
from tests.small_training import small_run
from training.distillation import HUBER, LAST_SIGMA, DistillationLoss, MatchingLoss, solved

STD = 0.5  # of the data, whose mean is 0


def solution(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function: where the ODE dx / dsigma = sigma x / (std^2 + sigma^2) leads from `noisy`."""
    return noisy * STD / (STD**2 + sigma**2).sqrt()


def denoised(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The expected datum."""
    return noisy * STD**2 / (STD**2 + sigma**2)


@pytest.mark.parametrize(
    ("top", "other", "error", "steps"), [(80.0, 0.3, 0.09, 6), (0.1, 0.3, 0.006, 6), (0.1, 0.05, 0.006, 3)]
)
def test_the_teachers_ode_is_solved_at_each_images_own_level(top, other, error, steps):
    """As well as so few evaluations can; each image as if it were alone."""
    sigma = torch.tensor([top, other], dtype=torch.float64)[:, None]
    noisy = sigma * torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calls = []

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma)
        return denoised(noisy, sigma)

    first, found = solved(denoise, noisy, sigma, steps)
    assert_close(first, denoised(noisy, sigma))
    assert (found - solution(noisy, sigma)).abs().max() < error * 4 * STD
    assert len(calls) == steps
    assert_close(calls[-1], torch.full_like(sigma, LAST_SIGMA))
    assert_close(found[1:], solved(denoised, noisy[1:], sigma[1:], steps)[1])


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
    wanted = torch.where(first | last, solved(denoised, noisy, sigma, 6)[1], denoised(noisy, sigma))
    wanted = torch.where(last, wanted.clamp(-1, 1), wanted)
    error = (0.1 * noisy - wanted).square().mean(dim=(2, 3, 4))
    assert_close(terms.loss.double(), (error + HUBER**2).sqrt() - HUBER, rtol=1e-3, atol=1e-4)
    for seen, expected in zip(teacher.seen, (feature_image, given["keep_conditioning"], given["keys"]), strict=True):
        assert torch.equal(seen, expected)


@pytest.mark.parametrize(("steps", "at_the_last_level"), [(1, 0.3), (2, 0.0)])
def test_what_the_second_step_makes_whiter_than_white_is_white(steps, at_the_last_level):
    class White(Teacher):
        def denoise_targets(self, feature_image, noisy, *others) -> Tensor:
            return torch.full_like(noisy, 1.2)

    def net(*, noisy: Tensor, **others: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(noisy, 1.5), noisy.new_zeros(*noisy.shape[:2], 16, SIZE, SIZE)

    loss = DistillationLoss(small_run("nowhere", distill_steps=steps), White(small_config()))
    terms = loss(net, some_batch(100))
    distance = torch.where(terms.sigma == loss.levels[-1], at_the_last_level, 0.3)
    assert_close(terms.loss, (distance**2 + HUBER**2).sqrt() - HUBER)


class Drawing:
    """A few-step network with one weight: its images are the noise times it, at every level. And its critic."""

    def __init__(self, std: float) -> None:
        self.std = torch.tensor(std, requires_grad=True)
        self.calls: list[dict[str, Tensor]] = []

    def __call__(self, **given: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(given)
        noisy = given["noisy"]
        return noisy * self.std / noisy.std(), noisy.new_zeros(*noisy.shape[:2], 16, SIZE, SIZE)

    def critic(self, **given: Tensor) -> tuple[Tensor, None]:
        """The expected image, if images were those that are drawn."""
        self.judged = given
        variance = self.std.detach() ** 2
        return given["noisy"] * variance / (variance + given["sigma"] ** 2), None


def matching(std: float, num_scenes: int = 300, steps: int = 2) -> tuple[Drawing, Tensor]:
    """A network after the backward pass of a loss, and the loss of each image."""
    config = small_run("nowhere", distill_steps=steps, matching_kimg=1.0)
    drawing = Drawing(std)
    loss = MatchingLoss(config, Teacher(small_config()), drawing.critic)
    terms = loss(drawing, some_batch(num_scenes))
    matched = terms.sigma == 80
    terms.loss[matched].mean().backward()
    return drawing, terms.loss.detach()[matched]


def test_distribution_matching_leads_to_the_datas_deviation():
    """What is drawn too faint becomes stronger, what is too strong fainter, and what is right stays."""
    (faint, _), (right, loss), (strong, _) = map(matching, (0.8 * STD, STD, 1.2 * STD))
    assert faint.std.grad < 0 < strong.std.grad
    assert loss.max() < 1e-6
    assert abs(right.std.grad) < 1e-3 * min(-faint.std.grad, strong.std.grad)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_second_step_is_trained_on_what_the_first_one_draws(steps):
    drawing, _ = matching(0.3, steps=steps)
    first, trained = drawing.calls
    assert (first["sigma"] == 80).all() and first["noisy"].std().item() == pytest.approx(80, rel=0.01)
    second = (trained["sigma"] == torch.tensor(0.1)).flatten()
    assert second.any() == (steps == 2)
    if steps == 2:
        noise = (trained["noisy"] - first["noisy"] * 0.3 / first["noisy"].std()).flatten(0, 1)[second]
        assert noise.std().item() == pytest.approx(0.1, rel=0.01)
    levels = drawing.judged["sigma"].flatten()
    assert len(set(levels.tolist())) > 250, "images are judged at the levels of training"


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
