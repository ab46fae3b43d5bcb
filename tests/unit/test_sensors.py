"""Radar and sonar: where echoes lie, how strong they are, what hides, and what a dataset gets drawn."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.config import SceneConfig
from genvs.data.mesh.__main__ import main as mesh_main
from genvs.data.stored import StoredScenes
from genvs.data.synthetic.cars import build_car
from genvs.data.synthetic.dataset import ensure_dataset, split_cameras
from genvs.data.synthetic.sensors import DIFFUSE, GLOSS, HIGHLIGHT, REFLECTION, SENSORS, Radar, Target, draw
from genvs.data.synthetic.shading import Castable, render
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.projections import PROJECTIONS
from genvs.geometry.trajectories import spherical_c2w
from genvs.modalities import MODALITIES, depth_decoded
from tests.unit.mesh_files import read_gltf, write_obj
from tests.unit.test_synthetic import contents

CARS = SceneConfig()
SIDE = 64
POSE = spherical_c2w(torch.tensor([0.7]).double(), torch.tensor([0.4]).double(), CARS.radius).numpy()
SMALL = dict(scenes=2, views=2, resolution=16, seed=3, val_scenes=1)


@dataclass(frozen=True)
class Plates(Castable):
    """Gray triangles. opacity: of each, `[F]`."""

    opacity: np.ndarray

    def finish_at(self, faces, u, v, spacing):
        gray = np.full((len(faces), 9), 0.5) * [1, 1, 1, 0, 2, 0, 0, 0, 0]
        return gray + self.opacity[faces, None] * np.eye(9)[8]

    def opacity_at(self, faces, u, v):
        return self.opacity[faces]


def plates(*places: tuple, opacity: tuple = ()) -> Plates:
    """Parallelograms in front of POSE, each given by its middle and its two half sides (x, y, z), in camera axes."""
    corners = []
    for middle, first, second in places:
        a, b, c, d = (
            np.add(middle, i * np.array(first) + j * np.array(second)) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        )
        corners += [[a, b, c], [a, c, d]]
    world = (np.array(corners) @ POSE[0, :3, :3].T + POSE[0, :3, 3]).astype(np.float32)
    normals = np.cross(world[:, 1] - world[:, 0], world[:, 2] - world[:, 0])[:, None].repeat(3, 1)
    return Plates(world, normals, np.repeat(opacity or [1.0] * len(places), 2))


def power_of(name: str, model: Castable) -> np.ndarray:
    return SENSORS[name].power(Target(model), POSE[0], SIDE, np.random.default_rng(0))


def camera(name: str) -> Cameras:
    intrinsics = torch.tensor([[CARS.focal, 0, 0.5], [0, CARS.focal, 0.5], [0, 0, 1]], dtype=torch.float64)
    near, far = torch.tensor([CARS.near, CARS.far], dtype=torch.float64)
    return Cameras(torch.tensor(POSE[0]), intrinsics, near, far)


def seen_by(name: str, model: Castable) -> np.ndarray:
    """How much of the model each pixel shows."""
    if name in SENSORS:
        return power_of(name, model)
    image, depth = next(render(model, POSE, CARS.focal * SIDE, SIDE))
    return depth > 0 if name == "depth" else 255.0 - image.mean(-1)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODALITIES))
@pytest.mark.parametrize("place", [(0.0, 0.0, 1.3), (0.2, -0.15, 1.05), (-0.31, 0.12, 1.55)])
def test_a_small_plate_lies_where_the_chart_says(name, place):
    shown = seen_by(name, plates((place, (0.03, 0, 0), (0, 0.03, 0))))
    world = torch.tensor(POSE[0, :3, :3] @ place + POSE[0, :3, 3])
    expected = PROJECTIONS[MODALITIES[name].projection].chart(world[None], camera(name))[0, :2].numpy() * SIDE
    rows, columns = np.indices(shown.shape) + 0.5
    found = [(shown * columns).sum() / shown.sum(), (shown * rows).sum() / shown.sum()]
    np.testing.assert_allclose(found, expected, atol=0.35)


@pytest.mark.parametrize("name", list(SENSORS))
def test_an_echo_and_its_elevation_are_a_point_of_the_surface(name):
    middle, sides = np.array([0.02, 0.01, 1.32]), np.array([[0.9, 0.1, 0.3], [0.2, 0.9, -0.4]])
    target = Target(plates((middle, *sides)))
    u, w = np.random.default_rng(0).uniform(0.3, 0.7, (2, 500)).astype(np.float32)
    echoes = next(SENSORS[name].echoes(target, POSE[0].astype(np.float32), u, w))
    uvw = torch.from_numpy(np.stack([echoes[0], echoes[1], w], -1)).double()
    points = PROJECTIONS[MODALITIES[name].projection].points(uvw, camera(name)).numpy()
    offsets = (points - POSE[0, :3, 3]) @ POSE[0, :3, :3] - middle
    normal = np.cross(*sides)
    assert np.abs(offsets @ normal / np.linalg.norm(normal)).max() < 2e-6
    np.testing.assert_allclose(echoes[0], u, atol=1e-6)


@pytest.mark.parametrize("name", list(SENSORS))
def test_the_sensors_columns_and_elevations_of_a_cars_vertices_are_the_charts(name):
    vertices = build_car(np.random.default_rng(3))[0].corners.reshape(-1, 3)[::997].astype(np.float64)
    found = [np.mean(SENSORS[name].bounds(vertex[None], POSE[0]), axis=1) for vertex in vertices]
    expected = PROJECTIONS[MODALITIES[name].projection].chart(torch.from_numpy(vertices), camera(name))
    np.testing.assert_allclose(found, expected[:, [0, 2]], rtol=0, atol=1e-12)


def test_two_plates_at_one_azimuth_and_range_are_one_echo_of_twice_the_power():
    """Layover: a camera tells them apart, a radar does not."""
    both = [((0.1, y, 1.2), (0.05, 0, 0), (0, 0.05, 0)) for y in (-0.2, 0.2)]
    one, two = (power_of("sar", plates(*shown)) for shown in (both[:1], both))
    assert ((one > 0.01) == (two > 0.01)).all()
    assert two.sum() == pytest.approx(2 * one.sum(), rel=0.04)
    assert np.ptp(np.nonzero(seen_by("depth", plates(*both)))[0]) > 20


def test_two_bounces_in_a_corner_lie_at_the_range_of_its_edge():
    row, half = 24, 0.1
    far = CARS.far - (row + 0.5) / SIDE
    target = Target(plates(*(((0, y, far - half), (0.2, 0, 0), (0, y, -half)) for y in (half, -half))))
    one, two = (Radar(bounces).power(target, POSE[0], SIDE, np.random.default_rng(0)) for bounces in (1, 2))
    second = two - one
    assert second[row].sum() > 0.95 * second.sum()
    # Each ray turns by 90 degrees twice, and meets the second plate with its highlight in the radar's direction.
    rays = 4 * half * SIDE * 0.4 * SIDE
    assert second.sum() == pytest.approx(rays * REFLECTION * (DIFFUSE * np.sqrt(0.5) + HIGHLIGHT), rel=0.02)


# --- strength ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SENSORS))
def test_unit_echoes_of_a_plate_at_45_degrees_are_0_decibels(name):
    slope = np.sqrt(0.5)
    power = power_of(name, plates(((0, 0, 1.3), (0.3, 0, 0), (0, -0.3, 0.3))))
    echo = slope if name == "sonar" else DIFFUSE * slope + HIGHLIGHT * slope**GLOSS
    assert 10 * np.log10(power[28:36, 24:40].mean() / echo) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("name", list(SENSORS))
def test_what_is_behind_a_plate_gives_nothing(name):
    front = (0, 0, 1.1), (0.25, 0, 0.1), (0, 0.25, 0.1)
    hidden, beside = (((x, y, 1.5), (0.05, 0, 0), (0, 0.05, 0)) for x, y in ((0, 0), (0.35, 0)))
    alone = power_of(name, plates(front))
    np.testing.assert_array_equal(power_of(name, plates(front, hidden)), alone)
    behind = slice(0, int((CARS.far - 1.4) * SIDE))
    assert alone[behind].sum() == 0 and power_of(name, plates(front, beside))[behind].sum() > 1


@pytest.mark.parametrize("name", list(SENSORS))
def test_glass_is_passed_as_it_is_in_depth_images(tmp_path, name):
    back, pane = ((0, 0, 1.4), (0.25, 0, 0.1), (0, 0.25, 0.1)), ((0, 0, 1.1), (0.1, 0, 0), (0, 0.1, 0))
    clear, solid = (plates(back, pane, opacity=(1.0, opacity)) for opacity in (0.3, 0.7))
    np.testing.assert_allclose(power_of(name, clear), power_of(name, plates(back)), atol=0.02)
    assert np.abs(power_of(name, solid) - power_of(name, plates(back))).max() > 1
    glass = {"extensions": {"KHR_materials_transmission": {"transmissionFactor": 1.0}}}
    window = read_gltf(tmp_path / "a.gltf", material=glass)
    assert power_of(name, window).sum() == 0 and not seen_by("depth", window).any()
    assert power_of(name, read_gltf(tmp_path / "b.gltf")).sum() > 1


def test_the_windows_of_a_car_that_one_can_see_through_are_holes():
    model, _ = build_car(np.random.default_rng(3))
    rng = np.random.default_rng(0)
    faces, (u, v) = rng.integers(0, len(model.corners), 20000), rng.random((2, 20000), dtype=np.float32) / 2
    opacity = model.opacity_at(faces, u, v)
    assert 500 < (opacity == 0).sum() < 5000 and (opacity == 1).sum() > 15000
    np.testing.assert_array_equal(opacity, model.finish_at(faces, u, v, 0 * u)[:, 8])


def test_speckle_has_mean_1_in_power_and_the_variance_of_its_looks():
    model = plates(((0, 0, 1.3), (0.4, 0, 0), (0, -0.3, 0.3)))
    low, high = MODALITIES["sar"].decibels
    power = []
    for looks in (None, 4):
        picture = next(draw("sar", model, POSE, SIDE, (1,), looks))[20:44, 16:48]
        power.append(10 ** ((low + (high - low) * picture / 255) / 10))
    ratio = power[1] / power[0]
    assert ratio.mean() == pytest.approx(1, abs=0.06)
    assert ratio.var() == pytest.approx(1 / 4, abs=0.06)


# --- bytes and datasets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SENSORS))
def test_a_picture_is_a_function_of_the_scenes_key_and_the_view(name):
    model, _ = build_car(np.random.default_rng(5))
    c2w = np.concatenate([split_cameras("train", 1, np.random.default_rng(5))] * 2)
    first, second = draw(name, model, c2w, SIDE, (0, 1), 4)
    assert first.max() > 100 and (first == 0).mean() > 0.5
    np.testing.assert_array_equal(next(draw(name, model, c2w[:1], SIDE, (0, 1), 4)), first)
    for other in (second, next(draw(name, model, c2w[:1], SIDE, (0, 2), 4))):
        assert (other != first).mean() > 0.05
        assert np.corrcoef(first.ravel(), other.ravel())[0, 1] > 0.9


def test_a_dataset_gets_only_what_it_lacks(tmp_path):
    once, later = tmp_path / "once" / "cars", tmp_path / "later" / "cars"
    ensure_dataset(once, modalities=("rgb", "sar", "sonar"), **SMALL)
    ensure_dataset(later, workers=1, **SMALL)
    scenes = [later.parent / f"cars_{name}" for name in ("train/000000", "train/000001", "val/000000")]
    before = {path: path.stat().st_mtime_ns for scene in scenes for path in scene.rglob("*.*")}
    ensure_dataset(later, modalities=("raysar",), **SMALL)
    assert sorted(path.name for path in scenes[0].iterdir() if path.is_dir()) == ["depth", "pose", "rgb", "sar"]
    (scenes[1] / "sar").rename(tmp_path / "lost")
    ensure_dataset(later, workers=2, modalities=("rgb", "depth", "sar", "sonar"), **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert contents(once.parent) == contents(later.parent)
    with Image.open(scenes[1] / "sonar" / "000001.png") as picture:
        assert picture.mode == "L" and picture.size == (16, 16)
    record = json.loads((later.with_name("cars_val") / "dataset.json").read_text())
    assert record["looks"] is None and record["sar_decibels"] == [-25, 15] and record["views"] == 2


def test_the_reader_finds_every_sensors_calibrated_pictures(tmp_path):
    (split,) = ensure_dataset(tmp_path / "cars", modalities=MODALITIES, **{**SMALL, "resolution": 64, "val_scenes": 0})
    dataset = StoredScenes(split.folder, resolution=64, modalities=tuple(MODALITIES))
    assert dataset.modalities_of(1) == list(MODALITIES)
    views = dataset.load(1, [1, 1, 1, 1], np.arange(4))
    pictures = views.images.numpy().astype(np.float64)
    assert pictures.shape == (4, 3, 64, 64) and (pictures[1:] == pictures[1:, :1]).all()
    model, _ = split.subjects["000001"].build()
    c2w = views.cameras.c2w[:1].double().numpy()
    image, depth = next(render(model, c2w, CARS.focal * 64, 64))
    assert (np.abs(pictures[0] - image.transpose(2, 0, 1)) > 1).mean() < 0.01
    there = depth > 0
    assert there.mean() > 0.05 and ((pictures[1, 0] > 0) == there).mean() > 0.999
    errors = np.abs(depth_decoded(pictures[1, 0], CARS.near, CARS.far) - depth)[there]
    assert np.median(errors) < 1 / 254 and np.quantile(errors, 0.99) < 2 / 254
    for index, name in ((2, "sar"), (3, "sonar")):
        low, high = MODALITIES[name].decibels
        power = SENSORS[name].power(Target(model), c2w[0], 64, np.random.default_rng(0))
        found = 10 ** ((low + (high - low) * pictures[index, 0] / 255) / 10) * (pictures[index, 0] > 0)
        assert found.sum() == pytest.approx(power.sum(), rel=0.03)
        assert np.corrcoef(found.ravel(), power.ravel())[0, 1] > 0.98


def test_other_looks_and_unknown_sensors_are_refused(tmp_path):
    out = tmp_path / "cars"
    ensure_dataset(out, **SMALL)
    ensure_dataset(out, modalities=("sonar",), looks=4, **SMALL)
    with pytest.raises(InputError, match="cars_train: made with looks 4, not 2; choose another folder"):
        ensure_dataset(out, modalities=("sar",), looks=2, **SMALL)
    ensure_dataset(out, **SMALL)  # photos alone have no looks
    with pytest.raises(InputError, match="`modalities`=radar: .*choose from rgb, depth, sar, sonar"):
        ensure_dataset(tmp_path / "other", modalities=("radar",), **SMALL)
    assert not (tmp_path / "other_train").exists()


def test_the_command_draws_meshes_for_every_sensor(tmp_path):
    write_obj(tmp_path / "square.obj")
    out: Path = tmp_path / "things_train"
    options = ["--out", str(out), "--views", "2", "--resolution", "16", "--workers", "1", str(tmp_path)]
    mesh_main(["--modalities", "eo,lidar_depth,raysar", *options])
    mesh_main(["--modalities", "sonar,sar", *options])
    assert sorted(path.name for path in (out / "square").glob("*/")) == ["depth", "pose", "rgb", "sar", "sonar"]
    with pytest.raises(InputError, match="made with looks none, not 4"):
        mesh_main(["--modalities", "sar", "--looks", "4", *options])
