"""Cameras, rays and trajectories in float64, against their definitions."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from genvs.geometry import (
    Cameras,
    generate_rays,
    interval_lengths,
    pixel_centers,
    project,
    stratified_depths,
    to_opencv,
    unproject,
)
from genvs.geometry.key_views import through
from genvs.geometry.trajectories import archimedean, orbit, spherical_c2w, spiral, srn_spiral
from tests.small_model import some_cameras

EXACT = {"rtol": 0, "atol": 1e-12}


def float64(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def cameras() -> Cameras:
    """[5, 3] cameras: fx != fy, principal points off centre, every one different."""
    return some_cameras(5, 3, dtype=torch.float64)


def test_project_inverts_unproject(cameras):
    generator = torch.Generator().manual_seed(3)
    uv = torch.rand(5, 3, 40, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    depth = 0.2 + 3 * torch.rand(5, 3, 40, generator=generator, dtype=torch.float64)
    uv_back, depth_back = project(unproject(uv, depth, cameras), cameras)
    assert_close(uv_back, uv, **EXACT)
    assert_close(depth_back, depth, **EXACT)


def test_project_is_the_textbook_formula():
    """One camera by hand: at (0, 0, -2), looking along +z, x right, y down; 200 x 100 pixels."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[2, 3] = -2
    pixels = torch.tensor([[150.0, 0, 90], [0, 120, 60], [0, 0, 1]], dtype=torch.float64)
    intrinsics = pixels / pixels.new_tensor([[200.0], [100.0], [1.0]])
    camera = Cameras(c2w, intrinsics, c2w.new_tensor(1.0), c2w.new_tensor(3.0))
    uv, depth = project(torch.tensor([[0.5, -0.25, 1.0]], dtype=torch.float64), camera)
    assert depth.item() == pytest.approx(3.0, abs=1e-15)
    column, row = 150 * 0.5 / 3 + 90, 120 * -0.25 / 3 + 60
    assert uv[0].tolist() == pytest.approx([column / 200, row / 100], abs=1e-15)


def test_a_point_in_the_cameras_plane_projects_far_outside_with_finite_gradients(cameras):
    camera = cameras[0, 0]
    point = (camera.centers + 0.5 * camera.c2w[:3, 0]).clone().requires_grad_()
    uv, depth = project(point[None], camera)
    assert abs(depth.item()) < 1e-12 and uv[0, 0].abs() > 1e4
    uv.sum().backward()
    assert point.grad is not None and point.grad.isfinite().all()


def test_w2c_is_the_inverse(cameras):
    identity = torch.eye(4, dtype=torch.float64).expand(5, 3, 4, 4)
    assert_close(cameras.w2c @ cameras.c2w, identity, **EXACT)
    assert_close(cameras.w2c, torch.linalg.inv(cameras.c2w), **EXACT)


def assert_same(a: Cameras, b: Cameras) -> None:
    assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Cameras))


def test_cameras_index_stack_cat_and_convert(cameras):
    assert cameras[2].shape == (3,) and cameras[:, 1:].shape == (5, 2) and cameras[torch.tensor([4, 0])].shape == (2, 3)
    assert torch.equal(cameras[2, 1].c2w, cameras.c2w[2, 1]) and torch.equal(cameras[2, 1].far, cameras.far[2, 1])
    assert_same(Cameras.stack([cameras[:, view] for view in range(3)], dim=1), cameras)
    assert_same(Cameras.cat([cameras[:, :1], cameras[:, 1:]], dim=1), cameras)
    single = cameras.to(torch.float32)
    kinds = [getattr(single, f.name).dtype for f in dataclasses.fields(Cameras)]
    assert kinds == [torch.float32] * 4 + [torch.int64] and not single.modality.any()


