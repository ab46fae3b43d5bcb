"""Packs as datasets of their own: the same as the files they were made from, in any number, at any size."""

import dataclasses
import pickle
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.many_scenes import write_packs
from benchmarks.model import training_config
from genvs.data import pack_scenes
from genvs.data.packed import HEADER_BYTES
from genvs.data.scenes import SampleRequest, Splits
from genvs.data.stored import PackedScenes, StoredScenes
from genvs.modalities import MODALITIES
from tests.small_training import small_run
from tests.unit.packed_folder import equal_scenes, opened, pack_of, packed_scenes, same_batch, write_uneven_split
from tests.unit.srn_folder import add_sensors, flip_bit, refused, write_split
from training.data import at_resolution, load_batches, open_data, pack_data

REQUESTS = [SampleRequest(index % 6, index, 2, 1) for index in range(12)]


@pytest.fixture
def pack(tmp_path) -> Path:
    """Of three scenes of 6, 5 and 6 views, which are gone."""
    split = write_uneven_split(tmp_path / "cars_train")
    packed_scenes(split)
    shutil.move(split, tmp_path / "away")
    return pack_of(split)


def shared_out(folder: Path) -> list[Path]:
    """The pack of three scenes, and one of three others on another disk."""
    other = write_split(folder / "disk2" / "cars2_train", seed=5)
    packed_scenes(other)
    return [folder / "cars_train.32px.pack", pack_of(other)]


def same_cameras(first: StoredScenes, second: StoredScenes) -> bool:
    """Up to the rounding of poses, which packs keep in float32."""
    known = [dataclasses.astuple(dataset.scene_config()) for dataset in (first, second)]
    return known[0][:2] + known[0][4:] == known[1][:2] + known[1][4:] and np.allclose(known[0][2:4], known[1][2:4])


def test_a_pack_is_the_same_as_its_files(pack, tmp_path):
    files, alone = opened(tmp_path / "away", near=0.8, far=1.8), opened(pack)
    assert isinstance(alone, PackedScenes) and equal_scenes(alone, files)
    assert alone.scene_names == files.scene_names and alone.view_names(1) == files.view_names(1)
    assert same_cameras(alone, files)
    requests = [request._replace(scene=request.scene % 3) for request in REQUESTS]
    assert same_batch(pickle.loads(pickle.dumps(alone))[requests], files[requests])
    refused("car2: has no view", lambda: alone.load(1, [5]))


