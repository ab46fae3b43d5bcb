"""Scenes as other programs and other people leave them: each is read as it is meant, or its fault is said."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from genvs.data.stored import StoredScenes
from tests.unit.packed_folder import equal_scenes
from tests.unit.srn_folder import opened, refused, some_c2w, write_scene, write_split
from tests.unit.transforms_folder import OPENGL, frame, write_capture, write_transforms


def warnings_of(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(path)
    return [str(warning.message) for warning in caught]


# --- where scenes are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_scene, write_capture])
def test_a_scene_whose_name_ends_like_a_splits(tmp_path, write):
    """Such as a toy train: the folder's other scenes are not left out for it."""
    for seed, name in enumerate(("boat", "toy_train", "truck")):
        write(tmp_path / "toys" / name, 5, seed=seed)
    assert opened(tmp_path / "toys").scene_names == ["boat", "toy_train", "truck"]
    shutil.rmtree(tmp_path / "toys" / "boat")
    (tmp_path / "toys" / "truck").rename(tmp_path / "toys" / "toy_val")
    splits = StoredScenes.find_splits(tmp_path / "toys")  # one scene in each split
    assert "toy_train" in splits.train.parts and "toy_val" in splits.val.parts


def test_folders_without_cameras_among_scenes_are_named(tmp_path):
    for name in ("a", "b", "c"):
        write_capture(tmp_path / name)
    (tmp_path / "b" / "transforms.json").rename(tmp_path / "b" / "transform.json")
    with pytest.warns(UserWarning, match=f"^{tmp_path}: 1 folder without transforms.json left out: b; add "):
        assert opened(tmp_path).scene_names == ["a", "c"]
    split = write_split(tmp_path / "cars_train", 2)
    (split / "images").mkdir()
    with pytest.warns(UserWarning, match=f"^{split}: 1 folder without cameras left out: images; add "):
        assert opened(split).scene_names == ["car1", "car2"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("poses_bounds.npy", "add the sparse/0/"),
        ("transforms_a.json", "or that file"),
        ("a.zip", ", but a.zip, images/;"),
        ("photo.jpg", "photos' cameras"),
    ],
)
def test_what_is_there_instead_of_scenes(tmp_path, file, said):
    """Below the folder that was given, where the images are not meant to be it."""
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / file).write_bytes(b"")
    assert said in refused(f"{tmp_path}/a: holds no scenes, but", lambda: opened(tmp_path / "a"))


@pytest.mark.parametrize("write", [write_scene, write_capture])
def test_scenes_in_folders_of_categories(tmp_path, write):
    for folder in ("bike/1", "car/1"):
        write(tmp_path / "all" / folder, 2)
    assert "name bike/, which holds some" in refused("all: holds no scenes", lambda: opened(tmp_path / "all"))


def test_images_of_a_split_beside_a_model(tmp_path):
    """They are no split by themselves."""
    folder = write_scene(tmp_path / "car", 5)
    (folder / "images_train").mkdir()
    assert opened(folder).num_views(0) == 5