def test_opengl_cameras_stay_in_place_and_turn_y_and_z_around(cameras):
    opencv = to_opencv(cameras.c2w, "opengl")
    assert torch.equal(opencv[..., 3], cameras.c2w[..., 3]) and torch.equal(opencv[..., 0], cameras.c2w[..., 0])
    assert torch.equal(opencv[..., 1:3], -cameras.c2w[..., 1:3])
    assert torch.equal(to_opencv(cameras.c2w, "opencv"), cameras.c2w)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 7), (16, 16), (64, 32)])
def test_rays_pass_through_pixel_centers_and_their_parameter_is_depth(cameras, height, width):
    origins, directions = generate_rays(cameras, height, width)
    assert origins.shape == directions.shape == (5, 3, height, width, 3)
    depth = torch.linspace(0.3, 2.5, height * width, dtype=torch.float64).expand(5, 3, -1)
    points = origins.flatten(2, 3) + depth[..., None] * directions.flatten(2, 3)
    uv, depth_back = project(points, cameras)
    centers = pixel_centers(height, width, dtype=torch.float64).flatten(0, 1)
    assert_close(uv, centers.expand_as(uv), **EXACT)
    assert_close(depth_back, depth, **EXACT)
    assert_close(origins[..., 0, 0, :], cameras.centers, **EXACT)


def test_pixel_centers_are_half_a_pixel_from_the_edge():
    centers = pixel_centers(2, 4, dtype=torch.float64)
    assert centers.shape == (2, 4, 2)
    assert_close(centers[0, :, 0], float64([0.125, 0.375, 0.625, 0.875]), **EXACT)
    assert_close(centers[:, 0, 1], float64([0.25, 0.75]), **EXACT)
    coarse = pixel_centers(64, 64).unflatten(0, (32, 2)).unflatten(2, (32, 2)).mean(dim=(1, 3))
    assert_close(coarse, pixel_centers(32, 32), msg="no shift between resolutions")


def test_stratified_depths_lie_in_the_middle_or_by_jitter_in_their_bins():
    near, far = float64([0.8, 1.0]), float64([1.8, 3.0])
    middles = stratified_depths(near, far, 4)
    assert_close(middles[0], float64([0.925, 1.175, 1.425, 1.675]), **EXACT)
    assert_close(middles[1], float64([1.25, 1.75, 2.25, 2.75]), **EXACT)
    jitter = torch.rand(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jittered = stratified_depths(near, far, 4, jitter)
    width = ((far - near) / 4)[:, None]
    assert_close((jittered - near[:, None]) / width - torch.arange(4), jitter, **EXACT)


def test_interval_lengths_cover_the_range_between_the_planes():
    generator = torch.Generator().manual_seed(0)
    near, far = torch.rand(6, generator=generator).double() + 0.5, torch.rand(6, generator=generator).double() + 2
    jitter = torch.rand(6, 9, generator=generator).double()
    for depths in (stratified_depths(near, far, 9, jitter), stratified_depths(near, far, 9), near[:, None] + 0.1):
        lengths = interval_lengths(depths, near, far)
        assert lengths.shape == depths.shape and (lengths > 0).all()
        assert_close(lengths.sum(dim=-1), far - near, **EXACT)
    lengths = interval_lengths(torch.tensor([1.0, 2.0, 4.0]), torch.tensor(0.5), torch.tensor(5.0))
    assert_close(lengths, torch.tensor([1.0, 1.5, 2.0]))


def test_spherical_cameras_look_at_the_origin_with_x_horizontal():
    azimuth = torch.linspace(-7, 7, 29, dtype=torch.float64)[:, None]
    elevation = torch.linspace(-math.pi / 2, math.pi / 2, 9, dtype=torch.float64)  # both poles included
    c2w = spherical_c2w(azimuth, elevation, 1.7)
    assert c2w.shape == (29, 9, 4, 4) and c2w.isfinite().all()
    assert_close(torch.linalg.det(c2w), torch.ones(29, 9).double(), **EXACT)
    assert_close(c2w[..., :3, :3] @ c2w[..., :3, :3].mT, torch.eye(3).double().expand(29, 9, 3, 3), **EXACT)
    center, right, down, forward = c2w[..., :3, 3], c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2]
    assert_close(forward, -center / 1.7, **EXACT)
    assert_close(right[..., 2], torch.zeros(29, 9).double(), **EXACT)
    assert (down[:, 1:-1, 2] < 0).all(), "world z is up in the image"
    assert_close(center[..., 2], (1.7 * elevation.sin()).expand(29, 9), **EXACT)
    inside = slice(1, -1)
    angle = torch.atan2(center[:, inside, 1], center[:, inside, 0])
    wrapped = torch.remainder(angle - azimuth + math.pi, 2 * math.pi) - math.pi
    assert_close(wrapped, torch.zeros_like(wrapped), **EXACT)


