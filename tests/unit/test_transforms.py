"""`transforms.json`: what it gives, as a dataset and as an inference folder; what is refused; and a real one."""

import dataclasses
import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.config import PRESETS, SceneConfig
from genvs.data.scene_input import read_scene
from genvs.data.stored import StoredScenes
from tests.unit.packed_folder import equal_scenes, same_views
from tests.unit.srn_folder import c2w_text, opened, refused, some_c2w, write_scene, zip_of
from tests.unit.transforms_folder import OPENGL, frame, write_capture, write_transforms

MODEL = PRESETS["cpu-demo"]


def save_gray(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (64, 48), 90).save(path)


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_it_is_the_same_scene_as_in_srns_layout(tmp_path):
    """Views, cameras, the choice of views and the pack; written once in either layout."""
    srn = write_scene(tmp_path / "srn_train" / "car", num_views=6)
    shutil.copytree(srn / "rgb", tmp_path / "capture" / "train")
    frames = [frame(f"./train/{view}", c2w) for view, c2w in enumerate(some_c2w(6), start=1)]
    angle = 2 * math.atan(0.5 * 32 / 32.8125)
    write_transforms(tmp_path / "capture" / "transforms_train.json", frames[::-1], camera_angle_x=angle)
    one, other = opened(tmp_path / "srn_train", seed=3), opened(tmp_path / "capture", seed=3)
    assert other.scene_names == ["capture"] and other.num_views(0) == 6
    first, second = (dataset.load(0, range(6)) for dataset in (one, other))
    assert torch.equal(first.images, second.images)
    for part in ("c2w", "intrinsics", "near", "far"):
        torch.testing.assert_close(getattr(first.cameras, part), getattr(second.cameras, part))


@pytest.mark.parametrize("beside", ["rgb", "colmap/sparse/0"])
def test_many_scenes_are_read_as_one_is(tmp_path, beside):
    """From transforms.json, with images in rgb/, as Record3D has it, or beside a model, as nerfstudio does."""
    for scene in ("a", "b"):
        folder = write_capture(tmp_path / scene)
        (folder / beside).mkdir(parents=True)
        (folder / beside / ("images.bin" if beside != "rgb" else "r_1.png")).write_bytes(b"")
    assert opened(tmp_path).scene_names == ["a", "b"] and equal_scenes(opened(tmp_path / "b"), opened(tmp_path / "a"))
    assert opened(tmp_path).convention == opened(tmp_path / "a").convention == "opengl"
    assert read_scene(tmp_path, MODEL, scene="b").names == read_scene(tmp_path / "b", MODEL).names


def test_poses_with_three_decimals(tmp_path):
    c2w = some_c2w(40)
    assert opened(write_capture(tmp_path / "a", 40, c2w=c2w.round(3))).num_views(0) == 40
    c2w[:, :3, :3] *= 1.004
    assert opened(write_capture(tmp_path / "b", 40, c2w=c2w)).num_views(0) == 40


def test_images_that_were_converted_to_another_format(tmp_path):
    folder = write_capture(tmp_path, 2)
    frames = [frame(f"images/r_{view}.JPG", c2w) for view, c2w in enumerate(some_c2w(2), start=1)]
    write_transforms(folder / "transforms.json", frames, camera_angle_x=0.9)
    assert opened(folder).num_views(0) == 2


def test_images_of_which_there_are_smaller_copies_alone(tmp_path):
    folder = write_capture(tmp_path, 2)
    for copies in ("images_8", "images_4"):
        shutil.copytree(folder / "images", folder / copies)
    assert opened(folder).scenes[0].images == ["images/r_1.png", "images/r_2.png"]
    shutil.rmtree(folder / "images")
    assert opened(folder).scenes[0].images == ["images_4/r_1.png", "images_4/r_2.png"]


