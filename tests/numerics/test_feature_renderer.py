"""View fusion and the feature renderer: the features of points, and the images of rays."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from genvs.config import PRESETS, RendererConfig
from genvs.geometry import Cameras, frustum_matrix, generate_rays, pixel_centers, unproject
from genvs.models import GeNVS
from genvs.models.renderer import FeatureRenderer, Field
from genvs.ops import reference
from genvs.ops.reference import fuse_views, sample_volume
from tests.small_model import randomize, small_net, some_cameras

EXACT = {"rtol": 0, "atol": 1e-12}
FLOAT64 = torch.float64
CHANNELS = 4


def seen_from(camera: Cameras, uv: list[float], share: float) -> torch.Tensor:
    """The world point at image position `uv`, `share` of the way from near to far: `[3]`."""
    depth = camera.near + share * (camera.far - camera.near)
    return unproject(torch.tensor([uv], dtype=FLOAT64), depth[None], camera)[0]


def fused_at(points: list[torch.Tensor], volume: torch.Tensor, cameras: Cameras, weights=None) -> torch.Tensor:
    """Features `[P, C]` of some points of one scene. weights: of the input views `[V]`, by default all alike."""
    weights = torch.ones(cameras.shape[0]) if weights is None else torch.tensor(weights)
    where = torch.stack(points)[None, None, None]
    return fuse_views(volume[None], where, frustum_matrix(cameras)[None], weights.to(FLOAT64)[None, None])[0, 0, 0]


@pytest.fixture
def opposite() -> Cameras:
    """Two input cameras whose frusta overlap around the origin only, with different intrinsics."""
    cameras = some_cameras(2, dtype=FLOAT64)
    c2w = cameras.c2w.clone()
    half_turn = torch.tensor([-1.0, 1.0, -1.0], dtype=FLOAT64)
    c2w[1, :3, :3], c2w[1, :3, 3] = c2w[0, :3, :3] * half_turn, -c2w[0, :3, 3]
    return dataclasses.replace(cameras, c2w=c2w)


# Fusion


@pytest.mark.parametrize("second", [1.0, 1 / 3, 1e-3, 1e-24])
def test_views_are_weighted_among_those_that_see_a_point(opposite, second):
    """The only view that sees a point counts alone, however small its weight is."""
    volume = torch.stack([torch.full((2, 3, 4, 4), 3.0), torch.full((2, 3, 4, 4), 5.0)]).to(FLOAT64)
    # The far planes end before the corners of the opposite near planes.
    corners = [seen_from(opposite[0], [0.02, 0.02], 0.01), seen_from(opposite[1], [0.98, 0.02], 0.01)]
    points = [*corners, torch.zeros(3, dtype=FLOAT64)]
    cameras = dataclasses.replace(opposite, far=torch.full_like(opposite.far, 1.75))
    fused = fused_at(points, volume, cameras, weights=[1.0, second])
    both = (3 + 5 * second) / (1 + second)
    assert_close(fused, torch.tensor([[3.0], [5.0], [both]], dtype=FLOAT64).expand(3, 2), rtol=1e-6, atol=0)


def test_a_point_outside_all_frusta_has_no_features(opposite):
    volume = torch.ones(2, 2, 3, 4, 4, dtype=FLOAT64)
    camera = opposite[0]
    behind = camera.centers - 1.3 * camera.c2w[:3, 2] - opposite[0].c2w[:3, 1] * 0.01
    aside = camera.centers + 3 * camera.c2w[:3, 0]
    points = [behind, aside, seen_from(camera, [1.01, 0.5], 0.01), seen_from(camera, [0.5, -0.01], 0.01)]
    assert fused_at(points, volume, opposite).abs().max() == 0
    alone = opposite[:1]
    beyond = [seen_from(camera, [0.5, 0.5], share) for share in (-0.01, 1.01, 0.01, 0.99)]
    assert fused_at(beyond, volume[:1], alone)[:, 0].tolist() == pytest.approx([0, 0, 1, 1], abs=1e-12)


def test_a_point_behind_a_camera_is_not_seen_in_the_mirror():
    """Dividing by a negative depth brings points behind the camera back into the image, upside down."""
    camera = some_cameras(1, dtype=FLOAT64)
    wide = dataclasses.replace(camera, near=torch.full_like(camera.near, -3.0))  # so that only depth > 0 tells
    points = [camera.centers[0] + sign * camera.c2w[0, :3, 2] for sign in (1.0, -1.0)]
    fused = fused_at(points, torch.ones(1, 2, 3, 4, 4, dtype=FLOAT64), wide)
    assert fused[:, 0].tolist() == pytest.approx([1, 0], abs=1e-12)


def test_each_views_own_camera_places_its_features():
    """With volumes that hold u, v and w, every view must return the uvw at which it sees the point."""
    cameras = some_cameras(1, 3, dtype=FLOAT64)
    size = 64
    ramp = (torch.arange(size, dtype=FLOAT64) + 0.5) / size
    volume = torch.stack(torch.meshgrid(ramp, ramp, ramp, indexing="ij")[::-1]).expand(1, 1, 3, size, size, size)
    wanted = 0.2 + 0.6 * torch.rand(3, 10, 3, generator=torch.Generator().manual_seed(0), dtype=FLOAT64)
    for view in range(3):
        camera = cameras[:, view : view + 1]
        depth = camera.near[..., None] + wanted[view, None, None, :, 2] * (camera.far - camera.near)[..., None]
        points = unproject(wanted[view, None, None, :, :2], depth, camera)
        fused = fuse_views(volume, points[:, :, None], frustum_matrix(camera), torch.ones(1, 1, 1, dtype=FLOAT64))
        assert_close(fused[0, 0, 0], wanted[view], **EXACT)


def test_positions_keep_their_precision_in_a_volume_of_bf16():
    """A ramp of 129 whole numbers. bf16 has no others in this range, so positions in bf16 would be rounded to them."""
    ramp = torch.arange(129.0).bfloat16().expand(1, 1, 1, 1, 129)
    wanted = 100.0 + torch.arange(8) / 8
    uvw = torch.stack([(wanted + 0.5) / 129, torch.full_like(wanted, 0.5), torch.full_like(wanted, 0.5)], dim=-1)
    sampled = sample_volume(ramp, uvw[None])[0, 0]
    assert sampled.dtype == torch.bfloat16 and (sampled == wanted.bfloat16()).all()


# Rendering


def renderer_of(**config) -> FeatureRenderer:
    torch.manual_seed(0)
    settings = RendererConfig(hidden_channels=8, num_samples=12, render_width=6)
    renderer = FeatureRenderer(dataclasses.replace(settings, **config), CHANNELS, "baseline_mean")
    randomize(renderer)
    return renderer


def constant_field(renderer: FeatureRenderer, density_logit: float, features: float) -> None:
    """Make the field's density the same everywhere, and add `features` to the features of the views."""
    last = renderer.field.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(features)
        last.bias[0] = density_logit