def test_several_packs_are_one_dataset(pack, tmp_path):
    files = shared_out(tmp_path)
    several = opened(pack_scenes.joined(files))
    assert len(several) == 6 and [several.num_views(scene) for scene in range(6)] == [6, 5, 6, 6, 6, 6]
    scenes, views = np.array([[5, 0], [1, 3]]), np.array([[2, 4], [0, 1]])
    images = several.load(scenes, views).images
    for place in np.ndindex(2, 2):
        part, scene = opened(files[scenes[place] // 3]), scenes[place] % 3
        assert (images[place] == part.load(scene, [views[place]]).images[0]).all()
    shutil.move(files[1], pack.with_name("cars2_train.32px.pack"))
    shutil.rmtree(tmp_path / "away")
    shutil.rmtree(tmp_path / "disk2")
    assert len(opened(StoredScenes.find_splits(tmp_path).train)) == 6, "a folder of packs"


def test_which_packs_are_held_out(tmp_path):
    a, b, val = (tmp_path / f"{name}.32px.pack" for name in ("a_train", "b_train", "a_val"))
    for path in (a, b, val):
        path.touch()
    assert StoredScenes.find_splits(a) == Splits(a, val)
    assert StoredScenes.find_splits(f"{a},{b}") == StoredScenes.find_splits(tmp_path) == Splits(Path(f"{a},{b}"), val)
    assert StoredScenes.find_splits(val) == Splits(val)
    (tmp_path / "a_train").mkdir()
    refused("a_train", lambda: StoredScenes.find_splits(tmp_path))


def test_classes_are_beside_the_first_pack(pack, tmp_path):
    pack.with_name("labels.json").write_text('{"car1": 0, "car2": 1, "car3": 1}')
    assert opened(pack_scenes.joined(shared_out(tmp_path))).checked_classes() == [0, 1, 1, 0, 1, 1]


def test_training_reads_them_at_every_resolution(pack, tmp_path):
    opened(tmp_path / "away", resolution=24).make_packs(0)
    shutil.move(pack_of(tmp_path / "away", 24), pack.with_name("cars_train.24px.pack"))
    data = open_data(small_run(pack))
    pack_data(data)
    visible = {path.name for path in pack.parent.glob("[!.]*")}
    assert visible == {"away", pack.name, "cars_train.24px.pack"}, "nothing else is written"
    files = opened(tmp_path / "away", resolution=24, near=0.8, far=1.8)
    assert equal_scenes(at_resolution(data, 24, cache=True).train, files)
    refused("cars_train.16px.pack: no such file", lambda: at_resolution(data, 16, cache=True))


def test_packs_of_several_modalities_and_of_placed_scenes(tmp_path):
    split = write_split(tmp_path / "cars_train")
    add_sensors(split / "car1")
    add_sensors(split / "car3", ["sonar"])
    options = {"modalities": ("rgb", "depth", "sonar"), "normalize": False, "near": 0.8, "far": 1.8}
    files = packed_scenes(split, **options)
    placed = packed_scenes(write_split(tmp_path / "far_train", radius=40.0), normalize=True, near=0.8, far=1.8)
    shutil.move(split, tmp_path / "away")
    alone, options["near"] = opened(pack_of(split), **{**options, "near": None, "far": None}), 0.7
    assert [alone.modalities_of(scene) for scene in range(3)] == [files.modalities_of(scene) for scene in range(3)]
    kinds = np.array([MODALITIES[name].index for name in ("depth", "sonar", "rgb")])
    first, second = (dataset.load(0, np.array([1, 3, 4]), kinds) for dataset in (files, alone))
    assert (first.images == second.images).all() and same_cameras(alone, files)
    options["modalities"] = "rgb", "depth"
    refused("give `near` and `far`", lambda: opened(pack_of(split), **options))
    far = pack_of(tmp_path / "far_train")
    assert equal_scenes(opened(far, normalize=True, near=0.8, far=1.8), placed)
    refused("was made with `normalize` 1.3, not False", lambda: opened(far))
    refused("leave out `convention`", lambda: opened(far, normalize=True, convention="opengl"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: flip_bit(data, len(data) - 200), lambda _: b"PK"]
)
def test_what_is_no_whole_pack(pack, damage):
    pack.write_bytes(damage(pack.read_bytes()))
    refused("not a whole pack", lambda: opened(pack))


def test_a_damaged_view_is_found_where_that_is_asked_for(pack):
    pack.write_bytes(flip_bit(pack.read_bytes(), HEADER_BYTES + 50))
    opened(pack).make_packs(0)
    refused("a checksum is wrong", lambda: opened(pack).make_packs(0, verify=True))


def test_start_and_memory_grow_with_the_number_of_scenes_alone(tmp_path):
    """Less than a hundred bytes of Python's objects a scene; a hundred thousand scenes start in seconds."""

    def start(count: int) -> tuple[float, int]:
        path = write_packs(tmp_path, "cpu-demo", count, views=50, packs=2)
        config = training_config("cpu-demo", 8, 2, "fp32", data=str(path))
        begun = time.process_time()
        data = open_data(config)
        pack_data(data)
        data.facts()
        took = time.process_time() - begun
        tracemalloc.start()
        kept = open_data(config), load_batches(config, data, 0, torch.device("cpu"))
        next(kept[1])
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return took, size

    (soon, small), (later, large) = start(500), start(5000)
    assert large - small < 4500 * 150, f"{(large - small) / 4500:.0f} bytes a scene"
    assert later < 2.0 and later < 30 * soon
