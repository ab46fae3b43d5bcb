"""Meshes with many corners at one place, or around one face, are read in bounded time and memory."""

import math
import time

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.data.mesh.model import creased_normals
from genvs.data.mesh.polygons import triangulate
from genvs.data.synthetic.shading import render
from genvs.errors import InputError
from genvs.geometry.trajectories import spherical_c2w
from tests.unit.mesh_files import CUBE, CUBE_FACES, GLTF_UV, SQUARE, SQUARE_FACES, four_colors, read_gltf


def test_an_outline_of_many_corners_is_cut_up_at_once():
    """A spiral band of 1000 corners, in which few corners can be cut off at any time."""
    turns = np.linspace(0, 12 * np.pi, 500)
    band = [
        np.stack([(turns + width) * np.cos(turns), (turns + width) * np.sin(turns), 0 * turns], -1) for width in (1, 2)
    ]
    corners = np.concatenate([band[0], band[1][::-1]])
    start = time.thread_time()
    [(_, faces)] = triangulate(corners, [1000], [0])
    assert time.thread_time() - start < 20, "half a second on one core; 50 where each search starts anew"
    areas = np.cross(corners[faces[:, 1]] - corners[faces[:, 0]], corners[faces[:, 2]] - corners[faces[:, 0]])[:, 2] / 2
    x, y, _ = corners.T
    outline = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    np.testing.assert_allclose([areas.sum(), np.abs(areas).sum()], [outline, abs(outline)])


def test_corners_that_crowd_at_one_place_have_their_own_normals():
    """A cone's 5000 faces at its tip, and an object that is a point in its surroundings, do not fill the memory."""
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    cone = np.stack([ring, np.roll(ring, -1, axis=0), np.broadcast_to([0, 0, 1], ring.shape)], 1)
    expected = np.insert(ring[:, :2], 2, 1, axis=1) / math.sqrt(2)
    assert np.abs(creased_normals(cone) - expected[:, None]).max() < 2e-3
    point = np.concatenate([1e-8 * np.tile(CUBE[CUBE_FACES], (500, 1, 1)), CUBE[CUBE_FACES]])
    assert np.abs(creased_normals(point)).max(-1).min() > 0.99


def test_many_layers_of_glass(tmp_path):
    """More than Python lets functions call each other; what is seen is all of their colour."""
    layers = 1100
    corners = np.concatenate([SQUARE - [0, 0, 0.002 * layer] for layer in range(layers)])
    faces = np.concatenate([SQUARE_FACES + 4 * layer for layer in range(layers)])
    glass = {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 0.01]}}
    model = read_gltf(tmp_path / "a.glb", corners, faces, material=glass)
    c2w = spherical_c2w(torch.tensor([math.pi / 2]).double(), torch.zeros(1).double(), 1.3).numpy()
    picture, depth = next(iter(render(model, c2w, 6.0, 5)))
    assert picture[2, 2, 0] > 100 and picture[2, 2, 1] < 30 and depth[2, 2] == 0


def test_a_texture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    textured = {"image": four_colors(), "attributes": {"TEXCOORD_0": GLTF_UV}}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    read_gltf(tmp_path / "a.glb", **textured)  # without Pillow's warning
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 64 - 1)
    with pytest.raises(InputError, match="a.glb: its texture image 0 has more than 4,094 pixels; save it smaller"):
        read_gltf(tmp_path / "a.glb", **textured)
