"""Volume rendering: the operations in float64 against closed forms."""

import math

import pytest
import torch
from torch.testing import assert_close

from genvs.geometry import Cameras, generate_rays, interval_lengths, stratified_depths
from genvs.ops.reference import composite, resample_volume, sample_volume
from tests.small_model import some_cameras

EXACT = {"rtol": 0, "atol": 1e-12}
FLOAT64 = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT64)


# Compositing


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 100.0, 1e6])
def test_weights_and_final_transmittance_sum_to_one(scale):
    density, deltas = scale * random(50, 17), random(50, 17, seed=1)
    _, weights, transmittance = composite(density, random(50, 17, 3, seed=2), deltas)
    assert (weights >= 0).all() and (transmittance >= 0).all()
    assert_close(weights.sum(dim=-1) + transmittance, torch.ones(50, dtype=FLOAT64), **EXACT)
    assert_close(transmittance, torch.exp(-(density * deltas).sum(dim=-1)), **EXACT)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_one_opaque_sample_hides_all_behind_it_and_renders_itself(place):
    """Its weight is 1 wherever it is, also at the end, because transmittance excludes the sample's own interval."""
    density = torch.zeros(8, dtype=FLOAT64)
    density[place], density[place + 1 :] = 1e9, 5.0
    features = random(8, 3)
    rendered, weights, transmittance = composite(density, features, torch.full((8,), 0.1, dtype=FLOAT64))
    assert_close(weights, torch.eye(8, dtype=FLOAT64)[place], **EXACT)
    assert_close(rendered, features[place], **EXACT)
    assert transmittance == 0


def test_a_huge_interval_behind_an_opaque_sample_does_not_cancel():
    """In float32, cumsum - own would lose the samples in front of an optical depth of 1e10."""
    density, deltas = torch.tensor([2.0, 3.0, 1.0]), torch.tensor([0.5, 0.5, 1e10])
    _, weights, _ = composite(density, torch.ones(3, 1), deltas)
    expected = torch.tensor([1 - math.exp(-1), math.exp(-1) * (1 - math.exp(-1.5)), math.exp(-2.5)])
    assert_close(weights, expected)


def sphere_errors(cameras: Cameras, num_samples: int, density: float, radius: float) -> torch.Tensor:
    """Errors of the opacity of a sphere at the origin along all rays, against 1 - exp(-density * chord)."""
    origins, directions = generate_rays(cameras, 12, 12)
    near, far = (plane[:, None, None].expand(-1, 12, 12) for plane in (cameras.near, cameras.far))
    depths = stratified_depths(near, far, num_samples)
    points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
    inside = points.norm(dim=-1) < radius
    length = directions.norm(dim=-1, keepdim=True)
    ones = torch.ones_like(points[..., :1])
    opacity, _, _ = composite(inside * density, ones, interval_lengths(depths, near, far) * length)
    unit = directions / length
    closest = (origins**2).sum(dim=-1) - (origins * unit).sum(dim=-1) ** 2
    chord = 2 * (radius**2 - closest).clamp_min(0).sqrt()
    assert 0.1 < (chord > 0).double().mean() < 0.9, "some rays must hit and some must miss"
    return (opacity[..., 0] - (1 - torch.exp(-density * chord))).abs()


def test_an_analytic_sphere_and_its_convergence():
    cameras, density, radius = some_cameras(4, dtype=FLOAT64), 2.0, 0.35
    errors = {samples: sphere_errors(cameras, samples, density, radius) for samples in (32, 128, 512, 2048)}
    for samples, error in errors.items():
        # Along a ray the length inside the samples differs from the chord by at most one interval.
        longest = 1.3 * float((cameras.far - cameras.near).max()) / samples
        assert error.max() < 1.001 * density * longest, samples
    means = [error.mean().item() for error in errors.values()]
    for coarse, fine in zip(means[:-1], means[1:], strict=True):
        assert 2.5 < coarse / fine < 6.5, "the error of a sharp edge falls with the first power of the interval"
    assert means[-1] < 2e-4


# Sampling of volumes


def voxel_centers(depth: int, height: int, width: int) -> torch.Tensor:
    """uvw `[D, H, W, 3]`."""
    w, v, u = ((torch.arange(n, dtype=FLOAT64) + 0.5) / n for n in (depth, height, width))
    return torch.stack(torch.meshgrid(w, v, u, indexing="ij")[::-1], dim=-1)


def test_a_linear_ramp_is_reproduced_between_the_centers():
    centers = voxel_centers(4, 5, 6)
    slopes = torch.tensor([[2.0, 0, 0], [0, -3, 0], [0, 0, 5], [1, 1, 1]], dtype=FLOAT64)
    volume = torch.einsum("cx,dhwx->cdhw", slopes, centers)[None]
    low, high = centers[0, 0, 0], centers[-1, -1, -1]
    uvw = low + (high - low) * random(1, 200, 3)
    assert_close(sample_volume(volume, uvw), torch.einsum("cx,npx->ncp", slopes, uvw), **EXACT)


def test_a_volume_of_ones_is_one_everywhere_to_its_borders():
    volume = torch.ones(1, 2, 4, 5, 6, dtype=FLOAT64)
    corners = torch.tensor([[u, v, w] for u in (0.0, 1.0) for v in (0.0, 1.0) for w in (0.0, 1.0)], dtype=FLOAT64)
    edges = torch.cat([corners, (corners + corners.roll(1, 0)) / 2, random(200, 3)])
    assert_close(sample_volume(volume, edges[None]), torch.ones(1, 2, len(edges), dtype=FLOAT64), **EXACT)


def test_a_volume_at_its_own_centers_is_itself_and_beyond_its_borders_it_is_nothing():
    volume, centers = random(1, 2, 4, 5, 6), voxel_centers(4, 5, 6)[None]
    assert_close(resample_volume(volume, centers), volume, **EXACT)
    assert_close(resample_volume(volume, 1 - centers), volume.flip(2, 3, 4), **EXACT)
    ones = torch.ones_like(volume)
    for axis in range(3):
        for edge, beyond in ((0.0, -1e-9), (1.0, 1 + 1e-9)):
            for place, value in ((edge, 1.0), (beyond, 0.0)):
                places = centers.clone()
                places[..., axis] = place
                assert_close(resample_volume(ones, places), value * ones, **EXACT)
