"""The charts of all sensors: inverses, rays, matrices, rendering that keeps the range; and how pictures are coded."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from genvs.errors import InputError
from genvs.geometry import pixel_centers
from genvs.geometry.projections import PROJECTIONS, Slant
from genvs.modalities import MODALITIES, coded, depth_coded, depth_decoded, from_levels, modality_names, to_levels
from genvs.ops import reference
from genvs.ops.reference import FieldLayers, Known, RaySamples
from tests.small_model import some_cameras

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SOLID = 60.0  # a first channel for which `opaque_field` is opaque
KINDS = pytest.mark.parametrize("kind", PROJECTIONS)


@pytest.fixture(scope="module")
def cameras():
    return some_cameras(2, 3, dtype=torch.float64)


def inside(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@KINDS
def test_a_chart_and_its_inverse(kind, cameras):
    uvw = inside(2, 3, 50)
    points = PROJECTIONS[kind].points(uvw, cameras)
    assert_close(PROJECTIONS[kind].chart(points, cameras), uvw, **EXACT)


def test_a_point_is_where_its_sensor_sees_it():
    """By hand: a camera at the origin that looks along +z, with a focal length of half a picture (T = 90 degrees)."""
    camera = some_cameras(1, dtype=torch.float64)
    intrinsics = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    camera = type(camera)(torch.eye(4, dtype=torch.float64)[None], intrinsics, one, 3 * one)
    right_and_up = torch.tensor([[[0.5, -0.25, 1.5]]], dtype=torch.float64)
    distance = math.sqrt(0.5**2 + 0.25**2 + 1.5**2)
    expected = {
        "pinhole": (0.5 * 0.5 / 1.5 + 0.5, 0.5 - 0.5 * 0.25 / 1.5, 0.25),
        "slant": (0.75, 0.75, 0.375),
        "fan": (
            math.atan(0.5 / 1.5) / (math.pi / 2) + 0.5,
            (3 - distance) / 2,
            math.asin(-0.25 / distance) / (math.pi / 2) + 0.5,
        ),
    }
    for kind, place in expected.items():
        found = PROJECTIONS[kind].chart(right_and_up, camera)
        assert_close(found[0, 0], torch.tensor(place, dtype=torch.float64), **EXACT)


@KINDS
def test_rays_pass_through_the_kept_coordinates(kind, cameras):
    """A point at some depth or range along a ray has the ray's two angles, or places, in the chart."""
    projection, width = PROJECTIONS[kind], 6
    origins, directions = projection.rays(cameras, width)
    share = inside(2, 3, width * width)[..., :1]
    near, far = cameras.near[..., None, None], cameras.far[..., None, None]
    chart = projection.chart(origins + (near + share * (far - near)) * directions, cameras)
    centers = pixel_centers(width, width, dtype=torch.float64)
    if projection.keeps_range:  # azimuths from the left, and within each the elevations from the top
        angles = centers.transpose(0, 1).flatten(0, 1)
        assert_close(chart[..., [0, 2]], angles.expand(2, 3, -1, -1), **EXACT)
        assert_close(chart[..., 1:2], 1 - share, **EXACT)
        assert_close(directions.norm(dim=-1), torch.ones_like(share[..., 0]), **EXACT)
    else:
        assert_close(chart[..., :2], centers.flatten(0, 1).expand(2, 3, -1, -1), **EXACT)
        assert_close(chart[..., 2:], share, **EXACT)


@KINDS
def test_the_matrix_finds_the_places_of_world_points_in_a_volume(kind, cameras):
    """Also of a fan: its volume is resampled into the slant chart."""
    projection = PROJECTIONS[kind]
    chart = Slant() if kind == "fan" else projection
    uvw = inside(2, 3, 50)
    points = chart.points(uvw, cameras)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    mapped = homogeneous @ projection.matrix(cameras).mT
    assert_close(torch.cat([mapped[..., :2] / mapped[..., 3:], mapped[..., 2:3]], dim=-1), uvw, **EXACT)


def test_a_fan_is_resampled_to_where_its_points_are():
    """A volume that is smooth in world space, given in the fan's chart, is the same function in the slant chart."""
    cameras, fan, side = some_cameras(2, dtype=torch.float64), PROJECTIONS["fan"], 32

    def smooth(points):
        return torch.sin(3 * points).sum(dim=-1)

    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    w, v, u = torch.meshgrid(middles, middles, middles, indexing="ij")
    uvw = torch.stack([u, v, w], dim=-1).flatten(0, 2).expand(2, -1, -1)
    volume = smooth(fan.points(uvw, cameras)).unflatten(1, (1, side, side, side))
    found = reference.resample_volume(volume, fan.places(cameras, volume.shape[2:])).flatten(1)
    points = Slant().points(uvw, cameras)
    seen = ((fan.chart(points, cameras) - 0.5).abs() < 0.5 - 1 / side).all(dim=-1)
    assert seen.double().mean() > 0.4
    assert (found - smooth(points))[seen].abs().max() < 0.01


