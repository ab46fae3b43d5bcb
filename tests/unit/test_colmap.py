"""COLMAP's models as data: what both layouts give, depth planes, what is refused."""

import dataclasses
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.config import PRESETS, SceneConfig
from genvs.data.image_files import view_names
from genvs.data.scene_input import read_scene
from genvs.data.stored import StoredScenes
from genvs.geometry.distortion import Distortion
from tests.unit.colmap_folder import write_model
from tests.unit.packed_folder import equal_scenes
from tests.unit.srn_folder import opened, refused, some_c2w, zip_of
from tests.unit.test_photos import photo

POINTS = np.random.default_rng(0).uniform(-0.3, 0.3, (40, 3))


def write_capture(
    folder: Path, num_views: int = 6, *, place: str = "sparse/0", images: str = "images", size=(32, 32), **options
) -> Path:
    """Photos of noise, `front 1.png` and so on, with their model."""
    rng, names = np.random.default_rng(1), [f"front {view}.png" for view in range(1, num_views + 1)]
    (folder / images).mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / images / name)
    poses = options.pop("c2w", some_c2w(num_views))
    write_model(folder / place, names, poses, options.pop("points", POINTS), size=size, **options)
    return folder


@pytest.mark.parametrize("binary", [True, False])
def test_cameras_and_images_are_what_was_written(tmp_path, binary):
    dataset = opened(write_capture(tmp_path / "car", binary=binary))
    views = dataset.load(0, range(6))
    assert dataset.scene_names == ["car"] and dataset.view_names(0) == [f"front {view}" for view in range(1, 7)]
    torch.testing.assert_close(views.cameras.c2w, torch.from_numpy(some_c2w(6)).float())
    torch.testing.assert_close(views.cameras.intrinsics[:, 0, 0], torch.full((6,), 32.8125 / 32))
    first = np.asarray(Image.open(tmp_path / "car" / "images" / "front 1.png")).transpose(2, 0, 1)
    assert np.array_equal(views.images[0].numpy(), first)


@pytest.mark.parametrize(
    "change",
    [
        {"place": "sparse"},
        {"place": "colmap/sparse/0"},
        {"place": "."},
        {"images": "images_4"},
        {"images": "Images"},
        {"model": "PINHOLE", "parameters": (32.8125, 32.8125, 16, 16)},
        {"size": (64, 64), "parameters": (65.625, 32, 32)},
    ],
)
def test_places_and_sizes(tmp_path, change):
    views, usual = (
        opened(write_capture(tmp_path / name, **options)).load(0, range(6))
        for name, options in (("a", change), ("b", {}))
    )
    for part in ("c2w", "intrinsics", "near", "far"):
        torch.testing.assert_close(getattr(views.cameras, part), getattr(usual.cameras, part))


def test_several_scenes_and_zips(tmp_path):
    for scene in ("v10", "v2"):
        write_capture(tmp_path / "set" / scene)
    (tmp_path / "set" / "@eaDir").mkdir()
    assert opened(tmp_path / "set").scene_names == ["v2", "v10"]
    zipped = opened(zip_of(tmp_path / "set"))
    assert equal_scenes(zipped, opened(tmp_path / "set"))