def test_intrinsics_of_all_and_of_a_frame(tmp_path):
    """As nerfstudio and instant-ngp write them: in pixels of a size that is stated, or of the image's own."""
    poses = some_c2w(5)
    for view in range(5):
        save_gray(tmp_path / "images" / f"{view}.png")
    frames = [
        frame("images/0.png", poses[0]),
        frame("images/1.png", poses[1], fl_x=100.0, cx=30),
        frame("images/2.png", poses[2], w=128, h=96, fl_x="160", fl_y="150.0", cx=64, cy=50, camera_model="PINHOLE"),
        frame("images/3.png", poses[3], camera_angle_x=math.pi / 2),
        frame("images/4.png", poses[4], camera_angle_x=math.pi / 2, camera_angle_y=math.pi / 3),
    ]
    shared = {"fl_x": 80, "cy": 20.0, "camera_model": "OPENCV", "k1": 0.0, "aabb_scale": 4, "camera_angle_x": 0.1}
    write_transforms(tmp_path / "transforms.json", frames, **shared)
    matrices = opened(tmp_path).load(0, range(5)).cameras.intrinsics.double()
    expected = [  # fx, fy, cx, cy, in shares of the width or the height
        (80 / 64, 80 / 48, 0.5, 20 / 48),
        (100 / 64, 100 / 48, 30 / 64, 20 / 48),
        (160 / 128, 150 / 96, 0.5, 50 / 96),
        (0.5, 0.5 * 64 / 48, 0.5, 20 / 48),
        (0.5, 0.5 * math.sqrt(3), 0.5, 20 / 48),
    ]
    found = matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_camera_that_moves_is_where_it_is_half_way(tmp_path):
    """As instant-ngp describes those with a rolling shutter."""
    folder, before, after = write_capture(tmp_path, 2), *(some_c2w(2, radius) for radius in (1.2, 1.4))
    moves = [
        {
            "file_path": first.pop("file_path"),
            "transform_matrix_start": first["transform_matrix"],
            "transform_matrix_end": second["transform_matrix"],
        }
        for first, second in zip(
            *([frame(f"images/r_{n}", c2w) for n, c2w in enumerate(poses, 1)] for poses in (before, after)), strict=True
        )
    ]
    write_transforms(folder / "transforms.json", moves, camera_angle_x=0.9)
    np.testing.assert_allclose(opened(folder).all_c2w(0), some_c2w(2, 1.3), atol=1e-12)


def test_three_rows_backslashes_and_upper_case(tmp_path):
    poses = some_c2w(4)
    for name in ("a.JPG", "b.jpeg", "c.PNG", "d.JPG"):
        save_gray(tmp_path / "images" / name)
    files = (".\\images\\a.JPG", "images/b", "images/c", "images/d.jpg")
    frames = [frame(file, c2w) for file, c2w in zip(files, poses, strict=True)]
    frames[0]["transform_matrix"] = frames[0]["transform_matrix"][:3]
    write_transforms(tmp_path / "transforms.json", frames, fl_y=60)
    views = opened(tmp_path).load(0, range(4))
    torch.testing.assert_close(views.cameras.c2w, torch.from_numpy(poses).float())
    assert views.images[:, 0, 0, 0].tolist() == [90] * 4


# --- where it is ------------------------------------------------------------------------------------------------------


def test_splits_in_files_and_folders_of_scenes(tmp_path):
    for seed, scene in enumerate(("v10", "v2")):
        for split, views in (("train", 5), ("val", 4), ("test", 3)):
            write_capture(tmp_path / "set" / scene, views, file=f"transforms_{split}.json", seed=seed)
    splits = StoredScenes.find_splits(tmp_path / "set")
    assert splits.train == tmp_path / "set" / "transforms_train.json"
    for split, views in zip(splits, (5, 4, 3), strict=True):
        dataset = StoredScenes(split, resolution=32)
        assert dataset.scene_names == ["v2", "v10"] and dataset.num_views(1) == views
    one = StoredScenes.find_splits(tmp_path / "set" / "v2" / "transforms_val.json").train
    assert StoredScenes(one, resolution=32).num_views(0) == 4


def test_an_image_that_is_trained_on_and_held_out_by_another_name(tmp_path):
    folder = write_capture(tmp_path / "set" / "a", 5, file="transforms_train.json")
    held_out = frame("images_train/r_3.png", some_c2w(1)[0])
    write_transforms(folder / "transforms_val.json", [held_out], camera_angle_x=0.9)
    for path in (folder, tmp_path / "set"):
        line = refused("a/transforms_val.json", lambda path=path: StoredScenes.find_splits(path))
        assert "'images_train/r_3.png' is also in transforms_train.json" in line


def test_scenes_that_would_be_left_out(tmp_path):
    for scene, file in (("a", "transforms.json"), ("b", "transforms_train.json")):
        write_capture(tmp_path / "set" / scene, file=file)
    assert "has no transforms_train.json" in refused("set/a: ", lambda: StoredScenes.find_splits(tmp_path / "set"))
    with pytest.warns(UserWarning, match="1 folder without transforms.json left out: b"):
        assert opened(tmp_path / "set" / "transforms.json").scene_names == ["a"]
    (tmp_path / "set" / "b" / "transforms.json").write_text("{}")  # of all of its views; the split's goes first
    (tmp_path / "set" / "a" / "transforms.json").unlink()
    with pytest.warns(UserWarning, match="1 folder without transforms_train.json left out: a"):
        assert opened(tmp_path / "set").scene_names == ["b"]