def opaque_field(channels: int) -> FieldLayers:
    """Features as they are; density only where the first channel is positive."""
    weights = [torch.zeros(n, m, dtype=torch.float64) for n, m in ((4, channels), (4, 4), (1 + channels, 4))]
    biases = [torch.zeros(n, dtype=torch.float64) for n in (4, 4, 1 + channels)]
    weights[0][0, 0] = weights[1][0, 0] = weights[2][0, 0] = 1.0
    return FieldLayers(tuple(sum(zip(weights, biases, strict=True), ())), 1e4, -SOLID / 2)


@pytest.mark.parametrize("kind", ["slant", "fan"])
def test_range_is_kept_elevations_are_summed_and_what_lies_behind_is_in_shadow(kind):
    """Two walls across the look, one behind the other's upper half: the far one shows with its lower half alone."""
    projection, size, far_row, near_row = PROJECTIONS[kind], 16, 3, 9
    camera = some_cameras(1, 1, dtype=torch.float64)
    volume = torch.zeros(1, 1, 2, size, size, size, dtype=torch.float64)  # (w, v, u), in the sensor's own chart
    volume[0, 0, :, :, far_row], volume[0, 0, :, size // 2 :, near_row] = SOLID, SOLID
    origins, directions = projection.rays(camera, size)
    near, extent = camera.near[..., None, None], (camera.far - camera.near)[..., None, None]
    depths = (near + extent * (torch.arange(size) + 0.5) / size).expand(1, 1, size * size, size)
    rays = RaySamples(origins, directions, depths, (extent / size).expand_as(depths))
    own = torch.eye(4, dtype=torch.float64).expand(1, 1, 4, 4)
    points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
    chart = projection.chart(points.flatten(2, 3), camera).unflatten(2, depths.shape[2:])
    # The volume is looked up in the chart itself: rays through it are straight lines along v.
    straight = RaySamples(
        chart[..., 0, :],
        torch.tensor([0.0, -1, 0], dtype=torch.float64).expand_as(origins),
        *(chart[..., :1, 1] - chart[..., 1], rays.lengths),
    )
    field = opaque_field(2)
    rendered = reference.render(volume, own, torch.ones(1, 1, 1, dtype=torch.float64), straight, field, elevations=size)
    assert rendered.shape == (1, 1, size, size, 2)
    picture = rendered.flip(3).permute(0, 1, 4, 3, 2)[0, 0, 1]
    expected = torch.zeros(size, size, dtype=torch.float64)
    expected[far_row], expected[near_row] = SOLID * size / 2, SOLID * size / 2
    assert_close(picture, expected, rtol=1e-3, atol=1e-2)


def test_a_known_channel_takes_the_place_of_the_fields():
    """Values along rays in one channel: a ray that hits an opaque wall shows the value there."""
    volume = torch.zeros(1, 1, 3, 8, 2, 2, dtype=torch.float64)
    volume[:, :, 0, 5] = SOLID
    own = torch.eye(4, dtype=torch.float64).expand(1, 1, 4, 4).clone()
    origins = torch.tensor([[[[0.5, 0.5, 0.0]]]], dtype=torch.float64)
    depths = ((torch.arange(8, dtype=torch.float64) + 0.5) / 8).expand(1, 1, 1, 8)
    directions = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand_as(origins)
    rays = RaySamples(origins, directions, depths, depths * 0 + 0.125)
    weights = torch.ones(1, 1, 1, dtype=torch.float64)
    rendered = reference.render(volume, own, weights, rays, opaque_field(3), known=Known(1, 10 * depths[..., None]))
    assert_close(rendered[0, 0, 0], torch.tensor([SOLID, 10 * 5.5 / 8, 0.0], dtype=torch.float64), rtol=1e-3, atol=1e-3)


# The table of modalities


def test_names_and_aliases_are_told_apart_and_put_in_order():
    assert modality_names(["sonar", "eo", " raysar"]) == ("rgb", "sar", "sonar")
    wrong = {
        "lidar": "lidar: .* mean depth.* rgb, depth, sar, sonar",
        "infrared": "infrared: .* name: choose from rgb, depth, sar, sonar",
        "eo,sar,rgb": "eo,rgb: both are rgb",
    }
    for names, message in wrong.items():
        with pytest.raises(InputError, match=f"^`modalities`={message}"):
            modality_names(names.split(","))
    with pytest.raises(InputError, match="empty"):
        modality_names([])


def test_every_modality_has_a_projection_and_feature_channels_of_its_own():
    channels = [set(range(*modality.features)) for modality in MODALITIES.values()]
    assert sum(map(len, channels)) == len(set().union(*channels))
    assert {modality.projection for modality in MODALITIES.values()} == set(PROJECTIONS)
    assert [modality.index for modality in MODALITIES.values()] == list(range(len(MODALITIES)))


def test_values_are_coded_linearly_and_come_back():
    assert to_levels(0) == -1 and to_levels(255) == 1 and from_levels(to_levels(37.0)) == pytest.approx(37)
    assert depth_coded(0.8, 0.8, 1.8) == 255 and depth_coded(1.8, 0.8, 1.8) == 1, "0 is for no return"
    depths = np.linspace(0.8, 1.8, 7)
    assert depth_decoded(depth_coded(depths, 0.8, 1.8), 0.8, 1.8) == pytest.approx(depths)
    darkest, brightest = MODALITIES["sar"].decibels
    assert [coded(value, darkest, brightest) for value in (darkest, brightest, -5.0)] == [0, 255, 127.5]