def some_scene() -> tuple[torch.Tensor, Cameras, Cameras]:
    """Volumes and cameras of two inputs, and cameras of two targets, in each of three scenes."""
    volume = torch.randn(3, 2, CHANNELS, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    return volume, some_cameras(3, 2), some_cameras(3, 2, seed=1)


def test_an_even_fog_absorbs_along_each_rays_metric_length():
    renderer = renderer_of()
    constant_field(renderer, density_logit=1.5, features=2.0)
    _, inputs, targets = some_scene()
    image = renderer(torch.zeros(3, 2, CHANNELS, 5, 6, 6), inputs, targets)
    _, directions = generate_rays(targets, 6, 6)
    density = Field.DENSITY_SCALE * math.log1p(math.exp(1.5 + Field.DENSITY_SHIFT))
    length = (targets.far - targets.near)[..., None, None] * directions.norm(dim=-1)
    expected = 2 * (1 - torch.exp(-density * length))
    assert_close(image, expected[:, :, None].expand_as(image))


def test_the_first_channels_may_show_opacity_and_depth():
    """Depths as a depth picture codes them, 255 at the near plane and 1 at the far plane, times the opacity."""
    volume, inputs, targets = some_scene()
    shows, plain = renderer_of(), renderer_of()
    shows.shows_geometry = True
    image, others = shows(volume, inputs, targets), plain(volume, inputs, targets)
    assert_close(image[:, :, 2:], others[:, :, 2:])
    assert (image[:, :, :2] - others[:, :, :2]).abs().amax() > 0.1 and image.isfinite().all()

    def shown(density: float) -> torch.Tensor:
        constant_field(shows, density_logit=density - Field.DENSITY_SHIFT, features=3.0)
        return shows(volume, inputs, targets)[:, :, :2]

    _, directions = generate_rays(targets, 6, 6)
    length = (targets.far - targets.near)[..., None, None] * directions.norm(dim=-1)
    opacity = 1 - torch.exp(-Field.DENSITY_SCALE * math.log1p(math.exp(-2.0)) * length)
    assert_close(shown(-2.0)[:, :, 0], opacity)
    opaque, thin = shown(1e4), shown(-9.0)
    assert_close(opaque[:, :, 0], torch.ones_like(opacity))
    first = (255 - 254 * 0.5 / 12) / 127.5  # in the middle of the first of 12 intervals
    assert_close(opaque[:, :, 1], torch.full_like(opacity, first))
    assert_close(thin[:, :, 1] / thin[:, :, 0], torch.full_like(opacity, 128 / 127.5), rtol=1e-3, atol=0)


def test_an_input_rendered_from_its_own_camera_is_not_shifted():
    """In an opaque scene pixel (i, j) shows voxel (0, i, j), also at the border."""
    renderer = renderer_of(render_width=16, num_samples=8)
    constant_field(renderer, density_logit=1e4, features=0.0)
    image = torch.randn(2, 1, CHANNELS, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    cameras = some_cameras(2, 1)
    rendered = renderer(image.expand(-1, -1, -1, 8, -1, -1), cameras, cameras)
    assert_close(rendered, image[:, :, :, 0], rtol=0, atol=1e-4)


def test_the_feature_image_is_not_shifted_when_it_is_enlarged():
    """An image of pixel coordinates, rendered at 8 x 8, still shows coordinates when it is enlarged to 32 x 32."""
    net = small_net()
    constant_field(net.renderer, density_logit=1e4, features=0.0)
    coordinates = pixel_centers(16, 16).permute(2, 0, 1)
    volume = F.pad(coordinates, (0, 0, 0, 0, 0, 6))[None, None, :, None].expand(1, 1, 8, 4, 16, 16)
    camera = some_cameras(1, 1)
    feature_image = net.render(volume, camera, camera)[0, 0, :2]
    inside = slice(2, -2)  # beyond the outermost centres of the 8 x 8 pixels there is nothing to interpolate
    expected = pixel_centers(32, 32).permute(2, 0, 1)
    assert_close(feature_image[:, inside, inside], expected[:, inside, inside], rtol=0, atol=1e-4)


def test_a_scene_renders_the_same_in_any_batch():
    renderer = renderer_of()
    volume, inputs, targets = some_scene()
    keys = torch.arange(6).reshape(3, 2)
    for together, of in ((renderer(volume, inputs, targets), None), (renderer(volume, inputs, targets, keys), keys)):
        for scene in range(3):
            one = slice(scene, scene + 1)
            alone = renderer(volume[one], inputs[one], targets[one], None if of is None else of[one])
            assert_close(together[one], alone, rtol=1e-4, atol=1e-5)
            first = renderer(volume[one], inputs[one], targets[one, :1], None if of is None else of[one, :1])
            assert_close(together[one, :1], first, rtol=1e-4, atol=1e-5)
    still, jittered = renderer(volume, inputs, targets), renderer(volume, inputs, targets, keys)
    other = renderer(volume, inputs, targets, keys + 100)
    for difference in (jittered - still, jittered - other):
        assert difference.abs().amax(dim=(2, 3, 4)).min() > 1e-3, "each target has its own jitter"


# The initial network


@pytest.mark.parametrize("seed", range(8))
def test_the_initial_network_has_gradients_everywhere(seed):
    """The initial density lets some light through, and gradients reach all of the encoder."""
    torch.manual_seed(seed)
    net = GeNVS(PRESETS["cpu-demo"])
    images = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    inputs, targets = some_cameras(2, 1, seed=seed), some_cameras(2, 1, seed=100 + seed)
    volume = net.encode(images)
    density, _ = reference.evaluate_field(volume.permute(0, 1, 3, 4, 5, 2), net.renderer.field.tensors())
    opacity = 1 - torch.exp(-density.mean(dim=2))  # of a ray one unit long
    assert 0.25 < opacity.mean() < 0.75 and opacity.min() > 0.01
    difference = (volume[0] - volume[1]).square().mean().sqrt() / volume.std()
    assert difference > 0.2, "two images must have different volumes"
    feature_image = net.render(volume, inputs, targets)
    assert 0.05 < feature_image.std() < 5
    feature_image.square().mean().backward()
    for name in (
        "encoders.rgb.to_volume",
        "encoders.rgb.backbone.conv1",
        "encoders.rgb.backbone.layer4.0.conv2",
        "renderer",
    ):
        gradients = [p.grad for p in net.get_submodule(name).parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() and g.abs().max() > 0 for g in gradients), name
