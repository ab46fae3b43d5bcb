"""Every bad archive is refused by one line that names the file."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest

from genvs.data import storage
from genvs.data.splits import open_splits
from genvs.data.srn import SRNScenes
from tests.unit.srn_folder import flip_bit, refused


def archive(path: Path, split: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(split.rglob("*")):
            file.write(member, member.relative_to(split.parent))
    return path


BAD_MEMBERS = {
    "parent": ("../evil.png", "points outside"),
    "hidden parent": ("cars_train/../../evil.png", "points outside"),
    "absolute": ("/etc/evil.png", "absolute"),
    "drive": ("C:/evil.png", "absolute"),
    "backslash": ("cars_train\\evil.png", "backslash"),
    "newline": ("cars_train/evil\n.png", "unusable name"),
    "long": ("a/" * 600 + "evil.png", "unusable name"),
    "twice": ("cars_train/car1/rgb/1.png", "is there twice"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_bad_zip_member(scene, tmp_path, case):
    name, reason = BAD_MEMBERS[case]
    path = archive(tmp_path / "cars.zip", scene.parent)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
        warnings.simplefilter("ignore")  # zipfile's own, on a duplicate
        file.writestr(name, b"")
    assert reason in refused("cars.zip", lambda: open_splits(path))


def test_zip_with_a_link(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("cars_train/car1/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    assert "is a link" in refused("cars.zip", lambda: open_splits(path))


def test_encrypted_zip(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    data = bytearray(path.read_bytes())  # now the same bomb says that it is small
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in refused("cars.zip", lambda: open_splits(path))


def test_zip_compressed_otherwise(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as file:
        file.writestr("cars_train/car1/new.txt", "text")
    assert "other than deflate" in refused("new.txt", lambda: open_splits(path))


def test_truncated_and_fake_zips(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    for content in (path.read_bytes()[:-100], b"", b"<html>"):
        path.write_bytes(content)
        assert "not a whole zip" in refused("cars.zip", lambda: open_splits(path))


def test_zip_of_a_zip(scene, tmp_path):
    inner = archive(tmp_path / "inner.zip", scene.parent)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(inner, "inner.zip")
    refused("outer.zip", lambda: open_splits(tmp_path / "outer.zip"))
    refused("outer.zip/inner.zip", lambda: open_splits(tmp_path / "outer.zip" / "inner.zip"))


def test_zip_with_a_damaged_member(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    content = (scene / "rgb" / "2.png").read_bytes()
    data = path.read_bytes()
    path.write_bytes(flip_bit(data, data.index(content) + len(content) // 2))
    dataset = SRNScenes(open_splits(path).train, resolution=32)
    assert "the zip again" in refused("cars.zip/cars_train/car1/rgb/2.png", lambda: dataset.load(0, [1]))


def test_zip_bomb(scene, tmp_path):
    path = tmp_path / "cars.zip"
    (scene / "pose" / "2.txt").write_bytes(bytes(10_000_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(scene.rglob("*")):
            file.write(member, member.relative_to(scene.parents[1]))
    split = open_splits(path).train
    assert "10,000,000 bytes" in refused("car1/pose/2.txt", lambda: SRNScenes(split, resolution=32))
    data = bytearray(path.read_bytes())  # now the same bomb says that it is small
    place = data.index(struct.pack("<I", 10_000_000), data.index(b"PK\1\2"))
    data[place : place + 4] = struct.pack("<I", 300)
    path.write_bytes(data)
    split = open_splits(path).train
    tracemalloc.start()
    assert "the zip again" in refused("car1/pose/2.txt", lambda: SRNScenes(split, resolution=32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_zip_of_too_many_members(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_ZIP_MEMBERS", 5)
    path = archive(tmp_path / "cars.zip", scene.parent)
    assert "more than the 5 allowed" in refused("cars.zip", lambda: open_splits(path))


def test_zip_that_is_replaced_during_training(scene, tmp_path):
    path = archive(tmp_path / "cars.zip", scene.parent)
    dataset = SRNScenes(open_splits(path).train, resolution=32)
    path.write_bytes(b"another file")
    refused("cars.zip/cars_train/car1/rgb/2.png", lambda: dataset.load(0, [1]))
    path.unlink()
    refused("cars.zip/cars_train/car1/rgb/3.png", lambda: dataset.load(0, [2]))