def test_orbit_is_a_closed_horizontal_turn():
    c2w, azimuth = orbit(8, 1.5, elevation=0.3, start=0.2), 0.2 + torch.arange(8) * math.pi / 4
    assert_close(c2w, spherical_c2w(azimuth, torch.tensor(0.3), 1.5))


def angles(c2w: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Azimuth and elevation of cameras `[N, 4, 4]` that look at the origin from this distance."""
    x, y, z = unit = c2w[:, :3, 3].double().mT / radius
    assert_close(c2w[:, :3, 2].double().mT, -unit, rtol=0, atol=1e-6)
    return torch.atan2(y, x), torch.asin(z.clamp(-1, 1))


def test_spiral_climbs_from_the_horizon_to_the_top_and_back():
    azimuth, elevation = angles(spiral(60, 2.0, turns=2, highest=1.0), 2.0)
    assert_close(elevation[[0, 30]], float64([0, 1]), rtol=0, atol=1e-5)
    assert (elevation[:31].diff() > 0).all() and (elevation[30:].diff() < 0).all()
    turned = (azimuth.roll(-1) - azimuth) % (2 * math.pi)
    assert_close(turned, float64([2 * 2 * math.pi / 60] * 60), rtol=0, atol=1e-5)


def test_the_archimedean_spiral_goes_from_pole_to_pole_in_ten_turns():
    azimuth, elevation = angles(archimedean(), 1.3)
    assert_close(elevation[[0, -1]], float64([math.pi / 2, -math.pi / 2]), rtol=0, atol=1e-3)
    assert_close(elevation[1:-1].diff(), float64([-math.pi / 497] * 495), rtol=0, atol=1e-5)
    assert_close(azimuth[1:-1].diff() % (2 * math.pi), float64([20 * math.pi / 497] * 495), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "radius"), [("cars", 1.3), ("chairs", 2.0)])
def test_srn_spiral_is_that_of_the_datasets(shared, name, radius):
    recorded = np.loadtxt(shared / "data" / "srn_test_cameras" / f"{name}_c2w.txt").reshape(-1, 4, 4)
    assert len(recorded) == 251
    ours, recorded = srn_spiral(radius).double(), torch.from_numpy(recorded)
    assert_close(ours[:-1], recorded[:-1], rtol=0, atol=1e-5)
    # Over the pole, SRN's look-at degenerates and turns the image by a quarter. Place and direction are the same.
    assert_close(ours[-1, :, 2:], recorded[-1, :, 2:], rtol=0, atol=1e-5)


LENS = float64([[1.0, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])


def lenses(*focal: float) -> torch.Tensor:
    return torch.stack([LENS * float64([[scale], [scale], [1]]) for scale in focal])


@pytest.mark.parametrize("smooth", [False, True])
def test_a_path_passes_through_its_key_views_at_an_even_pace(smooth):
    """Of three key views a quarter of a turn apart, the second is halfway. Ends and the middle are exact."""
    keys = spherical_c2w(float64([0.1, 0.1 + math.pi / 2, 0.1 + math.pi]), float64([0.4, 0.4, 0.4]), 1.3)
    keys[:, :3, 3] += float64([0.3, -0.2, 0.1])  # they need not look at the origin
    c2w, intrinsics = through(keys, lenses(1, 2, 1.5), 101, smooth=smooth)
    unit_moves = keys[:, :3, 3].diff(dim=0).norm(dim=-1)
    middle = round(100 * float((unit_moves[0]) / unit_moves.sum()))
    assert c2w.dtype == torch.float64 and middle == 50
    assert_close(c2w[[0, 50, 100]], keys, rtol=0, atol=1e-9)
    assert_close(intrinsics[[0, 50, 100]], lenses(1, 2, 1.5), rtol=0, atol=1e-9)
    assert_close(c2w[:, :3, :3] @ c2w[:, :3, :3].mT, torch.eye(3).double().expand(101, 3, 3), **EXACT)
    speeds = c2w[:, :3, 3].diff(dim=0).norm(dim=-1)
    assert speeds.max() < 1.5 * speeds.min()


def test_a_line_is_straight_and_turns_at_a_constant_rate():
    keys = spherical_c2w(float64([0.0, 1.0]), float64([0.2, 0.5]), float64([1.0, 2.0]))
    c2w, _ = through(keys, lenses(1, 1), 5, smooth=False)
    share = torch.arange(5).double()[:, None] / 4
    assert_close(c2w[:, :3, 3], keys[0, :3, 3].lerp(keys[1, :3, 3], share), **EXACT)
    turns = c2w[:-1, :3, :3].mT @ c2w[1:, :3, :3]
    assert_close(turns, turns[:1].expand_as(turns), rtol=0, atol=1e-12)


def test_a_smooth_path_between_views_of_the_origin_is_of_views_of_the_origin():
    """And it keeps their distance; along lines, both would be lost."""
    keys = spherical_c2w(float64([0.0, 1.5, 2.5, 4.5]), float64([0.2, 0.5, -0.3, 0.2]), 1.3)
    c2w, _ = through(keys, lenses(1, 1, 1, 1), 60, smooth=True)
    assert_close(c2w[:, :3, 3], -1.3 * c2w[:, :3, 2], rtol=0, atol=1e-9)
    rate = c2w[:, :3, 3].diff(dim=0)  # no kink at the keys: the acceleration stays small
    assert rate.diff(dim=0).norm(dim=-1).max() < 0.2 * rate.norm(dim=-1).min()


def test_key_views_that_repeat_and_a_single_one():
    key = spherical_c2w(float64([0.3]), float64([0.2]), 1.3)
    other = spherical_c2w(float64([1.3]), float64([0.2]), 1.3)
    c2w, intrinsics = through(key.repeat(2, 1, 1), lenses(1, 1), 3, smooth=True)
    assert_close(c2w, key.expand(3, 4, 4))
    assert_close(intrinsics, lenses(1, 1, 1))
    repeated = through(torch.cat([key, key, other, other]), lenses(1, 1, 2, 2), 4, smooth=True)
    for found, expected in zip(repeated, through(torch.cat([key, other]), lenses(1, 2), 4, smooth=True), strict=True):
        assert_close(found, expected)
    assert_close(through(torch.cat([key, other]), lenses(1, 2), 1, smooth=False)[0], key, **EXACT)


def test_geometry_is_untouched_by_autocast():
    """Matrix products have 8 bits there."""
    cameras = some_cameras(5)
    points = torch.rand(5, 100, 3, generator=torch.Generator().manual_seed(0)) - 0.5

    def everything() -> list[torch.Tensor]:
        uv, depth = project(points, cameras)
        return [cameras.w2c, uv, depth, unproject(uv, depth, cameras), *generate_rays(cameras, 8, 8)]

    exact = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (points @ cameras.w2c[:, :3, :3].mT).dtype == torch.bfloat16
        assert all(map(torch.equal, everything(), exact))
