"""Inference folders: what is read, in which order, and what is refused; and the cameras of trajectories."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.spatial.transform import Rotation

from docs.own_dataset import NpzScenes
from genvs.config import PRESETS
from genvs.data.scene_input import read_scene
from genvs.errors import InputError
from genvs.geometry import Cameras, project
from genvs.geometry.trajectories import trajectory_cameras
from inference import inference
from tests.unit.srn_folder import some_c2w, write_scene, write_split, zip_of
from tests.unit.test_data_class import write_npz
from tests.unit.transforms_folder import write_capture

CONFIG = PRESETS["cpu-demo"]  # 32 pixels, depths from 0.8 to 1.8


@pytest.fixture
def folder(tmp_path) -> Path:
    """The inputs `1`, `2` and `10`, and the targets `a2`, `a10` with the poses of `2` and `1`."""
    scene = write_scene(tmp_path / "car", num_views=10)
    (scene / "target_pose").mkdir()
    for target, view in (("a2", 2), ("a10", 1)):
        shutil.copy(scene / "pose" / f"{view}.txt", scene / "target_pose" / f"{target}.txt")
    for view in range(3, 10):
        (scene / "rgb" / f"{view}.png").unlink()
        (scene / "pose" / f"{view}.txt").unlink()
    return scene


def test_views_pair_in_natural_order(folder):
    scene = read_scene(folder, CONFIG)
    assert scene.names == ["1", "2", "10"] and scene.target_names == ["a2", "a10"]
    assert scene.inputs.images.shape == (1, 3, 3, 32, 32) and scene.inputs.images.dtype == torch.uint8
    assert [int(red) for red in scene.inputs.images[0, :, 0].amin(dim=(1, 2))] == [10, 20, 100]
    for cameras, views in [(scene.inputs.cameras, [0, 1, 9]), (scene.target_cameras, [1, 0])]:
        torch.testing.assert_close(cameras.c2w[0], torch.from_numpy(some_c2w(10)[views]).float())
        assert cameras.intrinsics[0, :, 0, 0].tolist() == pytest.approx([32.8125 / 32] * len(views))
        assert cameras.near.unique().tolist() == pytest.approx([0.8])
        assert cameras.far.unique().tolist() == pytest.approx([1.8])


@pytest.mark.parametrize("content", ["1 " * 15, "nan " * 16, None])
def test_bad_targets_are_refused(folder, content):
    for path in folder.glob("target_pose/*"):
        path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match="holds no .txt" if content is None else r"a\d+\.txt: "):
        read_scene(folder, CONFIG)


LAYOUTS = {  # what is written into a folder, and the path and options of a scene of six views
    "scene": lambda folder: (write_scene(folder / "car"), {}),
    "scene of a split": lambda folder: (write_split(folder / "cars_test") / "car2", {}),
    "dataset": lambda folder: (write_split(folder / "cars_train").with_name("cars"), {"scene": "car2"}),
    "zip": lambda folder: (zip_of(write_split(folder / "cars_train")) / "cars_train" / "car2", {}),
    "transforms.json": lambda folder: (write_capture(folder / "car"), {}),
    "captures": lambda folder: (write_capture(folder / "set" / "car").parent, {"scene": "0"}),
    "own class": lambda folder: (write_npz(folder / "npz"), {"scene": "1", "dataset_class": NpzScenes}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_are_chosen_by_number_in_any_layout(tmp_path, layout):
    path, options = LAYOUTS[layout](tmp_path)
    scene = read_scene(path, CONFIG, **options)
    assert len(scene.names) == scene.inputs.shape[1] == 3, "the first three"
    assert len(scene.target_names) == 3 and scene.target_images.shape == (1, 3, 3, 32, 32), "and all others"
    names = scene.names + scene.target_names
    chosen = read_scene(path, CONFIG, inputs=[4, 1], targets=[5, 0], **options)
    assert chosen.names == [names[4], names[1]] and chosen.target_names == [names[5], names[0]]
    assert torch.equal(chosen.inputs.images[0, 0], scene.target_images[0, 1])
    assert torch.equal(chosen.target_images[0, 1], scene.inputs.images[0, 0])
    assert torch.equal(chosen.target_cameras.c2w[0, 1], scene.inputs.cameras.c2w[0, 0])
    torch.testing.assert_close(chosen.inputs.cameras.c2w[0], torch.from_numpy(some_c2w(6)[[4, 1]]).float())
    assert read_scene(path, CONFIG, targets=[0, 2], **options).names == [names[1], *names[3:5]]
    assert read_scene(path, CONFIG, inputs=[5], **options).target_names == names[:5]
    without = read_scene(path, CONFIG, targets=[], **options)
    assert without.names == names and without.target_cameras is None


def test_inputs_may_be_fewer_where_the_files_state_the_targets(folder):
    scene = read_scene(folder, CONFIG, inputs=[2])
    assert scene.names == ["10"] and scene.target_names == ["a2", "a10"] and scene.target_images is None
    assert read_scene(folder, CONFIG, targets=[1]).target_names == ["2"]


def test_the_first_of_several_scenes_is_drawn_with_a_warning(tmp_path):
    path = write_split(tmp_path / "cars_test")
    with pytest.warns(UserWarning, match="has 3 scenes; the first, car1, .*`scene`"):
        first = read_scene(path, CONFIG)
    assert torch.equal(first.inputs.images, read_scene(path / "car1", CONFIG).inputs.images)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scene": "car4"}, "no scene 'car4'; give `scene`.* from 0 to 2"),
        ({"scene": "car1", "targets": [-1]}, "car1: has no view -1; choose from 0 to 5"),
        ({"scene": "car1", "targets": range(6)}, "no view is left"),
    ],
)
def test_scenes_and_views_that_are_not_there(tmp_path, options, reason):
    path = write_split(tmp_path / "cars_test")
    with pytest.raises(InputError, match=reason):
        read_scene(path, CONFIG, **options)


@pytest.mark.parametrize(
    ("focal_y", "center_x", "said"),
    [(140, 60, None), (175, 64, "1.03 of .* 1.37 of .* 1.03 of both"), (140, 54, "principal point is at 0.422 of")],
)
def test_a_lens_unlike_the_training_datas_is_warned_of(folder, focal_y, center_x, said):
    (folder / "intrinsics.txt").write_text(f"131.25 0 {center_x}\n0 {focal_y} 64\n0 0 1\n128 128\n")
    found = inference.unlike_training(read_scene(folder, CONFIG).inputs.cameras, CONFIG.scene)
    assert not found if said is None else re.search(said, found[0])


@pytest.fixture
def inputs(folder) -> Cameras:
    return read_scene(folder, CONFIG).inputs.cameras


@pytest.mark.parametrize("trajectory", ["orbit", "spiral"])
def test_trajectories_look_at_the_origin_from_the_inputs_distance(inputs, trajectory):
    cameras = trajectory_cameras(inputs, trajectory, 12)
    uv, depth = project(torch.zeros(1, 12, 1, 3), cameras)
    torch.testing.assert_close(uv, torch.full((1, 12, 1, 2), 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(depth, torch.full_like(depth, 1.3), rtol=0, atol=1e-5)


def test_an_orbit_starts_at_the_first_input_at_the_elevation_asked_for(inputs):
    cameras = trajectory_cameras(inputs, "orbit", 4, elevation=math.degrees(0.4))
    first = [1.3 * math.cos(0.4) * math.cos(0.3), 1.3 * math.cos(0.4) * math.sin(0.3), 1.3 * math.sin(0.4)]
    torch.testing.assert_close(cameras.centers[0, 0], torch.tensor(first), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("turn", "upright"), [([0, 0, 70], True), ([90, 0, 0], False), ([180, 0, 0], False)])
def test_cameras_stand_upright_in_a_world_whose_z_is_up(inputs, turn, upright):
    """Degrees by which the world is turned: COLMAP's y axis is down."""
    world = torch.eye(4)
    world[:3, :3] = torch.from_numpy(Rotation.from_euler("xyz", turn, degrees=True).as_matrix())
    assert inference.stand_upright(replace(inputs, c2w=world @ inputs.c2w)) == upright


