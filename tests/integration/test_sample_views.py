"""genvs.sample_views: arrays in, images out."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genvs
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.trajectories import orbit
from genvs.sampling import views
from genvs.sampling.synthesis import synthesize_views
from genvs.visualize import to_uint8

POSES = orbit(5, 1.3).numpy()
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
OPTIONS = {"steps": 2, "seed": 3}


def test_the_documented_example_runs(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert doctest.testmod(views).failed == 0 and doctest.DocTestFinder().find(views.sample_views)[0].examples


def test_the_viewers_page_draws_in_python(net):
    page = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"genvs": genvs, "net": net, "images": IMAGES, "c2w": POSES[:2], "target_c2w": POSES[2:]}
    exec(snippet, names)
    assert names["opacity"].shape == (32, 32, 3) and names["opacity"].dtype == np.uint8
    assert names["viewer"].inputs.cameras.intrinsics[0, 0, 0, 0] == pytest.approx(1.025)


def test_images_are_those_of_the_algorithm(net):
    images, features = genvs.sample_views(
        net, IMAGES, POSES[:2], POSES[2:], focal=1.1, near=0.7, far=1.9, return_features=True, **OPTIONS
    )
    intrinsics = torch.tensor([[1.1, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]).expand(1, 5, 3, 3)
    cameras = Cameras(torch.tensor(POSES)[None], intrinsics, torch.full((1, 5), 0.7), torch.full((1, 5), 1.9))
    inputs = Views(torch.from_numpy(IMAGES).movedim(-1, 1)[None], cameras[:, :2])
    expected = list(synthesize_views(net, inputs, cameras[:, 2:], num_steps=2, seed=3))
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images, np.stack([to_uint8(image) for image, _ in expected]), atol=1)
    expected_features = np.stack([of_view.movedim(0, -1).numpy() for _, of_view in expected])
    np.testing.assert_allclose(features, expected_features, rtol=1e-4, atol=1e-5)


def test_the_forms_that_images_and_cameras_may_have(net):
    def draw(images, **options) -> np.ndarray:
        return genvs.sample_views(net, images, POSES[:2], POSES[3], **{**options, **OPTIONS})

    expected = draw(IMAGES)
    focal = net.config.scene.focal
    matrix = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    for images, options in (
        (IMAGES / 255, {"focal": focal}),
        ([Image.fromarray(image) for image in IMAGES], {"intrinsics": matrix}),
        (list(IMAGES.repeat(2, axis=1).repeat(2, axis=2)), {"intrinsics": [matrix, matrix]}),
    ):
        np.testing.assert_allclose(draw(images, **options), expected, atol=1)
    gray = [Image.fromarray(image[..., 0]) for image in IMAGES]
    deep = [Image.fromarray(image[..., 0].astype(np.uint16) * 257) for image in IMAGES]
    np.testing.assert_allclose(draw(deep), draw(gray), atol=1)
    wide = draw(IMAGES.repeat(2, axis=2), focal=focal)  # with square pixels, of half the height
    matrix[1, 1] *= 2
    np.testing.assert_allclose(wide, draw(IMAGES, intrinsics=matrix), atol=1)
    transparent = np.concatenate([0 * IMAGES, np.zeros((2, 32, 32, 1), np.uint8)], axis=-1)
    np.testing.assert_allclose(draw([Image.fromarray(i) for i in transparent]), draw(0 * IMAGES + 255), atol=1)


@pytest.mark.parametrize("cameras", [{"focal": 35.0}, {"intrinsics": [[35.0, 0, 16], [0, 35, 16], [0, 0, 1]]}])
def test_a_focal_length_in_pixels_is_warned_of(net, cameras):
    with pytest.warns(UserWarning, match="35 image widths.*in pixels"):
        genvs.sample_views(net, IMAGES, POSES[:2], POSES[3], steps=1, **cameras)


def test_opengl_poses_are_warned_of(net):
    opengl = POSES * [1, -1, -1, 1]
    with pytest.warns(UserWarning, match="face away from the scene.*OpenGL"):
        genvs.sample_views(net, IMAGES[:1], opengl[:1], opengl[1:3], steps=1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"images": IMAGES[..., :2]}, "images"),
        ({"images": IMAGES.astype(float)}, "images"),
        ({"images": IMAGES[:0]}, "images"),
        ({"c2w": POSES[:3]}, "c2w"),
        ({"target_c2w": POSES[:, :3]}, "target_c2w"),
        ({"target_c2w": POSES * np.nan}, "target_c2w"),
        ({"c2w": POSES[:2] * [2, 2, 2, 1]}, "c2w"),
        ({"near": 2.0}, "near"),
        ({"focal": 1.0, "intrinsics": np.eye(3)}, "focal"),
        ({"sampler": "ddim"}, "sampler"),
        ({"churn": 1.0}, "churn"),
    ],
)
def test_wrong_input_is_a_value_error_that_names_it(net, wrong, named):
    with pytest.raises(ValueError, match=f"^`{named}`") as caught:
        genvs.sample_views(net, **{"images": IMAGES, "c2w": POSES[:2], "target_c2w": POSES[2:], **wrong})
    assert isinstance(caught.value, InputError)
