"""SRN scenes: what is read, that it is read right, and that a sample is a function of its request."""

import json
import math
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch.utils.data import DataLoader

from genvs.data.camera_checks import depth_range, nearest_point_to_axes, normalizing
from genvs.data.images import read_image, to_square
from genvs.data.scenes import SampleRequest, Splits, choose_views
from genvs.data.srn import read_lens, read_pose
from genvs.data.storage import Storage, natural_key
from genvs.data.stored import StoredScenes
from genvs.data.types import ViewBatch, Views
from genvs.geometry import Cameras, project, unproject
from genvs.geometry.trajectories import spherical_c2w
from genvs.random import Stream, numpy_generator
from tests.unit.packed_folder import same_batch
from tests.unit.srn_folder import c2w_text, refused, some_c2w, write_scene, write_split, zip_of
from tests.unit.transforms_folder import write_capture

# --- views ------------------------------------------------------------------------------------------------------------


def test_mirrored_cameras_see_the_mirrored_world_mirrored():
    generator = torch.Generator().manual_seed(1)
    intrinsics = torch.tensor([[1.1, 0.02, 0.45], [0.0, 1.3, 0.6], [0.0, 0.0, 1.0]], dtype=torch.float64)
    depths = torch.full((4,), 0.8, dtype=torch.float64)
    cameras = Cameras(torch.from_numpy(some_c2w(4)), intrinsics.expand(4, 3, 3), depths, depths + 1)
    views = Views(torch.randint(0, 256, (4, 3, 8, 8), generator=generator, dtype=torch.uint8), cameras)
    mirrored = views.mirrored()
    uv = torch.rand(4, 50, 2, dtype=torch.float64, generator=generator)
    depth = torch.linspace(0.8, 1.8, 50, dtype=torch.float64).expand(4, 50)
    points = unproject(uv, depth, views.cameras)
    uv_mirrored, depth_mirrored = project(points * points.new_tensor([-1, 1, 1]), mirrored.cameras)
    expected = torch.stack([1 - uv[..., 0], uv[..., 1]], dim=-1)
    torch.testing.assert_close(uv_mirrored, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(depth_mirrored, depth, rtol=0, atol=1e-12)
    assert torch.equal(mirrored.images, views.images.flip(-1))
    torch.testing.assert_close(torch.linalg.det(mirrored.cameras.c2w), torch.ones(4, dtype=torch.float64))


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_a_scene_is_read_as_it_was_written(tmp_path):
    split = write_split(tmp_path / "cars_train")
    dataset = StoredScenes(split, resolution=32)
    assert len(dataset) == 3 and dataset.num_views(1) == 6
    views = dataset.load(1, [4, 0])
    for place, view in enumerate([5, 1]):
        expected = np.asarray(Image.open(split / "car2" / "rgb" / f"{view}.png")).transpose(2, 0, 1)
        assert np.array_equal(views.images[place].numpy(), expected)
        torch.testing.assert_close(views.cameras.c2w[place], torch.from_numpy(some_c2w(6)[view - 1]).float())
    assert views.images.dtype == torch.uint8 and views.cameras.c2w.dtype == torch.float32
    focal = 32.8125 / 32
    intrinsics = torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    assert torch.equal(views.cameras.intrinsics, intrinsics.expand(2, 3, 3))
    config = dataset.scene_config()
    assert (config.near, config.far, config.focal) == (0.8, 1.8, focal) and abs(config.radius - 1.3) < 1e-9


def test_a_sample_holds_what_was_asked_for(tmp_path):
    dataset = StoredScenes(write_split(tmp_path / "cars_train"), resolution=32, seed=5)
    batch = dataset[[SampleRequest(scene, 10 + scene, 3, 2) for scene in (2, 0)]]
    assert batch.inputs.shape == (2, 3) and batch.targets.shape == (2, 2)
    assert batch.sample_index.tolist() == [12, 10] and batch.sample_index.dtype == torch.int64
    for index, scene in enumerate((2, 0)):
        inputs, targets = choose_views(6, 3, 2, numpy_generator(Stream.VIEWS, 5, 10 + scene))
        assert torch.equal(batch.inputs.images[index], dataset.load(scene, inputs).images)
        assert torch.equal(batch.targets.cameras.c2w[index], dataset.load(scene, targets).cameras.c2w)


def test_a_sample_depends_on_its_request_alone(tmp_path):
    split = write_split(tmp_path / "cars_train")
    requests = [SampleRequest(index % 3, index, 1 + index % 3, 1) for index in range(24)]

    def samples(workers: int, order, **options) -> dict[int, ViewBatch]:
        dataset = StoredScenes(split, resolution=32, xflip=True, **options)
        loader = DataLoader(dataset, batch_size=None, sampler=[[r] for r in order], num_workers=workers)
        return {int(batch.sample_index): batch for batch in loader}

    expected, changed = samples(0, requests), samples(0, requests, seed=1)
    for found in (samples(2, requests), samples(0, requests[::-1]), samples(1, requests[13:])):
        assert all(same_batch(batch, expected[index]) for index, batch in found.items())
    assert not any(same_batch(batch, changed[index]) for index, batch in expected.items())


def test_xflip_mirrors_about_half_of_the_samples_whole(tmp_path):
    split = write_split(tmp_path / "cars_train", num_scenes=1)
    plain, flipped = (StoredScenes(split, resolution=32, xflip=xflip) for xflip in (False, True))
    count = 0
    for index in range(60):
        request = SampleRequest(0, index, 2, 1)
        item, other = plain[[request]], flipped[[request]]
        if not same_batch(item, other):
            mirrored = ViewBatch(item.inputs.mirrored(), item.targets.mirrored(), item.sample_index)
            assert same_batch(mirrored, other)
            count += 1
    assert 15 < count < 45


def test_views_and_scenes_come_in_natural_order_and_stay_paired(tmp_path):
    split = write_split(tmp_path / "cars_train", num_scenes=11, num_views=11)
    for kind, suffix in (("rgb", "png"), ("pose", "txt")):
        for view in range(1, 12):
            (split / "car1" / kind / f"{view}.{suffix}").rename(split / "car1" / kind / f"v{view}.{suffix}")
    for clutter in (".DS_Store", "._1.png", "Thumbs.db"):
        (split / "car1" / "rgb" / clutter).touch()
    dataset = StoredScenes(split, resolution=32)
    assert dataset.scene_names == [f"car{number}" for number in range(1, 12)]
    views = dataset.load(0, range(11))
    assert [int(red) // 10 for red in views.images[:, 0].amin(dim=(1, 2))] == list(range(1, 12))
    torch.testing.assert_close(views.cameras.c2w, torch.from_numpy(some_c2w(11)).float())
    assert sorted(["a10b2", "a9", "a10b10", "b", "A1"], key=natural_key) == ["A1", "a9", "a10b2", "a10b10", "b"]


def test_a_zip_equals_its_folder(tmp_path):
    split = write_split(tmp_path / "srn_cars" / "cars_train")
    write_split(tmp_path / "srn_cars" / "cars_test", num_scenes=2, seed=1)
    shutil.make_archive(str(tmp_path / "flat"), "zip", tmp_path / "srn_cars")
    for archive in (zip_of(tmp_path / "srn_cars"), tmp_path / "flat.zip"):
        splits = StoredScenes.find_splits(archive)
        assert splits.train.name == "cars_train" and splits.val is None and splits.test.name == "cars_test"
        folder, unpacked = StoredScenes(splits.train, resolution=32), StoredScenes(split, resolution=32)
        assert folder.scene_names == unpacked.scene_names and folder.scene_config() == unpacked.scene_config()
        requests = [SampleRequest(index % 3, index, 2, 1) for index in range(6)]
        loader = DataLoader(folder, batch_size=None, sampler=[requests[:3], requests[3:]], num_workers=2)
        expected = [unpacked[requests[:3]], unpacked[requests[3:]]]
        assert all(same_batch(a, b) for a, b in zip(loader, expected, strict=True))
        assert same_batch(pickle.loads(pickle.dumps(folder))[requests], unpacked[requests])
        assert len(StoredScenes(splits.test, resolution=32)) == 2


def test_splits_are_found_from_every_way_to_name_them(tmp_path):
    root = tmp_path / "data"
    for seed, split in enumerate(("train", "val", "test")):
        write_split(root / f"cars_{split}", num_scenes=2, seed=seed)
    expected = Splits(root / "cars_train", root / "cars_val", root / "cars_test")
    for path in (root / "cars", root, str(root / "cars_train"), tmp_path):
        assert StoredScenes.find_splits(path) == expected
    assert StoredScenes.find_splits(root / "cars_test") == Splits(root / "cars_test")
    archive = zip_of(root)
    assert StoredScenes.find_splits(archive / "data" / "cars").val == archive / "data" / "cars_val"
    single = zip_of(root / "cars_val")
    assert StoredScenes.find_splits(single).train == single / "cars_val"
    train = write_split(root / "chairs_train" / "chairs_2.0_train", num_scenes=1)  # as SRN's chairs are packed
    assert StoredScenes.find_splits(root / "chairs") == Splits(train)


@pytest.mark.parametrize("num_inputs", [1, 3])
def test_views_are_chosen_alike_and_none_twice(num_inputs):
    counts, rngs = np.zeros(5), [np.random.default_rng((7, index)) for index in range(2000)]
    for index, rng in enumerate(rngs):
        inputs, targets = choose_views(5, num_inputs, 1, rng)
        assert len({*inputs, *targets}) == num_inputs + 1
        assert inputs[0] == choose_views(5, 1, 1, np.random.default_rng((7, index)))[0][0], "more extend the choice"
        counts[targets] += 1
    assert np.abs(counts / 400 - 1).max() < 0.2


# --- images -----------------------------------------------------------------------------------------------------------


def test_compositing_comes_before_resizing(tmp_path):
    rgba = np.zeros((64, 64, 4), dtype=np.uint8)  # transparent black, with every other column opaque red
    rgba[:, ::2] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "1.png")
    image = to_square(read_image((tmp_path / "1.png").read_bytes(), "1.png"), 32)
    assert (image[0] == 255).all() and (abs(image[1:].astype(int) - 127.5) <= 0.5).all()


def test_images_that_have_to_be_enlarged_are_warned_of(tmp_path, recwarn):
    path = write_capture(tmp_path / "car", size=32) / "transforms.json"
    assert StoredScenes(path, resolution=32).enlarged_from is None and not recwarn
    with pytest.warns(UserWarning, match="view .*1: .*32x32"):
        assert StoredScenes(path, resolution=48).enlarged_from == (32, 32)


@pytest.mark.filterwarnings("ignore:.*enlarged")
def test_a_non_square_image_with_an_off_centre_principal_point_keeps_its_geometry(tmp_path):
    """A bright spot, drawn where a world point projects in pixels, is found there after resizing."""
    width, height, fx, cx, cy = 192, 96, 150.0, 110.0, 40.0
    intrinsics_px = np.array([[fx, 0, cx], [0, fx, cy], [0, 0, 1]])
    point = np.array([0.1, 0.05, 1.0])
    u, v, _ = intrinsics_px @ point  # the centre of pixel i is at i + 0.5
    y, x = np.mgrid[:height, :width] + 0.5
    spot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 6.0**2))
    rgb = spot.round().astype(np.uint8)[..., None].repeat(3, axis=2)
    scene = write_scene(tmp_path / "cars_train" / "car", num_views=1)
    (scene / "intrinsics.txt").write_text(f"{fx} 0 {cx}\n0 {fx} {cy}\n0 0 1\n")
    Image.fromarray(rgb).save(scene / "rgb" / "1.png")
    for resolution in (48, 40, 128):
        views = StoredScenes(scene.parent, resolution=resolution).load(0, 0)
        expected = (views.cameras.intrinsics.numpy() @ point)[:2]
        weight = views.images[0].numpy().astype(float)
        centers = (np.arange(resolution) + 0.5) / resolution
        found = [(weight.sum(axis=0) * centers).sum(), (weight.sum(axis=1) * centers).sum()] / weight.sum()
        assert np.abs(found - expected).max() < 0.08 / resolution  # of a pixel
        assert np.allclose(expected, [u / width, v / height])