@pytest.mark.parametrize("bad", [{"radius": -1.0}, {"radius": math.inf}, {"elevation": 90.5}, {"elevation": math.nan}])
def test_cameras_that_cannot_be(inputs, bad):
    with pytest.raises(InputError, match=f"`{next(iter(bad))}`="):
        trajectory_cameras(inputs, "spiral", 3, **bad)


def test_a_spiral_climbs_to_the_elevation_asked_for_even_to_the_pole(inputs):
    cameras = trajectory_cameras(inputs, "spiral", 8, elevation=90)
    assert cameras.centers[0, :, 2].max().item() == pytest.approx(1.3, abs=1e-5)
    assert torch.isfinite(cameras.c2w).all()


@pytest.mark.parametrize(("radius", "near", "far"), [(1.3, 0.8, 1.8), (2.3, 1.8, 2.8), (0.3, 0.008, 0.8)])
def test_depth_planes_move_with_the_radius_and_stay_in_front(inputs, radius, near, far):
    cameras = trajectory_cameras(inputs, "orbit", 3, radius=radius)
    for found, expected in ((cameras.centers.norm(dim=-1), radius), (cameras.near, near), (cameras.far, far)):
        torch.testing.assert_close(found, torch.full((1, 3), expected), rtol=0, atol=1e-5)