def test_folders_named_train_and_val_and_zips(tmp_path):
    for seed, split in enumerate(("train", "val")):
        for scene in ("a", "b"):
            write_capture(tmp_path / f"things_{split}" / scene, seed=seed)
    splits = StoredScenes.find_splits(tmp_path / "things")
    assert splits.val == tmp_path / "things_val" / "transforms.json" and splits.test is None
    zipped, folder = opened(zip_of(tmp_path)), opened(tmp_path / "things")
    assert zipped.scene_names == folder.scene_names == ["a", "b"] and equal_scenes(zipped, folder)
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"things_{split}").rename(tmp_path / "set" / split)
    for path in (tmp_path / "set", tmp_path / "set" / "train"):
        assert StoredScenes.find_splits(path).val == tmp_path / "set" / "val" / "transforms.json"
    write_capture(tmp_path / "set" / "truck" / "a")  # train is another kind of vehicle
    assert "holds no scenes, but train/, truck/, val/" in refused(
        "set", lambda: StoredScenes.find_splits(tmp_path / "set")
    )


def test_classes_are_beside_the_file(tmp_path):
    for scene in ("a", "b"):
        write_capture(tmp_path / "set" / scene)
    assert "set/labels.json: is missing" in refused("labels.json", opened(tmp_path / "set").classes)
    (tmp_path / "set" / "labels.json").write_text('{"b": 0, "a": 3}')
    assert opened(tmp_path / "set").classes() == [3, 0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_frames_without_image_are_left_out_with_one_line(tmp_path):
    folder = write_capture(tmp_path / "capture", num_views=30)
    for view in (2, 3, 11):
        (folder / "images" / f"r_{view}.png").unlink()
    with pytest.warns(UserWarning, match="3 of 30 .* left out: images/r_2, images/r_3, images/r_11; add them$"):
        dataset = opened(folder)
    assert dataset.num_views(0) == 27 and dataset.view_names(0)[:2] == ["r_1", "r_4"]
    shutil.rmtree(folder / "images")
    assert "none of its 30 images" in refused("capture/transforms.json", lambda: opened(folder))


BAD_RECORDS = {  # what becomes of the record, or of its second frame
    "no frames": (lambda record: record.pop("frames"), "no list 'frames'"),
    "a frame is text": (lambda record: record["frames"].append("r_9"), "frame 4 is not an object"),
    "no path": (lambda record: record["frames"][2].pop("file_path"), "frame 2: file_path None"),
    "path of two lines": (dict(file_path="images/r\n1"), "file_path"),
    "twice": (dict(file_path="images/r_1"), "listed twice"),
    "twice, once with its suffix": (dict(file_path="images/r_1.png"), "'images/r_1' and 'images/r_1.png' are the same"),
    "ragged matrix": (dict(transform_matrix=[[1, 0, 0, 0], [0, 1, 0], [0, 0, 1, 0]]), "4x4 finite numbers"),
    "matrix of nan": (dict(transform_matrix=[[math.nan] * 4] * 4), "4x4 finite numbers"),
    "scaled matrix": (dict(transform_matrix=(2 * np.eye(4)[:3]).tolist()), "take the scale out"),
    "no focal length": (lambda record: record.pop("camera_angle_x"), "has no focal length"),
    "degrees": (lambda record: record.update(camera_angle_x=50.0), "give radians"),
    "focal length for another size": (dict(fl_x=1e5), "focal length"),
    "another shape": (lambda record: record.update(w=64, h=32), "32x32"),
    "half a pixel": (dict(w=31.5), "side in pixels"),
    "panorama": (lambda record: record.update(camera_model="EQUIRECTANGULAR"), "model EQUIRECTANGULAR"),
    "nonsense distortion": (lambda record: record.update(k1=-80.0), "correct its coefficients"),
    "all poses the same": (
        lambda record: [f.update(transform_matrix=np.eye(4).tolist()) for f in record["frames"]],
        "all its poses are the same",
    ),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_records(tmp_path, case):
    spoil, reason = BAD_RECORDS[case]
    folder = write_capture(tmp_path / "capture", num_views=4)
    record = json.loads((folder / "transforms.json").read_text())
    record["frames"][1].update(spoil) if isinstance(spoil, dict) else spoil(record)
    (folder / "transforms.json").write_text(json.dumps(record))
    file = "images/r_1.png" if case == "another shape" else "capture/transforms.json"
    assert reason in refused(file, lambda: opened(folder).load(0, range(4)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"frames": 3}'])
def test_what_is_not_such_a_file(tmp_path, content):
    (tmp_path / "transforms.json").write_bytes(content)
    refused("transforms.json", lambda: opened(tmp_path))


# --- axes, place and scale --------------------------------------------------------------------------------------------


def as_opengl(scene: Path) -> Path:
    """The scene with the axes of its pose files turned."""
    for path in scene.glob("pose/*.txt"):
        path.write_text(c2w_text(np.array(path.read_text().split(), dtype=float).reshape(4, 4) * OPENGL))
    return scene


def test_axes_are_guessed_with_a_warning_or_as_stated(tmp_path):
    write_scene(tmp_path / "right_train" / "car", num_views=4)
    as_opengl(write_scene(tmp_path / "turned_train" / "car", num_views=4))
    right = opened(tmp_path / "right_train").load(0, range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stated = opened(tmp_path / "turned_train", convention="opengl")
    with pytest.warns(UserWarning, match="turned_train/car: every camera faces away.*taken to be opengl's"):
        guessed = opened(tmp_path / "turned_train")
    for dataset in (stated, guessed):
        views = dataset.load(0, range(4))
        assert same_views(views, right) and dataset.scene_config() == opened(tmp_path / "right_train").scene_config()
    with pytest.warns(UserWarning, match="as `convention` says; opengl's look right"):
        believed = opened(tmp_path / "turned_train", convention="opencv", near=0.8, far=1.8)
    with pytest.warns(UserWarning):  # what is behind the cameras tells nothing about what they see
        refused("give `near` and `far`", lambda: opened(tmp_path / "turned_train", convention="opencv"))
    torch.testing.assert_close(believed.load(0, [0]).cameras.c2w[0, :, 2], -right.cameras.c2w[0, :, 2])


def test_normalized_scenes_have_one_place_and_scale(tmp_path):
    poses = some_c2w(6, radius=1.3)
    for name, scale, shift in (("a", 1.0, 0.0), ("b", 40.0, 700.0)):
        moved = poses.copy()
        moved[:, :3, 3] = scale * poses[:, :3, 3] + [shift, 0.5 * shift, -shift]
        write_capture(tmp_path / "set" / name, c2w=moved)
    dataset = opened(tmp_path / "set", normalize=True)
    for scene in (0, 1):
        cameras = dataset.load(scene, range(6)).cameras
        torch.testing.assert_close(cameras.c2w, torch.from_numpy(poses).float(), rtol=0, atol=1e-4)
    assert str(dataset.placement(1)) == "moved by (-700, -350, 700), then scaled by 0.025"
    assert dataset.scene_config().radius == pytest.approx(1.3)
    plain = opened(tmp_path / "set")
    assert plain.placement(0) is None and float(plain.load(1, [0]).cameras.c2w[0, 0, 3]) > 600


# --- as an inference folder -------------------------------------------------------------------------------------------


def test_an_inference_folder_draws_its_test_cameras(tmp_path):
    folder = write_capture(tmp_path, 3, file="transforms_train.json")
    targets = [frame(f"./test/r_{view}", c2w) for view, c2w in enumerate(some_c2w(12, radius=2.6))]
    write_transforms(folder / "transforms_test.json", targets, fl_x=40, w=64, h=64)
    scene = read_scene(folder, MODEL)
    assert scene.names == ["r_1", "r_2", "r_3"] and scene.target_names == [f"r_{view}" for view in range(12)]
    torch.testing.assert_close(scene.inputs.cameras.c2w[0], torch.from_numpy(some_c2w(3)).float())
    torch.testing.assert_close(scene.target_cameras.c2w[0], torch.from_numpy(some_c2w(12, radius=2.6)).float())
    assert float(scene.inputs.cameras.intrinsics[0, 0, 0, 0]) == pytest.approx(0.5 / math.tan(0.45))
    assert float(scene.target_cameras.intrinsics[0, 5, 0, 0]) == pytest.approx(40 / 64)
    assert scene.placement is None
    nearer = read_scene(folder, dataclasses.replace(MODEL, scene=SceneConfig(radius=0.91)), normalize=True)
    assert nearer.placement.scale == pytest.approx(0.7)
    for before, after in ((scene.inputs.cameras, nearer.inputs.cameras), (scene.target_cameras, nearer.target_cameras)):
        torch.testing.assert_close(after.centers, 0.7 * before.centers, rtol=0, atol=1e-5)
        assert torch.equal(after.near, before.near)


def test_an_inference_folder_of_the_other_axes(tmp_path):
    folder = as_opengl(write_scene(tmp_path / "in", num_views=3))
    (folder / "target_pose").mkdir()
    (folder / "target_pose" / "a.txt").write_text(c2w_text(some_c2w(9)[8] * OPENGL))
    scene = read_scene(folder, MODEL, convention="opengl")
    torch.testing.assert_close(scene.inputs.cameras.c2w[0], torch.from_numpy(some_c2w(3)).float())
    torch.testing.assert_close(scene.target_cameras.c2w[0, 0], torch.from_numpy(some_c2w(9)[8]).float())
