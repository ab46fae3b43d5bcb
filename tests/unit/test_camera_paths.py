"""Camera paths in files, and what they become for inputs: which cameras, in which order, and what is refused."""

import json
import math
import re

import numpy as np
import pytest
import torch

from genvs.data.camera_checks import Placement
from genvs.data.camera_paths import read_camera_path, transforms_of
from genvs.data.framing import Framing
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.trajectories import placed, spherical_c2w, trajectory_cameras

SQUARE = Framing()
OPENGL = np.diag([1.0, -1, -1, 1])
FOCAL = 0.5 / math.tan(math.radians(25))  # of a field of view of 50 degrees
C2W = spherical_c2w(torch.tensor([0.1, 0.9, 2.0], dtype=torch.float64), torch.tensor(0.3).double(), 1.3)


@pytest.fixture
def inputs() -> Cameras:
    """Three photos at C2W and, as where a scene has two modalities, the same cameras once more."""
    intrinsics = torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).expand(1, 6, 3, 3) * torch.ones(6, 1, 1)
    planes = torch.full((1, 6), 0.8), torch.full((1, 6), 1.8)
    return Cameras(C2W.float().repeat(2, 1, 1)[None], intrinsics, *planes, torch.tensor([[0, 0, 0, 1, 1, 1]]))


def nerfstudio_path(**changes) -> dict:
    poses = [(c2w @ OPENGL).ravel().tolist() for c2w in C2W.numpy()]
    cameras = [{"camera_to_world": pose, "fov": 50, "aspect": 1.78} for pose in poses]
    return {"camera_type": "perspective", "render_height": 1080, "fps": 24, "camera_path": cameras, **changes}


def transforms(**changes) -> dict:
    frames = [
        {"file_path": f"{9 + number}.png", "transform_matrix": (c2w @ OPENGL).tolist()}
        for number, c2w in enumerate(C2W.numpy())
    ]
    return {"camera_angle_x": math.radians(50), "frames": frames[::-1], **changes}


@pytest.mark.parametrize(("record", "fps"), [(nerfstudio_path(), 24), (transforms(), None)])
def test_the_cameras_of_both_formats(tmp_path, record, fps):
    """Numbers in the names of transforms.json's images are ordered as numbers: 9 before 10."""
    (tmp_path / "path.json").write_text(json.dumps(record))
    path = read_camera_path(tmp_path / "path.json", SQUARE)
    torch.testing.assert_close(path.c2w, C2W, rtol=0, atol=1e-12)
    lens = torch.tensor([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(path.intrinsics, lens.expand(3, 3, 3), rtol=0, atol=1e-12)
    assert path.fps == fps


def test_the_axes_that_a_transforms_json_is_said_to_have(tmp_path):
    (tmp_path / "transforms.json").write_text(json.dumps(transforms()))
    opencv = read_camera_path(tmp_path / "transforms.json", SQUARE, "opencv").c2w
    torch.testing.assert_close(opencv, C2W @ torch.from_numpy(OPENGL))


def test_a_written_transforms_json_is_read_back(tmp_path):
    lenses = torch.tensor([[1.0, 0, 0.4], [0, 1.3, 0.6], [0, 0, 1]]).double().expand(3, 3, 3).numpy()
    record = transforms_of(["a.png", "b.png", "c.png"], C2W.numpy(), lenses, 64)
    (tmp_path / "transforms.json").write_text(json.dumps(record))
    path = read_camera_path(tmp_path / "transforms.json", SQUARE)
    torch.testing.assert_close(path.c2w, C2W, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.intrinsics, torch.from_numpy(lenses), rtol=0, atol=1e-12)


def test_a_scene_that_was_placed_is_put_back():
    placement, c2w = Placement(np.array([3.0, -2, 1]), 0.25), C2W.numpy()
    np.testing.assert_allclose(placement.inverse.of(placement.of(c2w)), c2w, rtol=0, atol=1e-12)


CAMERA = nerfstudio_path()["camera_path"][0]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "neither"),
        ({"cameras": []}, "neither a camera path of nerfstudio .* nor a transforms.json"),
        (nerfstudio_path(camera_type="equirectangular"), "camera type equirectangular"),
        (nerfstudio_path(camera_path=[]), "lists no cameras"),
        (nerfstudio_path(camera_path=[CAMERA, 3]), "camera 1: its pose"),
        (nerfstudio_path(camera_path=[CAMERA | {"camera_to_world": [1] * 16}]), "camera 0: the last row"),
        (nerfstudio_path(camera_path=[CAMERA | {"fov": "wide"}]), "camera 0: fov is 'wide'"),
        (nerfstudio_path(camera_path=[CAMERA | {"fov": 180}]), "camera 0: fov is 180"),
        (transforms(camera_angle_x=None), "no focal length"),
    ],
)
def test_files_that_are_no_path(tmp_path, record, said):
    (tmp_path / "path.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'path.json'))}: ?.*{said}"):
        read_camera_path(tmp_path / "path.json", SQUARE)


def test_a_line_goes_once_through_the_inputs_and_its_planes_keep_covering_the_object(inputs):
    cameras = trajectory_cameras(inputs, "line", 201)
    torch.testing.assert_close(cameras[:, [0, 200]].c2w, inputs[:, [0, 2]].c2w, rtol=0, atol=1e-5)
    nearest = (cameras.centers - inputs.centers[:, 1:2]).norm(dim=-1).min()
    assert nearest < 0.01, "it passes the second input"
    distance = cameras.centers.norm(dim=-1)
    assert distance.min() < 1.15, "a straight line is closer to the origin than its ends"
    torch.testing.assert_close(cameras.far - distance, torch.full((1, 201), 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(distance - cameras.near, torch.full((1, 201), 0.5), rtol=0, atol=1e-5)


def test_a_camera_that_is_too_close_to_see_the_object(inputs):
    inputs = Cameras(inputs.c2w, inputs.intrinsics, inputs.near, torch.full((1, 6), 1.2))  # in front of the origin
    close = spherical_c2w(torch.tensor([0.0]), torch.tensor([0.0]), 0.05)
    with pytest.raises(InputError, match="`trajectory` has a camera 0.05 from the origin"):
        placed(inputs, close, inputs.intrinsics[0, :1])