# --- poses, intrinsics, depths ----------------------------------------------------------------------------------------


def test_poses_parse_in_every_accepted_form():
    c2w = some_c2w(1)[0]
    expected = np.array(c2w)
    one_line = c2w_text(c2w)
    numbers = one_line.split()
    four_lines = "\r\n".join(" ".join(numbers[4 * row : 4 * row + 4]) for row in range(4)) + "\r\n\r\n"
    for text in (one_line, four_lines, "\ufeff" + one_line, " ".join(numbers[:12])):
        assert np.array_equal(read_pose(text.encode(), "1.txt"), expected)
    numbers[12] = "1e-310"
    assert read_pose(" ".join(numbers).encode(), "1.txt")[3, 0] == 1e-310


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("131.25 64. 64. 0.\n0. 0. 0.\n1.\n128 128\n\n", [131.25 / 128, 131.25 / 128, 0.5, 0.5]),
        ("\ufeff100 60 30 0.\n0. 0. 0.\n1.\n64. 128.\n", [100 / 128, 100 / 64, 60 / 128, 30 / 64]),
        ("100 0 60\n0 110 30\n0 0 1\n", [100 / 64, 110 / 96, 60 / 64, 30 / 96]),
        ("100 60 30\n0. 0. 0.\n0.5\n1.\n64 128\n0\n", [100 / 128, 100 / 64, 60 / 128, 30 / 64]),  # DeepVoxels'
    ],
)
def test_intrinsics_parse_in_every_accepted_form(text, expected):
    intrinsics = read_lens(text.encode(), "1.txt").intrinsics((64, 96))
    assert intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == expected


