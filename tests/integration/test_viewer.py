"""The viewer without its page: the pictures that it draws, and threads that take turns."""

import contextlib
import copy
import io
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from genvs.data.camera_checks import Placement
from genvs.data.framing import Framing
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras, pixel_centers, project
from genvs.geometry.trajectories import orbit, spherical_c2w
from genvs.sampling.synthesis import synthesize_views
from genvs.sampling.viewer import Dropped, Turns, Viewer, surface_points
from genvs.snapshot import build_net
from genvs.visualize import to_uint8
from inference import page_files
from inference.viewer import main
from tests.browser import wait_until
from tests.published import published_config
from tests.small_model import SIZE, small_net, some_cameras


@pytest.fixture(scope="module")
def viewer() -> Viewer:
    images = torch.randint(0, 256, (1, 2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).byte()
    lens = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]).expand(1, 2, 3, 3)
    cameras = Cameras(orbit(2, 1.3)[None], lens, torch.full((1, 2), 0.8), torch.full((1, 2), 1.8))
    return Viewer(small_net(), Views(images, cameras))


@pytest.fixture
def camera(viewer) -> Cameras:
    return viewer.camera(spherical_c2w(torch.tensor(0.4), torch.tensor(0.3), 1.5), fov=0.8)


@pytest.mark.parametrize("options", [{"num_steps": 1}, {"num_steps": 3, "guidance": 2.0, "seed": 5}])
def test_a_sample_is_what_synthesize_views_draws(viewer, camera, options):
    [(image, _)] = synthesize_views(viewer.net, viewer.inputs, camera, sampler="unipc", **options)
    drawn = viewer.draw(camera, **options)
    assert drawn.dtype == np.uint8 and drawn.std() > 1
    np.testing.assert_allclose(drawn.astype(int), to_uint8(image).astype(int), atol=1)


def test_a_camera_has_its_field_of_view_and_planes_around_the_object(viewer, camera):
    corner = camera.intrinsics[0, 0].inverse() @ torch.tensor([0.5, 0.0, 1.0])  # the middle of the upper edge
    assert -2 * torch.atan(corner[1]).item() == pytest.approx(0.8, abs=1e-5)
    assert (camera.near.item(), camera.far.item()) == pytest.approx((1.0, 2.0))


def test_expected_depth_and_opacity_are_those_of_a_network_that_shows_them(viewer, camera):
    """Its feature images start with opacity and the depth's level above 0's."""
    shows = copy.deepcopy(viewer.net)
    shows.renderer.shows_geometry = True
    [(_, features)] = synthesize_views(shows, viewer.inputs, camera, num_steps=1)
    opacity, depth = 255 * features[0], 127.5 * features[1]
    for picture, expected in (("opacity", opacity), ("expected depth", depth)):
        drawn = viewer.draw(camera, picture)
        assert drawn.shape == (SIZE, SIZE, 3) and drawn.std() > 0.1
        np.testing.assert_allclose(drawn[..., 0], expected.numpy(), atol=0.51)
    assert not viewer.net.renderer.shows_geometry


@contextlib.contextmanager
def filled(viewer: Viewer, density: float) -> Iterator[None]:
    """For the block, the field has one density everywhere."""
    layer = viewer.net.renderer.field.layers[-1]
    last = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias[0] = math.log(math.expm1(density / 10)) + 2.5  # of 10 * softplus(x - 2.5)
    yield
    layer.load_state_dict(last)


@pytest.mark.parametrize("density", [8.0, 0.2])
def test_depths_are_the_mean_over_the_absorbed_light(viewer, density):
    """In a field of one density, seen in a narrow angle, so that all rays are as long as the axis."""
    narrow = viewer.camera(spherical_c2w(torch.tensor(0.4), torch.tensor(0.3), 1.5), fov=0.01)
    with filled(viewer, density):
        depths = viewer.depths(narrow)
    near, far = narrow.near.item(), narrow.far.item()
    edges = np.linspace(near, far, viewer.net.config.renderer.num_samples + 1)
    absorbed = -np.diff(np.exp(-density * (edges - near)))
    expected = (absorbed * (edges[1:] + edges[:-1]) / 2).sum() / absorbed.sum()
    assert depths.shape == (SIZE, SIZE) and depths.dtype == torch.float64
    if absorbed.sum() < 0.5:
        assert depths.isnan().all()
    else:
        np.testing.assert_allclose(depths, expected, atol=1e-3)


