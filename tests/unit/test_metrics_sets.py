"""Distances between sets of images, and the diversity of samples: on Gaussians, on blurred and on noisy images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from torch import Tensor

from genvs.metrics.distributions import SetMetrics, frechet_distance
from genvs.metrics.perceptual import diversity, image_metric
from genvs.metrics.wasserstein import laplacian_pyramid, random_patches, sliced_wasserstein
from tests.unit.test_metrics_perceptual import LPIPS_IS_THERE, VGG_IS_THERE


def shapes(count: int = 32, side: int = 32, seed: int = 0) -> Tensor:
    """Rectangles of random colours on white, `[count, 3, side, side]` in [-1, 1]."""
    rng, images = np.random.default_rng(seed), torch.ones(count, 3, side, side)
    for image in images:
        for _ in range(6):
            (row, column), (height, width) = rng.integers(side * 3 // 4, size=2), rng.integers(4, side // 2, size=2)
            image[:, row : row + height, column : column + width] = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1)))
    return images


def blurred(images: Tensor, sigma: float) -> Tensor:
    kernel = (-torch.arange(-8, 9.0).square() / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (8, 8, 8, 8), mode="replicate")
    return F.conv2d(padded, (kernel[:, None] * kernel).expand(3, 1, 17, 17), groups=3)


def noisy(images: Tensor, std: float) -> Tensor:
    return images + std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def swd(real: Tensor, drawn: Tensor) -> list[float]:
    """Finest level first."""
    return sliced_wasserstein(random_patches(real, 32), random_patches(drawn, 32)).tolist()


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int) -> Tensor:
    """Samples `[count, C]` that have exactly this mean and this covariance."""
    samples = np.random.default_rng(0).normal(size=(count, len(mean)))
    samples -= samples.mean(axis=0)
    samples = samples @ np.linalg.inv(np.linalg.cholesky(np.cov(samples.T)).T)
    return torch.from_numpy(samples @ np.linalg.cholesky(covariance).T + mean)


def test_the_frechet_distance_is_the_closed_form_of_gaussians():
    rng = np.random.default_rng(1)
    (mean_a, mean_b), roots = rng.normal(size=(2, 5)), rng.normal(size=(2, 5, 5))
    cov_a, cov_b = (root @ root.T + 0.1 * np.eye(5) for root in roots)
    a, b = with_moments(mean_a, cov_a, 30), with_moments(mean_b, cov_b, 50)
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    # Of independent features, the sum of (difference of means)^2 + (difference of standard deviations)^2.
    one, other = (with_moments(np.full(2, m), np.diag([s**2, 1]), 9) for m, s in ((1, 2), (4, 0.5)))
    assert frechet_distance(one, other) == pytest.approx(9 + 2.25 + 9)


def test_the_frechet_distance_needs_no_more_samples_than_features():
    a = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 1) == pytest.approx(64, rel=1e-5)


@pytest.mark.parametrize("side", [32, 50, 64])
def test_a_pyramid_holds_the_image_scale_by_scale(side):
    levels = laplacian_pyramid(shapes(2, side))
    assert 16 <= levels[-1].shape[-1] < 32 and [level.shape[-1] for level in levels[:-1]] == [side, 32][: side // 32]
    flat = laplacian_pyramid(torch.full((1, 3, side, side), 0.7))
    assert all(level.abs().max() < 1e-6 for level in flat[:-1]), "up to the borders"
    assert torch.allclose(flat[-1], torch.tensor(0.7))


def test_swd_is_zero_for_equal_sets_and_always_the_same():
    real, other = shapes(), shapes(seed=1)
    assert swd(real, real) == [0, 0]
    patches = random_patches(real, 32)
    assert sliced_wasserstein(patches, torch.cat([patches] * 3)).max() < 1e-5, "samples of three seeds"
    before = torch.get_rng_state()
    assert swd(real, other) == swd(real, other) and min(swd(real, other)) > 0.01
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("spoiled", "amounts"), [(blurred, (0.3, 0.5, 1.0, 2.0)), (noisy, (0.01, 0.03, 0.1, 0.3))])
def test_swd_grows_with_blur_and_with_noise(spoiled, amounts):
    real = shapes()
    finest, coarsest = zip(*(swd(real, spoiled(real, amount)) for amount in amounts), strict=True)
    assert list(finest) == sorted(finest) and list(coarsest) == sorted(coarsest)
    assert all(fine > 2 * coarse for fine, coarse in zip(finest, coarsest, strict=True)), "details suffer first"


def test_swd_tells_scales_apart():
    real = shapes(16, 64)
    place = torch.arange(64)
    details = swd(real, real + 0.1 * ((place + place[:, None]) % 2 * 2 - 1))
    assert details[0] > 0.05 and max(details[1:]) < 1e-4
    light = swd(real, real + 0.5 * torch.linspace(-1, 1, 64))
    assert light[-1] > 4 * max(light[:-1])


def test_swd_of_constant_images_is_a_number():
    assert all(0 < value < 100 for value in swd(shapes(), torch.ones(32, 3, 32, 32)))


def test_sets_are_added_object_by_object():
    real, drawn = ((images + 1).mul(127.5).byte() for images in (shapes(12), shapes(12, seed=1)))
    metrics = SetMetrics(["swd"], ["samples", "nearest"], "cpu", num_images=24)
    for part, other in zip(real.split(4), drawn.split(4), strict=True):
        metrics.add(part)
        metrics.add(part, "nearest")
        for sample in (part, other):
            metrics.add(sample, "samples")
    assert metrics.compute("nearest", 12) == {"swd": 0} and metrics.compute("samples", 12)["swd"] > 1


@pytest.mark.skipif(not VGG_IS_THERE, reason="VGG16's weights are not in torch.hub's folder")
def test_the_distance_in_vgg16s_features_grows_with_blur():
    real = shapes(16)
    sets = {None: real, "same": real, **{str(sigma): blurred(real, sigma) for sigma in (0.5, 1, 2)}}
    metrics = SetMetrics(["fd_vgg"], filter(None, sets), "cpu", num_images=16)
    for name, images in sets.items():
        metrics.add((images + 1).mul(127.5).round().byte(), name)
    same, *found = (metrics.compute(name, 16)["fd_vgg"] for name in filter(None, sets))
    assert same == pytest.approx(0, abs=1e-3)
    assert found[0] > 1 and found[1] > 2 * found[0] and found[2] > 2 * found[1]


def test_diversity_is_the_mean_distance_of_all_pairs_of_samples():
    first, second = shapes(4), shapes(4, seed=1)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    assert diversity(torch.stack([first] * 3), distance) == 0
    expected = 2 / 3 * float(distance(first, second).mean())
    assert diversity(torch.stack([first, second, first]), distance) == pytest.approx(expected)


@pytest.mark.skipif(not LPIPS_IS_THERE, reason="LPIPS's weights are not there")
def test_diversity_by_lpips():
    lpips, real = image_metric("lpips_vgg", "cpu"), shapes(4)
    same, near, far = (diversity(torch.stack([real, noisy(real, std)]), lpips) for std in (0, 0.1, 0.3))
    assert same == pytest.approx(0, abs=1e-6) and 0.02 < near < far