def test_intrinsics_of_each_view_are_used(tmp_path):
    scene = write_scene(tmp_path / "cars_train" / "car1", num_views=2)
    (scene / "intrinsics").mkdir()
    (scene / "intrinsics" / "1.txt").write_text("16 0 15\n0 24 17\n0 0 1\n")
    (scene / "intrinsics" / "2.txt").write_text("40 16 16 0.\n0. 0. 0.\n1.\n32 32\n")
    (scene / "intrinsics.txt").unlink()
    intrinsics = StoredScenes(scene.parent, resolution=32).load(0, [0, 1]).cameras.intrinsics
    expected = [[[0.5, 0, 15 / 32], [0, 0.75, 17 / 32], [0, 0, 1]], [[1.25, 0, 0.5], [0, 1.25, 0.5], [0, 0, 1]]]
    assert torch.equal(intrinsics, torch.tensor(expected))


def test_near_and_far_come_from_the_nearest_source(tmp_path):
    def depths(name: str, **options) -> tuple[float, float]:
        config = StoredScenes(tmp_path / name, resolution=32, **options).scene_config()
        return config.near, config.far

    write_split(tmp_path / "cars_train")
    write_split(tmp_path / "chairs_train", radius=2.0)
    derived = write_split(tmp_path / "things_train", radius=4.0)
    assert depths("cars_train") == (0.8, 1.8) and depths("chairs_train") == (1.25, 2.75)
    assert depths("cars_train", near=0.5) == (0.5, 1.8) and depths("cars_train", near=0.1, far=9.0) == (0.1, 9.0)
    size = 4 * np.sin(np.arctan(16 / 32.8125))
    assert np.allclose(depths("things_train"), (4 - size, 4 + size))
    (derived / "dataset.json").write_text(json.dumps({"near": 3.0, "far": 5.0}))
    assert depths("things_train") == (3.0, 5.0) and depths("things_train", far=6.0) == (3.0, 6.0)


