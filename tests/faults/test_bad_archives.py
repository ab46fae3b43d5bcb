"""Bad archives are refused by one line that names the file, and nothing in them leads out of them."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.utils.data import DataLoader

from genvs.data.scenes import SampleRequest
from genvs.data.storage import find_storage
from genvs.data.stored import StoredScenes
from tests.unit.srn_folder import flip_bit, read_everything, refused, zip_of


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cars_train/../../evil.png", "/etc/evil.png", "a//b.png", "C:/evil.png", "a/" * 600 + "b.png"],
)
def test_names_that_lead_elsewhere_are_never_matched(scene, tmp_path, name):
    path = zip_of(scene.parent)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"")
    assert StoredScenes.find_splits(path).train == path / "cars_train"
    storage = find_storage(path)
    assert set(storage.names()) <= {"cars_train/", "C:/", "a/"}
    refused("cars_train.zip/../secret", lambda: storage.read("../secret"))
    read_everything(path / "cars_train")


def test_a_link_is_its_text_and_not_what_it_points_to(scene, tmp_path):
    (scene / "rgb" / "2.png").unlink()
    path = zip_of(scene.parent)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("cars_train/car1/rgb/2.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, str(scene / "rgb" / "1.png"))
    assert "neither PNG, JPEG nor WebP" in refused("car1/rgb/2.png", lambda: read_everything(path / "cars_train"))


def with_flag(data: bytes, name: bytes) -> bytes:
    """Marks a member as encrypted in the zip's directory."""
    changed = bytearray(data)
    changed[data.rindex(b"PK\1\2", 0, data.rindex(name)) + 8] |= 1
    return bytes(changed)


def test_members_that_are_encrypted_or_damaged(scene, tmp_path):
    path = zip_of(scene.parent)
    content, data = (scene / "rgb" / "2.png").read_bytes(), path.read_bytes()
    damaged = flip_bit(data, data.index(content) + len(content) // 2)
    for changed, reason in ((with_flag(data, b"rgb/2.png"), "encrypted"), (damaged, "CRC")):
        path.write_bytes(changed)
        line = refused("cars_train.zip/cars_train/car1/rgb/2.png", lambda: read_everything(path / "cars_train"))
        assert reason in line and "the zip again" in line


@pytest.mark.parametrize("content", [lambda data: data[:-100], lambda data: b"", lambda data: b"<html>"])
def test_truncated_and_fake_zips(scene, tmp_path, content):
    path = zip_of(scene.parent)
    path.write_bytes(content(path.read_bytes()))
    assert "not a whole zip" in refused("cars_train.zip", lambda: StoredScenes.find_splits(path))


def test_workers_read_at_once_from_one_zip(scene, tmp_path):
    """Forked processes share the place in an open file; each has to open its own."""
    path = zip_of(scene.parent)
    dataset = StoredScenes(path / "cars_train", resolution=32)
    dataset.load(0, range(4))
    requests = [[SampleRequest(0, index, 2, 1)] for index in range(60)]
    for batch in DataLoader(dataset, batch_size=None, sampler=requests, num_workers=2):
        assert batch.inputs.images.float().std() > 10


def test_a_thread_reads_while_another_one_does(scene, monkeypatch):
    storage, read_member = find_storage(zip_of(scene.parent)), zipfile.ZipFile.read

    def read_second(archive: zipfile.ZipFile, name: str) -> bytes:
        monkeypatch.undo()
        with ThreadPoolExecutor() as pool:
            pool.submit(storage.read, name).result()
        return read_member(archive, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", read_second)
    name = "cars_train/car1/rgb/2.png"
    assert storage.read(name) == (scene / "rgb" / "2.png").read_bytes()