def test_points_project_to_the_pixels_that_they_are_of():
    camera = some_cameras(dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    depths = 1 + torch.rand(SIZE, SIZE, generator=generator, dtype=torch.float64)
    depths[torch.rand(SIZE, SIZE, generator=generator) < 0.3] = torch.nan
    points = surface_points(depths, camera)
    uv, depth = project(points, camera)
    rows, columns = (SIZE * uv[:, [1, 0]] - 0.5).T
    assert points.dtype == torch.float64 and 0 < len(points) == depths.isfinite().sum() < depths.numel()
    at = rows.round().long(), columns.round().long()
    torch.testing.assert_close(torch.stack([rows, columns]), torch.stack(at).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(depth, depths[at], atol=1e-9, rtol=0)


def test_files_of_the_volume(viewer, camera):
    """The points of a placed scene project to their pixels in the cameras of the files, and have their colours."""
    views = Views(viewer.inputs.images[:, :1], camera)
    placement = Placement(np.array([3.0, -1.0, 2.0]), 0.25)
    with filled(viewer, 8.0):
        depths = viewer.depths(camera).clone()
        cloud = trimesh.load(io.BytesIO(page_files.point_cloud(viewer, views, placement)), file_type="ply")
    of_files = placement.inverse.of(camera.c2w[0, 0].double().numpy())
    there = replace(camera[0, 0].to(torch.float64), c2w=torch.from_numpy(of_files))
    uv, depth = project(torch.from_numpy(np.asarray(cloud.vertices)), there)
    torch.testing.assert_close(uv.float(), pixel_centers(SIZE, SIZE).flatten(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(depth, depths.flatten() / placement.scale, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(cloud.colors[:, :3], views.images[0, 0].movedim(0, -1).flatten(0, 1))

    depths[:3] = torch.nan
    np.testing.assert_allclose(np.load(io.BytesIO(page_files.depth_array(depths.numpy()))), depths, rtol=1e-6)
    image = Image.open(io.BytesIO(page_files.depth_image(depths.numpy())))
    scale, values = float(image.text["depth_scale"]), np.asarray(image)
    assert values.dtype == np.uint16 and values[3:].max() == 65535 and not values[:3].any()
    np.testing.assert_allclose(scale * values[3:], depths[3:], atol=0.51 * scale)
    with filled(viewer, 0.01), pytest.raises(InputError, match="The volume is empty"):
        page_files.point_cloud(viewer, views, None)


def test_other_inputs_are_drawn_from_while_the_first_are_kept(viewer, camera):
    """A viewer of the second input alone draws what a new one would; the first one goes on as it was."""
    second = viewer.inputs[:, 1:]
    before, alone = viewer.draw(camera, num_steps=1), viewer.drawing_from(second)
    drawn = alone.draw(camera, num_steps=1)
    np.testing.assert_array_equal(drawn, Viewer(viewer.net, second).draw(camera, num_steps=1))
    assert (drawn != before).any()
    np.testing.assert_array_equal(viewer.draw(camera, num_steps=1), before)


def test_a_feature_image_has_the_colours_of_the_first_inputs(viewer, camera):
    features = viewer.draw(camera, "feature image")
    assert features.std() > 1 and (features != viewer.draw(viewer.inputs.cameras[:, :1], "feature image")).any()


def test_what_it_does_not_draw(viewer, camera):
    with pytest.raises(InputError, match="`picture`=normals .* sample, feature image, expected depth, opacity"):
        viewer.draw(camera, "normals")
    with pytest.raises(InputError, match="`trajectory` has a camera 0"):
        Viewer(viewer.net, far_away(viewer.inputs)).camera(torch.eye(4), 0.8)
    theirs = build_net(published_config())  # whose renderer does not show its geometry
    assert Viewer(theirs, viewer.inputs).pictures == ("sample", "feature image")


def far_away(inputs: Views) -> Views:
    """Inputs whose far plane is in front of the origin."""
    cameras = inputs.cameras
    return Views(inputs.images, Cameras(cameras.c2w, cameras.intrinsics, cameras.near, cameras.far - 0.6))


def test_a_dropped_picture_ends_at_the_next_evaluation_and_leaves_the_turn(viewer, camera):
    asked = []
    with pytest.raises(Dropped):
        viewer.draw(camera, num_steps=8, is_dropped=lambda: asked.append(0) or len(asked) == 3)
    assert len(asked) == 3
    viewer.draw(camera, num_steps=1)  # would wait for ever if the turn were kept


def test_a_quick_picture_is_drawn_while_a_slow_one_is(viewer, camera):
    expected, drawn, done = viewer.draw(camera, num_steps=40), [], threading.Event()

    def is_dropped() -> bool:
        """No; but the slow one goes on only while the quick one waits for its turn, or when that is done."""
        return not wait_until(lambda: len(viewer._turns._queue) == 2 or done.is_set())

    slow = threading.Thread(target=lambda: drawn.append(viewer.draw(camera, num_steps=40, is_dropped=is_dropped)))
    slow.start()
    viewer.draw(camera, num_steps=1)
    assert slow.is_alive() and not drawn, "the quick one did not wait for the slow one's end"
    done.set()
    slow.join()
    np.testing.assert_array_equal(drawn[0], expected)


def test_turns_are_taken_in_order():
    turns, order, threads = Turns(), [], []
    with turns:
        for number in range(4):
            threads.append(threading.Thread(target=lambda number=number: take(turns, order, number)))
            threads[-1].start()
            while len(turns._queue) < number + 2:
                time.sleep(0.001)
        turns.pass_on()
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, "again"]


def take(turns: Turns, order: list, number: int) -> None:
    with turns:
        order.append(number)


def test_images_added_to_the_page_are_framed_as_the_options_say(monkeypatch):
    page = pytest.importorskip("inference.page", reason="needs viser: pip install -c constraints.txt -e .[viewer]")
    framings, serving = [], page.serving
    monkeypatch.setattr(page, "serving", lambda *given: framings.append(given[2]) or serving(*given))
    monkeypatch.setattr(page.viser.ViserServer, "sleep_forever", lambda server: None)  # it would wait for Ctrl-C
    main(["--fit", "crop", "--background", "1,2,3", "--device", "cpu"], standalone_mode=False)
    assert framings == [Framing("crop", (1, 2, 3))]