@pytest.mark.parametrize(("arc", "noise", "meet"), [(60, 5, True), (180, 10, True), (20, 5, False), (5, 2, False)])
def test_a_point_that_noise_brings_nearer_is_not_taken(arc, noise, meet):
    """Cameras held by hand along an arc around the origin, whose directions are off by `noise` degrees."""
    rng = np.random.default_rng(0)
    c2w = spherical_c2w(torch.linspace(0, math.radians(arc), 50).double(), torch.zeros(50).double(), 2.0).numpy()
    off = Rotation.from_rotvec(rng.normal(0, math.radians(noise), (50, 3)) * [1, 1, 0]).as_matrix()
    c2w[:, :3, :3] = c2w[:, :3, :3] @ off
    point = nearest_point_to_axes(c2w)
    assert (point is not None and np.linalg.norm(point) < 0.2 * 2) if meet else point is None


def test_a_camera_far_from_the_others_is_named(tmp_path):
    scene = write_scene(tmp_path / "cars_train" / "car1", num_views=6)
    (scene / "pose" / "4.txt").write_text(c2w_text(some_c2w(6, radius=40)[3]))
    with pytest.warns(UserWarning, match="camera 3 .from 0 up. is 40 from the point .* most are 1.3 away"):
        StoredScenes(scene.parent, resolution=32)


def test_a_camera_without_which_the_others_look_at_one_point_is_named():
    c2w, intrinsics = some_c2w(20), np.array([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]])
    c2w[3, 0, 3] = 30
    for act in (lambda: depth_range(c2w, intrinsics, "car1"), lambda: normalizing(c2w, 1.3, "car1")):
        assert re.search("camera 3 .*; remove its view", refused("car1", act))


def test_depths_are_derived_around_the_point_that_the_cameras_look_at():
    c2w, intrinsics = some_c2w(8, radius=2.0), np.array([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]])
    moved = c2w.copy()
    moved[:, :3, 3] += [5, -3, 1]
    assert np.allclose(nearest_point_to_axes(moved), [5, -3, 1])
    assert np.allclose(depth_range(moved, intrinsics, ""), depth_range(c2w, intrinsics, ""))
    assert np.allclose(nearest_point_to_axes(c2w[:1]), 0)


def test_a_folder_of_many_scenes_is_listed_as_often_as_one_of_few(tmp_path, monkeypatch):
    """Opening would take minutes with thousands of scenes, if it were listed for each of them."""
    listings, names = [], Storage.names

    def counted_names(storage: Storage, folder: str = "") -> list[str]:
        listings.append(storage.root / folder)
        return names(storage, folder)

    monkeypatch.setattr(Storage, "names", counted_names)
    times = []
    for scenes in (2, 12):
        split = write_split(tmp_path / f"{scenes}_cars_train", scenes, 2)
        listings.clear()
        StoredScenes(StoredScenes.find_splits(split).train, resolution=32)
        times.append(listings.count(split))
    assert times[0] == times[1]