@pytest.mark.parametrize("written", ["a\\images\\1.png", "./a/images/1.png"])
def test_zips_of_other_programs(tmp_path, written):
    """Windows' own separate folders by backslashes, others start each name with `./`."""
    folder = write_capture(tmp_path / "a", 4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in filter(Path.is_file, folder.rglob("*")):
            name = f"a/{path.relative_to(folder)}"
            archive.write(path, name.replace("/", "\\") if "\\" in written else f"./{name}")
    assert equal_scenes(opened(tmp_path / "a.zip"), opened(folder))


class MemberOfMacOS(zipfile.ZipInfo):
    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return unicodedata.normalize("NFD", self.filename).encode(), 0


def test_zips_do_not_always_say_that_names_are_in_utf8(tmp_path):
    folder = write_capture(tmp_path / "a", 2)
    (folder / "images" / "r_2.png").rename(folder / "images" / "é.png")
    (folder / "transforms.json").write_text((folder / "transforms.json").read_text().replace("r_2", "é"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in filter(Path.is_file, folder.rglob("*")):
            archive.writestr(MemberOfMacOS(str(path.relative_to(tmp_path))), path.read_bytes())
    assert equal_scenes(opened(tmp_path / "a.zip"), opened(folder))


@pytest.mark.parametrize("written", ["IMAGES\\{}.PNG", "images/{}.png", "./Images/{}"])
def test_folders_whose_names_are_written_in_another_case(tmp_path, written):
    """As Windows and macOS do not mind."""
    write_capture(tmp_path, 3)
    frames = [frame(written.format(f"r_{view}"), c2w) for view, c2w in enumerate(some_c2w(3), start=1)]
    write_transforms(tmp_path / "transforms.json", frames, camera_angle_x=0.9)
    (tmp_path / "images").rename(tmp_path / ("IMAGES" if "images" in written else "images"))
    assert opened(tmp_path).num_views(0) == 3


ELSEWHERE = ["/home/me/scene/", "C:\\me\\", "//", "HERE/", "./data/a/", "../a/", "images/../", "images//./"]


@pytest.mark.parametrize("before", ELSEWHERE)
def test_paths_on_the_computer_that_wrote_them(tmp_path, before):
    """Windows', others', those of Blender's file, of this computer, and of other folders; the first is missing."""
    folder = write_capture(tmp_path / "a", 4)
    frames = [frame(f"{before}images/r_{view}.png", c2w) for view, c2w in enumerate(some_c2w(4), start=1)]
    frames[0]["file_path"] = frames[0]["file_path"].replace("r_1", "r_0")
    path = write_transforms(folder / "transforms.json", frames, camera_angle_x=0.9)
    path.write_text(path.read_text().replace("HERE", str(folder)))
    with pytest.warns(UserWarning, match="1 of 4 images are missing"):
        assert opened(folder).view_names(0) == ["r_2", "r_3", "r_4"]
    shutil.move(folder / "images", tmp_path / "images")
    assert "none of its 4 images exists" in refused("a/transforms.json", lambda: opened(folder))


# --- what they state --------------------------------------------------------------------------------------------------


def test_text_that_is_not_json_is_shown_its_place(tmp_path):
    path = write_capture(tmp_path) / "transforms.json"
    path.write_text(path.read_text()[:-2] + ",]}")  # as people edit it
    assert re.search(r"not JSON \(.* line 1 column \d+", refused("transforms.json", lambda: opened(tmp_path)))


@pytest.mark.parametrize("stated", [{"w": 64}, {"h": 64}, {"w": 64, "h": 64}])
def test_one_side_of_the_size_tells_the_other(tmp_path, stated):
    """The photos of 32 x 32 pixels are smaller than those that the focal length is for."""
    write_capture(tmp_path, 2)
    poses = some_c2w(2)
    frames = [frame(f"images/r_{view}", c2w) for view, c2w in enumerate(poses, start=1)]
    write_transforms(tmp_path / "transforms.json", frames, fl_x=80, cx=30, **stated)
    intrinsics = opened(tmp_path).load(0, 0).cameras.intrinsics
    torch.testing.assert_close(intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]], torch.tensor([1.25, 1.25, 30 / 64, 0.5]))


@pytest.mark.parametrize(("center", "warned"), [((32, 32), True), ((8, 7), True), ((28, 12), False), ((17, 15), False)])
def test_intrinsics_that_are_for_another_size_are_warned_of(tmp_path, center, warned):
    scene = write_scene(tmp_path, 3)
    (scene / "intrinsics.txt").write_text(f"60 0 {center[0]}\n0 60 {center[1]}\n0 0 1\n")
    assert any("view 1: the principal point is at" in line for line in warnings_of(tmp_path)) == warned


@pytest.mark.parametrize("rows", ["60 0 15 0\n0 50 17 0\n0 0 1 0\n", "60 0 15 0\n0 50 17 0\n0 0 1 0\n0 0 0 1\n"])
def test_intrinsics_in_a_larger_matrix(tmp_path, rows):
    scene = write_scene(tmp_path, 3)
    (scene / "intrinsics.txt").write_text(rows)
    found = opened(tmp_path).load(0, 0).cameras.intrinsics
    torch.testing.assert_close(found[[0, 1, 0, 1], [0, 1, 2, 2]] * 32, torch.tensor([60.0, 50, 15, 17]))


@pytest.mark.parametrize("axes", [np.ones(4), OPENGL])
def test_world_to_camera_matrices_are_known_in_either_convention(tmp_path, axes):
    frames = [frame(f"images/r_{view}", np.linalg.inv(c2w * axes) * OPENGL) for view, c2w in enumerate(some_c2w(6), 1)]
    write_capture(tmp_path, 6)
    write_transforms(tmp_path / "transforms.json", frames, camera_angle_x=0.9)
    with pytest.warns(UserWarning, match="world-to-camera"):
        opened(tmp_path, near=1, far=2)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_masks_that_match_no_image_are_missed(tmp_path):
    """Whether frames state them, or their folder holds other names."""
    folder = write_capture(tmp_path / "a", 3)
    assert not warnings_of(folder)
    record = json.loads((folder / "transforms.json").read_text())
    for entry in record["frames"]:
        entry["mask_path"] = f"{entry['file_path']}_mask.png"
    (folder / "transforms.json").write_text(json.dumps(record))
    scene = write_split(tmp_path / "b_train", 1) / "car1"
    (scene / "masks").mkdir()
    for path, count in ((folder, 3), (scene, 6)):
        assert [f"{count} of {count} images have no mask" in line for line in warnings_of(path)] == [True]