@pytest.mark.parametrize(
    ("model", "parameters", "distortion"),
    [
        ("SIMPLE_RADIAL", (30, 16, 16, 0.1), Distortion((0.1, 0, 0, 0))),
        ("RADIAL", (30, 16, 16, 0.1, -0.2), Distortion((0.1, -0.2, 0, 0))),
        ("OPENCV", (30, 31, 16, 16, 0.1, -0.2, 0.3, 0.4), Distortion((0.1, -0.2, 0, 0), (), (0.3, 0.4))),
        ("OPENCV_FISHEYE", (30, 31, 16, 16, 1, 2, 3, 4), Distortion((1, 2, 3, 4), fisheye=True)),
        ("FULL_OPENCV", (30, 31, 16, 16, 1, 2, 3, 4, 5, 6, 7, 8), Distortion((1, 2, 5), (6, 7, 8), (3, 4))),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_lenses_of_camera_models(tmp_path, model, parameters, distortion, binary):
    dataset = StoredScenes.__new__(StoredScenes)
    dataset.modalities = ("rgb",)
    write_capture(tmp_path / "car", model=model, parameters=parameters, binary=binary)
    lens = dataset.list_scenes(tmp_path / "car")[0].frames[0].lens
    assert lens.distortion == distortion
    focal_y = parameters[1] if parameters[1] == 31 else 30
    assert lens.intrinsics((32, 32))[[0, 1, 0], [0, 1, 2]] == pytest.approx([30 / 32, focal_y / 32, 0.5])


def test_each_camera_has_the_depths_of_the_points_that_it_sees(tmp_path):
    """From the 1st to the 99th percentile, with a margin of a tenth; the others' median if a photo sees too few."""
    seen = [range(40), range(20), range(20, 40), [3], range(0, 40, 2), range(10, 30)]
    dataset = opened(write_capture(tmp_path / "car", seen=seen), normalize=True)
    cameras, scale = dataset.load(0, range(6)).cameras, dataset.placement(0).scale
    expected = np.empty((6, 2))
    for view, (rows, c2w) in enumerate(zip(seen, some_c2w(6), strict=True)):
        depth = ((POINTS[list(rows)] - c2w[:3, 3]) @ c2w[:3, :3])[:, 2]
        expected[view] = scale * np.percentile(depth, (1, 99)) * (1 / 1.1, 1.1)
    expected[3] = np.median(np.delete(expected, 3, axis=0), axis=0)
    found = torch.stack([cameras.near, cameras.far], dim=1)
    torch.testing.assert_close(found, torch.from_numpy(expected).float())
    config = dataset.scene_config()
    assert config.own_depths and (config.near, config.far) == pytest.approx(tuple(np.median(expected, axis=0)))
    dataset.make_packs(workers=0)
    torch.testing.assert_close(dataset.load(0, [4, 1]).cameras.near, cameras.near[[4, 1]])
    pack = opened(tmp_path / "car.32px.pack", normalize=True)
    assert pack.scene_config().own_depths and equal_scenes(pack, dataset)


def test_depths_that_are_given_and_depths_of_points_without_tracks(tmp_path):
    folder = write_capture(tmp_path / "car", seen=[[]] * 6)
    cameras = opened(folder).load(0, range(6)).cameras
    assert 0.8 < float(cameras.near.min()) < float(cameras.near.max()) < float(cameras.far.min()) < 1.9
    given = opened(folder, near=0.5, far=2.5)
    assert given.load(0, range(6)).cameras.near.tolist() == [0.5] * 6 and not given.scene_config().own_depths


def test_forward_facing_photos_need_no_planes_where_points_tell_them(tmp_path):
    rig = np.tile(np.eye(4), (6, 1, 1))
    rig[:, 0, 3] = 0.2 * np.arange(6)
    dataset = opened(write_capture(tmp_path / "rig", c2w=rig, points=POINTS + [0.5, 0, 4]))
    assert dataset.scene_config().near == pytest.approx(3.72 / 1.1, abs=0.1)


def test_cameras_that_look_outwards_keep_their_axes(tmp_path):
    """In the middle of a room cameras face away from each other; COLMAP's axes are kept."""
    outwards, walls = some_c2w(6), np.concatenate([c2w[:3, 3] + POINTS[:20] for c2w in 4 * some_c2w(6)])
    outwards[:, :3, :3] = outwards[:, :3, :3] @ np.diag([-1, 1, -1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = opened(write_capture(tmp_path / "room", c2w=outwards, points=walls))
    torch.testing.assert_close(dataset.load(0, [1]).cameras.c2w[0], torch.from_numpy(outwards[1]).float())


def test_of_several_models_the_largest_is_read_and_named(tmp_path):
    folder = write_capture(tmp_path / "car", place="sparse/1")
    assert opened(folder).num_views(0) == 6
    write_model(folder / "sparse" / "0", ["front 1.png", "front 2.png"], some_c2w(2), POINTS)
    with pytest.warns(UserWarning, match="car: has 2 models, of which sparse/1/"):
        assert opened(folder).num_views(0) == 6


def test_empty_lines_around_those_of_photos(tmp_path):
    folder = write_capture(tmp_path / "car", binary=False)
    file = folder / "sparse" / "0" / "images.txt"
    file.write_text(f"\n{file.read_text()}\n\n")
    assert opened(folder).num_views(0) == 6


def test_photos_registered_in_part_and_photos_that_are_missing(tmp_path):
    folder = write_capture(tmp_path / "car")
    (folder / "images" / "extra.png").write_bytes(b"not registered, so not read")
    (folder / "images" / "front 2.png").unlink()
    with pytest.warns(UserWarning, match="1 of 6 images are missing, and are left out: front 2.png"):
        dataset = opened(folder)
    assert dataset.num_views(0) == 5
    torch.testing.assert_close(dataset.load(0, [1]).cameras.c2w[0], torch.from_numpy(some_c2w(6)[2]).float())


@pytest.mark.parametrize("before", ["images/", "/home/me/images/", "C:\\me\\", "../images/"])
def test_photos_named_from_another_folder(tmp_path, before):
    """From the scene's, or on another computer; and two photos that cannot be told apart."""
    folder = write_capture(tmp_path / "car", num_views=2)
    shutil.rmtree(folder / "sparse")
    write_model(folder / "sparse/0", [f"{before}front {view}.png" for view in (1, 2)], some_c2w(2), POINTS)
    assert opened(folder).view_names(0) == ["front 1", "front 2"]
    shutil.rmtree(folder / "sparse")
    write_model(folder / "sparse/0", ["left/front 1.png", "right/front 1.png"], some_c2w(2), POINTS)
    assert "'left/front 1.png' and 'right/front 1.png' are the same" in refused("front 1.png", lambda: opened(folder))


def test_what_is_listed_twice_is_refused(tmp_path):
    """As in models that a script has joined; a camera may be there again."""
    folder = write_capture(tmp_path / "again", binary=False)
    file = folder / "sparse" / "0" / "cameras.txt"
    file.write_text(2 * file.read_text())
    assert opened(folder).num_views(0) == 6
    file.write_text(file.read_text() + file.read_text().replace("32.8125", "33"))
    assert "camera 3 is listed twice" in refused("cameras.txt", lambda: opened(folder))
    folder = write_capture(tmp_path / "car")
    write_model(folder / "sparse" / "0", ["front 1.png", "front 2.png", "front 1.png"], some_c2w(3), POINTS)
    assert "'front 1.png' is listed twice" in refused("car", lambda: opened(folder))


def test_photos_outside_of_the_folder_are_not_read(tmp_path):
    folder = write_capture(tmp_path / "car", num_views=2)
    shutil.copy(folder / "images" / "front 1.png", tmp_path / "secret.png")
    shutil.rmtree(folder / "sparse")
    write_model(folder / "sparse" / "0", ["front 1.png", "../../secret.png"], some_c2w(2), POINTS)
    with pytest.warns(UserWarning, match=r"1 of 2 images .* \.\./\.\./secret.png"):
        assert opened(folder).num_views(0) == 1


def test_photos_in_subfolders(tmp_path):
    folder = write_capture(tmp_path / "car", num_views=2)
    shutil.rmtree(folder / "sparse")
    for camera in ("left", "right"):
        (folder / "images" / camera).mkdir()
        shutil.copy(folder / "images" / "front 1.png", folder / "images" / camera / "0.png")
    write_model(folder / "sparse" / "0", ["left/0.png", "right/0.png"], some_c2w(2), POINTS)
    assert opened(folder).view_names(0) == ["left_0.png", "right_0.png"]


def test_names_of_views_differ():
    assert view_names(["b/c.png", "a/c.png"]) == ["b_c.png", "a_c.png"]
    names = view_names(["a/b.png", "a_b.png", "b.png"])
    assert len(set(names)) == 3 and not any("/" in name for name in names)


@pytest.mark.parametrize("binary", [True, False])
def test_names_of_photos_in_another_encoding(tmp_path, binary):
    """The bytes are those of the files' names, whatever letters these are."""
    name = os.fsdecode("grün.png".encode("latin-1"))
    folder = write_capture(tmp_path / "car", num_views=2, binary=binary)
    for file in (folder / "sparse" / "0").glob("images.*"):
        file.write_bytes(file.read_bytes().replace(b"front 1.png", os.fsencode(name)))
    (folder / "images" / "front 1.png").rename(folder / "images" / name)
    assert opened(folder).num_views(0) == 2


def test_inference_draws_from_a_model_with_its_depths_or_the_networks(tmp_path):
    folder, trained = write_capture(tmp_path / "car"), PRESETS["cpu-demo"]
    usual = read_scene(folder, trained)
    assert len(usual.names) == 3 and len(usual.target_names) == 3
    assert usual.inputs.cameras.near.tolist() == [[pytest.approx(0.8)] * 3]
    own = read_scene(folder, dataclasses.replace(trained, scene=SceneConfig(own_depths=True)))
    assert len(own.inputs.cameras.near.unique()) == 3


@pytest.mark.parametrize(("orientation", "size"), [(3, (48, 32)), (2, (48, 32)), (6, (48, 32)), (6, (32, 32))])
def test_photos_are_left_as_colmap_has_read_them_whatever_their_orientation(tmp_path, orientation, size):
    """A phone that is held upside down writes 3."""
    folder = write_capture(tmp_path / "car", size=size, parameters=(50, 24, 16))
    for file in (folder / "images").iterdir():
        file.write_bytes(photo(orientation, size))
    row = opened(folder).load(0, [0]).images[0, 0, 16]
    assert row[0] < 60 < 200 < row[-1]


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "too many": lambda path: path.write_bytes(b"\xff" * 7 + path.read_bytes()[7:]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_damaged_models_are_refused_by_name(tmp_path, file, damage):
    folder = write_capture(tmp_path / "car")
    DAMAGE[damage](folder / "sparse" / "0" / f"{file}.bin")
    if (file, damage) == ("images", "missing"):
        line = refused("car", lambda: opened(folder))
    elif (file, damage) == ("points3D", "missing"):
        with pytest.warns(UserWarning, match="car/sparse/0: has no points3D.*; add it, or"):
            assert not opened(folder).scene_config().own_depths
    else:
        line = refused(f"sparse/0/{file}.bin", lambda: opened(folder))
        assert "is missing" in line or "is damaged" in line


NO_MODEL = {
    "a word": ("not a model\n",) * 3,
    "a number too few or too large": ("3 PINHOLE 32 32 30 16 16", "1 1 0 0 0 0 0 3 a.png", f"{10**20} 0 0 0 1 2 3 0.5"),
}


@pytest.mark.parametrize("kind", NO_MODEL)
@pytest.mark.parametrize(("file", "reason"), [("cameras", "damaged|fx fy cx cy"), ("images", ""), ("points3D", "")])
def test_text_that_is_no_model(tmp_path, file, reason, kind):
    folder = write_capture(tmp_path / "car", binary=False)
    line = dict(zip(("cameras", "images", "points3D"), NO_MODEL[kind], strict=True))[file]
    (folder / "sparse" / "0" / f"{file}.txt").write_text(line)
    assert re.search(reason or "is damaged", refused(f"sparse/0/{file}.txt", lambda: opened(folder)))


def test_camera_models_that_cannot_be_read(tmp_path):
    folder = write_capture(tmp_path / "car", model="FOV", parameters=(30, 30, 16, 16, 0.9))
    assert "model FOV is not supported; undistort" in refused("cameras.bin: camera 3", lambda: opened(folder))
    other = write_capture(tmp_path / "other")
    shutil.rmtree(other / "images")
    assert "no images/" in refused("other", lambda: opened(other))
