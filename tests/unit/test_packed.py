"""Packs: made once, the same as the files bit for bit, made anew when anything is not as it was, never in the way."""

import dataclasses
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from genvs.data import packed
from genvs.data.scenes import SampleRequest
from genvs.errors import InputError
from tests.small_training import small_run
from tests.unit.packed_folder import (
    equal_scenes,
    forbid_packing,
    opened,
    pack_of,
    packed_scenes,
    same_batch,
    same_views,
    visible,
    write_uneven_split,
)
from tests.unit.srn_folder import INTRINSICS, c2w_text, flip_bit, refused, some_c2w, zip_of
from training.data import open_data, pack_data

REQUESTS = [SampleRequest(index % 3, index, 2, 1) for index in range(12)]


@pytest.fixture
def split(tmp_path) -> Path:
    return write_uneven_split(tmp_path / "cars_train")


def file_identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


# --- what a pack holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resolution", [32, 24])
def test_packed_views_are_those_of_the_files_bit_for_bit(split, workers, resolution):
    files = opened(split, resolution=resolution)
    assert equal_scenes(packed_scenes(split, workers, resolution=resolution), files)
    assert visible(split.parent) == ["cars_train", f"cars_train.{resolution}px.pack"]
    assert opened(split).scene_names == ["car1", "car2", "car3"]


@pytest.mark.parametrize("xflip", [False, True])
def test_samples_are_the_same_and_need_no_files(split, xflip):
    expected = opened(split, seed=3, xflip=xflip)[REQUESTS]
    dataset = packed_scenes(split, seed=3, xflip=xflip)
    shutil.rmtree(split)
    assert len(pickle.dumps(dataset)) < 10_000, "no pixels"
    assert same_batch(pickle.loads(pickle.dumps(dataset))[REQUESTS], expected)
    for batch in DataLoader(dataset, batch_size=None, sampler=[REQUESTS] * 2, num_workers=2):
        assert same_batch(batch, expected)


def test_views_that_are_not_there(split):
    for dataset in (opened(split), packed_scenes(split)):
        for view in (5, -1):
            with pytest.raises(InputError, match="car2: has no view"):
                dataset.load(1, [0, view])


# --- when it is made --------------------------------------------------------------------------------------------------


def test_it_is_made_once(split, monkeypatch):
    packed_scenes(split)
    made = file_identity(pack_of(split))
    os.utime(split / "car1", (1, 1))  # folders change with clutter
    (split / "car1" / ".DS_Store").touch()
    packed_scenes(split, seed=4, near=0.3, far=7.0)
    monkeypatch.chdir(split)
    packed_scenes(Path("."))
    assert file_identity(pack_of(split)) == made


def new_time(split: Path) -> None:
    path = split / "car3" / "rgb" / "6.png"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def new_size_at_the_old_time(split: Path) -> None:
    path = split / "car1" / "pose" / "2.txt"
    before = path.stat().st_mtime_ns
    path.write_text(c2w_text(some_c2w(9)[8]))
    os.utime(path, ns=(before, before))


def new_intrinsics(split: Path) -> None:
    (split / "car3" / "intrinsics.txt").write_text(INTRINSICS.replace("32.8125", "33.8125"))


@pytest.mark.parametrize("change", [new_time, new_size_at_the_old_time, new_intrinsics])
def test_it_is_made_anew_when_the_files_change(split, change):
    packed_scenes(split)
    before = file_identity(pack_of(split))
    change(split)
    dataset = packed_scenes(split)
    assert file_identity(pack_of(split)) != before
    assert equal_scenes(dataset, opened(split))
    assert len(visible(split.parent)) == 2, "in the place of the old one"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: flip_bit(data, 60),  # in the header
        lambda data: bytes(packed.HEADER_BYTES) + data[packed.HEADER_BYTES :],  # unfinished
    ],
)
def test_a_damaged_or_unfinished_pack_is_made_anew(split, damage):
    packed_scenes(split)
    whole = pack_of(split).read_bytes()
    pack_of(split).write_bytes(damage(whole))
    assert equal_scenes(packed_scenes(split), opened(split))
    assert pack_of(split).read_bytes() == whole


@pytest.mark.parametrize("part", ["image", "c2w", "intrinsics", "checksum"])
def test_a_changed_bit_anywhere_is_noticed_where_that_is_asked_for(split, part):
    (pack,) = opened(split).make_packs(0)
    whole = pack_of(split).read_bytes()
    for view in (0, 8, 16):
        byte = packed.HEADER_BYTES + view * pack.record.itemsize + pack.record.fields[part][1]
        pack_of(split).write_bytes(flip_bit(whole, byte))
        assert pack.is_current() and not dataclasses.replace(pack).is_current(verify=True)
        opened(split).make_packs(0)
        assert pack_of(split).read_bytes() != whole
        opened(split).make_packs(0, verify=True)
        assert pack_of(split).read_bytes() == whole


def test_a_pack_in_use_stays_as_it_was(split):
    dataset, expected = packed_scenes(split), opened(split).load(2, range(6))
    shutil.copy(split / "car1" / "rgb" / "1.png", split / "car3" / "rgb" / "6.png")
    assert not same_views(packed_scenes(split).load(2, range(6)), expected)
    assert same_views(dataset.load(2, range(6)), expected)


def test_the_pack_of_a_zip_lies_beside_it_and_follows_it(split):
    inside = zip_of(split.parent) / split.parent.name / split.name
    packed_scenes(inside, workers=2)
    pack = split.parent.with_name(f"{split.parent.name}.zip.{split.parent.name}.cars_train.32px.pack")
    made = file_identity(pack)
    assert equal_scenes(packed_scenes(inside), opened(split)) and file_identity(pack) == made
    new_intrinsics(split)
    zip_of(split.parent)
    assert equal_scenes(packed_scenes(inside), opened(split)) and file_identity(pack) != made


# --- when it cannot be made -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_refused_as_without_a_pack(split, workers):
    path = split / "car3" / "rgb" / "4.png"
    path.write_bytes(path.read_bytes()[:-20])
    line = refused("car3/rgb/4.png", lambda: opened(split).load(2, range(6)))
    assert refused("car3/rgb/4.png", lambda: packed_scenes(split, workers)) == line
    dataset = opened(split)
    path.unlink()
    refused("car3/rgb/4.png", lambda: dataset.make_packs(workers))
    assert visible(split.parent) == ["cars_train"] and multiprocessing.active_children() == []


def test_where_it_cannot_be_written_a_line_says_so_and_files_are_read(split, capfd):
    packed_scenes(split)
    new_intrinsics(split)
    forbid_packing(split)
    data = open_data(small_run(split))
    pack_data(data)
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"Warning: {split}: ") and "cache" in err
    assert equal_scenes(data.train, opened(split)), "the old pack is not used"
