"""The viewer without its page: the pictures that it draws, and threads that take turns."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.trajectories import orbit, spherical_c2w
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.sampling.viewer import Dropped, Turns, Viewer
from genvs.visualize import to_uint8
from tests.small_model import SIZE, small_net


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
    """The same weights with `show_geometry`, whose feature images end with opacity and the depth's level above 0's."""
    config = viewer.net.config
    shows = GeNVS(replace(config, renderer=replace(config.renderer, show_geometry=True))).eval()
    shows.load_state_dict(viewer.net.state_dict())
    [(_, features)] = synthesize_views(shows, viewer.inputs, camera, num_steps=1)
    opacity, depth = 255 * features[-2], 127.5 * features[-1]
    for picture, expected in (("opacity", opacity), ("expected depth", depth)):
        drawn = viewer.draw(camera, picture)
        assert drawn.shape == (SIZE, SIZE, 3) and drawn.std() > 0.1
        np.testing.assert_allclose(drawn[..., 0], expected.numpy(), atol=0.51)
    assert not config.renderer.show_geometry and not viewer.net.renderer.config.show_geometry


def test_a_feature_image_has_the_colours_of_the_first_inputs(viewer, camera):
    features = viewer.draw(camera, "feature image")
    assert features.std() > 1 and (features != viewer.draw(viewer.inputs.cameras[:, :1], "feature image")).any()


def test_what_it_does_not_draw(viewer, camera):
    with pytest.raises(InputError, match="`picture`=normals .* sample, feature image, expected depth, opacity"):
        viewer.draw(camera, "normals")
    with pytest.raises(InputError, match="`trajectory` has a camera 0"):
        Viewer(viewer.net, far_away(viewer.inputs)).camera(torch.eye(4), 0.8)


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
    expected, drawn, started = viewer.draw(camera, num_steps=40), [], threading.Event()
    slow = threading.Thread(
        target=lambda: drawn.append(viewer.draw(camera, num_steps=40, is_dropped=lambda: started.set() or False))
    )
    slow.start()
    started.wait()
    viewer.draw(camera, num_steps=1)
    assert slow.is_alive() and not drawn, "the quick one did not wait for the slow one's end"
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
