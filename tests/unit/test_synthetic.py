"""The embedded dataset: what it writes, that it is the same every time, and that its cars are many."""

import json
import math
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.config import SceneConfig
from genvs.data.srn import read_pose
from genvs.data.synthetic.__main__ import main
from genvs.data.synthetic.cars import build_car
from genvs.data.synthetic.catalog import FAMILIES
from genvs.data.synthetic.dataset import ensure_dataset, split_cameras
from genvs.data.synthetic.shading import render
from genvs.errors import InputError
from genvs.geometry import Cameras, unproject
from genvs.geometry.trajectories import spherical_c2w, srn_spiral
from tests.faults.launcher import finished, separate, wait_for

CARS = SceneConfig()
SETTINGS = dict(scenes=3, views=4, resolution=16, seed=3, val_scenes=1, test_scenes=1, test_views=3)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small dataset, made by one worker."""
    out = tmp_path_factory.mktemp("one") / "cars"
    ensure_dataset(out, workers=1, **SETTINGS)
    return out


def test_layout_and_intrinsics_are_srns(made):
    for split, scenes, views in (("train", 3, 4), ("val", 1, 4), ("test", 1, 3)):
        folder = made.with_name(f"cars_{split}")
        names = [f"{index:06d}" for index in range(max(scenes, views))]
        assert sorted(path.name for path in folder.iterdir()) == [*names[:scenes], "dataset.json"]
        scene = folder / "000000"
        for kind, suffix in (("rgb", "png"), ("pose", "txt"), ("depth", "png")):
            expected = [f"{name}.{suffix}" for name in names[:views]]
            assert sorted(path.name for path in (scene / kind).iterdir()) == expected
        assert (scene / "intrinsics.txt").read_text() == "16.406250 8.000000 8.000000 0.\n0. 0. 0.\n1.\n16 16\n"
        assert json.loads((scene / "scene.json").read_text())["car"]["class"] in FAMILIES


def test_cameras_look_at_the_origin_from_srns_distance(made):
    texts = [path.read_text() for path in sorted(made.parent.rglob("pose/*.txt"))]
    assert len(texts) == 4 * 4 + 3
    for text in texts:
        c2w = read_pose(text.encode(), "pose.txt")  # refuses what is no rotation
        rotation, center = c2w[:3, :3], c2w[:3, 3]
        np.testing.assert_allclose(rotation[:, 2], -center / 1.3, atol=1e-6)
        assert abs(rotation[2, 0]) < 1e-6 and rotation[2, 1] <= 1e-6


def test_test_cameras_are_srns_spiral_and_training_cameras_cover_the_sphere():
    spiral = srn_spiral(CARS.radius).double().numpy()
    np.testing.assert_array_equal(split_cameras("test", 251, np.random.default_rng(0)), spiral)
    np.testing.assert_array_equal(split_cameras("test", 3, np.random.default_rng(0)), spiral[[0, 125, 250]])
    centers = split_cameras("train", 4000, np.random.default_rng(0))[:, :3, 3] / CARS.radius
    # On a sphere each coordinate is uniform in [-1, 1]: mean 0, variance 1/3, and no correlation.
    np.testing.assert_allclose(centers.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(centers.T @ centers / len(centers), np.eye(3) / 3, atol=0.03)


def test_two_workers_resume_to_the_same_bytes_and_add_scenes(made, tmp_path):
    out = tmp_path / "cars"
    ensure_dataset(out, **{**SETTINGS, "scenes": 1, "val_scenes": 0, "test_scenes": 0})
    stale = tmp_path / "cars.partial-dead"
    (stale / "train-000001").mkdir(parents=True)
    kept = (tmp_path / "cars_train/000000/scene.json").stat().st_mtime_ns
    ensure_dataset(out, workers=2, **{**SETTINGS, "scenes": 4})
    assert (tmp_path / "cars_train/000000/scene.json").stat().st_mtime_ns == kept
    assert not stale.exists()
    for split in ("train", "val", "test"):
        one, two = (contents(path.with_name(f"cars_{split}")) for path in (made, out))
        assert one == {name: data for name, data in two.items() if not name.startswith("000003")}
    assert contents(tmp_path / "cars_train/000003") != contents(tmp_path / "cars_train/000002")


def test_interrupted_it_is_clean_and_silent(tmp_path):
    command = [sys.executable, "-m", "genvs.data.synthetic", "--out", str(tmp_path / "cars"), "--resolution", "16"]
    with separate([*command, "--scenes", "5000", "--views", "1", "--workers", "1"]) as process:
        wait_for(process, (tmp_path / "cars_train/000001").exists)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in finished(process, code=130)[1]
    assert [name for name in os.listdir(tmp_path) if "partial" in name] == []
    scenes = [path for path in (tmp_path / "cars_train").iterdir() if path.is_dir()]
    assert len(scenes) >= 2 and all((scene / "scene.json").exists() for scene in scenes)


def test_refuses_other_settings_and_other_folders(made, tmp_path):
    for change in ({"seed": 4}, {"views": 5}, {"resolution": 32}):
        with pytest.raises(InputError, match=r"cars_train: made with .* choose another folder"):
            ensure_dataset(made, **{**SETTINGS, **change})
    (tmp_path / "mine_train").mkdir()
    (tmp_path / "mine_train/photo.png").touch()
    with pytest.raises(InputError, match="mine_train: exists but is no dataset made by this program"):
        ensure_dataset(tmp_path / "mine", **SETTINGS)


def test_a_car_is_normalised_and_lies_along_y():
    for seed in range(20):
        model, info = build_car(np.random.default_rng(seed))
        low, high = model.bounds.astype(np.float64)
        np.testing.assert_allclose(low, -high, atol=1e-6)
        assert math.isclose(np.linalg.norm(high - low), 1, rel_tol=1e-5)
        assert high[1] == max(high), info


def test_surfaces_face_outwards():
    for kind in FAMILIES:
        model, _ = build_car(np.random.default_rng(1), kind)
        faces = model.corners.astype(np.float64)
        across = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
        agrees = ((across[:, None] * model.normals).sum(-1) > 0).all(1)
        area = np.linalg.norm(across, axis=1)
        assert area[agrees].sum() > 0.99 * area.sum()
        assert (faces[:, 0] * across).sum() > 0  # six times the enclosed volume


def nearest_crossings(corners: np.ndarray, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The smallest ray parameter at which each ray `[N, 3]` crosses a triangle `[F, 3, 3]`, 0 for none (Cramer)."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    offset = origin - corners[:, 0]
    normal, turned = np.cross(first, second), np.cross(offset, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = -directions @ normal.T
        distance = (offset * normal).sum(-1) / determinant
        u = -directions @ turned.T / determinant
        v = directions @ np.cross(offset, first).T / determinant
    u, v = np.nan_to_num(u, nan=-1.0), np.nan_to_num(v, nan=-1.0)
    crosses = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    nearest = np.where(crosses, distance, np.inf).min(1)
    return np.where(np.isfinite(nearest), nearest, 0)


def test_depth_is_that_of_every_triangle_tested_and_unprojects_onto_the_car():
    resolution, focal = 20, CARS.focal * 20
    model, _ = build_car(np.random.default_rng(5))
    c2w = split_cameras("train", 3, np.random.default_rng(5))
    intrinsics = torch.tensor([[CARS.focal, 0, 0.5], [0, CARS.focal, 0.5], [0, 0, 1]], dtype=torch.float64)
    corners = model.corners.astype(np.float64)
    rows, columns = np.indices((resolution, resolution))
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], -1)
    camera = np.concatenate([(pixels - resolution / 2) / focal, np.ones((len(pixels), 1))], -1)
    for pose, (image, depth) in zip(c2w, render(model, c2w, focal, resolution), strict=True):
        depth = depth.astype(np.float64).ravel()
        expected = nearest_crossings(corners, pose[:3, 3], camera @ pose[:3, :3].T)
        assert (np.abs(depth - expected) > 1e-4).mean() < 0.005  # a ray may graze an edge
        on = depth > 0
        assert on.sum() > 15
        cameras = Cameras(torch.tensor(pose), intrinsics, torch.tensor(0.8), torch.tensor(1.8))
        at = unproject(torch.tensor(pixels / resolution)[on], torch.tensor(depth)[on], cameras).numpy()
        low, high = model.bounds
        assert (at > low - 1e-5).all() and (at < high + 1e-5).all()
        assert (image.reshape(-1, 3)[on] < 255).any(-1).mean() > 0.9


def test_written_depth_and_background(made):
    for scene in made.parent.glob("cars_*/0*"):
        record = json.loads((scene / "scene.json").read_text())
        for path in scene.glob("depth/*.png"):
            steps, image = pixels_of(path), pixels_of(scene / "rgb" / path.name)
            depth = steps[steps > 0] * record["depth_scale"]
            assert steps.dtype == np.uint16 and len(depth) > 10
            assert record["near"] < depth.min() and depth.max() < record["far"]
            assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


def test_front_is_at_positive_y():
    """The lamps are white in front and red behind."""
    redness = {1: [], -1: []}
    for seed in range(12):
        model, _ = build_car(np.random.default_rng(seed), "sedan")
        for end in redness:
            c2w = spherical_c2w(torch.tensor([end * math.pi / 2]), torch.zeros(1), CARS.radius)
            image, depth = next(render(model, c2w.double().numpy(), CARS.focal * 48, 48))
            color = image[depth > 0].astype(float)
            redness[end].append(((color[:, 0] > 90) & (color[:, 0] > 3.5 * color[:, 2]) & (color[:, 1] < 40)).sum())
    assert np.median(redness[-1]) > np.median(redness[1])


@pytest.mark.parametrize(
    "options", [("--views", "0"), ("--scenes", "-1"), ("--resolution", "0"), ("--seed", "-1"), ("--test-views", "300")]
)
def test_the_program_refuses_numbers_that_no_dataset_has(tmp_path, monkeypatch, options):
    monkeypatch.setattr("sys.argv", ["synthetic", "--out", str(tmp_path / "cars"), *options])
    with pytest.raises(InputError, match=f"{options[0]}: {options[1]}"):
        main()
    assert list(tmp_path.iterdir()) == []
