"""A dataset class written for the unofficial implementation trains unchanged, and its cameras are right."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

import genvs
import train
from genvs.data.stored import dataset_class
from genvs.errors import InputError
from genvs.geometry import to_opencv
from genvs.geometry.trajectories import spherical_c2w
from tests.programs import exit_code_of

FOCAL, NEAR, FAR = 2.05, 0.8, 1.8  # half image widths; world units
SIZE, VIEWS = 32, 5


class YourDataset(Dataset):
    """Three scenes to train on, one to validate with, none to test: noise, seen from random places."""

    def __init__(self, path, distr="train"):
        self.seeds = {"train": [0, 1, 2], "val": [3]}[distr]
        assert Path(path).is_dir()

    def __len__(self):
        return len(self.seeds)

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(self.seeds[index])
        angles = torch.rand(2, VIEWS, generator=rng, dtype=torch.float64) * 1.5
        return {
            "images": torch.rand(VIEWS, 3, SIZE, SIZE, generator=rng) * 2 - 1,
            "poses": spherical_c2w(*angles, 1.3) @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)),
            "focal": FOCAL,
            "z_near": NEAR / FOCAL,
            "z_far": FAR / FOCAL,
        }


class Changed(YourDataset):
    """Each item is what `change` makes of it and its index."""

    change = staticmethod(lambda item, index: {})

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | self.change(item, index)


def opened(name: str, path: Path, resolution: int = SIZE):
    kind = dataset_class(f"{__name__}.{name}")
    return kind(kind.find_splits(path).train, resolution=resolution)


def test_images_and_cameras_are_the_items(tmp_path):
    item, views = YourDataset(tmp_path)[1], opened("YourDataset", tmp_path).load(1, range(VIEWS))
    torch.testing.assert_close(views.images / 127.5 - 1, item["images"], rtol=0, atol=0.5 / 127.5 + 1e-6)
    torch.testing.assert_close(views.cameras.c2w, to_opencv(item["poses"], "opengl").float())
    expected = torch.tensor([[FOCAL / 2, 0, 0.5], [0, FOCAL / 2, 0.5], [0, 0, 1]])
    torch.testing.assert_close(views.cameras.intrinsics[0], expected)
    torch.testing.assert_close(views.cameras.near, torch.full((VIEWS,), NEAR))
    torch.testing.assert_close(views.cameras.far, torch.full((VIEWS,), FAR))


def test_other_sizes_are_resized(tmp_path, monkeypatch):
    monkeypatch.setattr(Changed, "change", lambda self, item, index: {"images": item["images"][:, :, : SIZE // 2]})
    views = opened("Changed", tmp_path, resolution=16).load(0, [1])
    assert views.images.shape == (1, 3, 16, 16)
    assert views.cameras.intrinsics[0, 0, 0] == FOCAL / 2 and views.cameras.intrinsics[0, 1, 1] == FOCAL
    assert (views.images.float().mean() / 127.5 - 1).abs() < 0.1


def test_splits_are_those_that_the_class_has(tmp_path):
    kind = dataset_class(f"{__name__}.YourDataset")
    assert kind.find_splits(tmp_path) == (tmp_path / "train", tmp_path / "val", None)
    train, val = (kind(tmp_path / split, resolution=SIZE) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 1) and train.digest_of_files() != val.digest_of_files()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda item, index: {key: item[key][: VIEWS - index] for key in ("images", "poses")}, "the same number"),
        (lambda item, index: {"focal": None}, "focal"),
        (lambda item, index: {"images": item["images"][0]}, "images [3, 32, 32]"),
    ],
)
def test_what_is_wrong_with_an_item_is_named(tmp_path, monkeypatch, change, reason):
    monkeypatch.setattr(Changed, "change", staticmethod(change))
    with pytest.raises(InputError, match=".") as caught:
        opened("Changed", tmp_path).load(1, [0])
    assert f"{tmp_path} (train): scene" in str(caught.value) and reason in str(caught.value)


def test_two_updates(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    options = f"--preset=cpu-demo --data=data --data-class={__name__}.YourDataset --outdir=runs --batch=2 --targets=1"
    monkeypatch.chdir(tmp_path)
    arguments = f"{options} --duration=4e-6 --workers=1 --logger=none".split()
    assert exit_code_of(train.main, *arguments) == 0, capsys.readouterr().err
    (run,) = (tmp_path / "runs").iterdir()
    net = genvs.load_snapshot(*run.glob("network-snapshot-*.pkl"))
    scene = net.config.scene
    assert net.notes["cur_nimg"] == 4
    assert (scene.near, scene.far, scene.focal) == pytest.approx((NEAR, FAR, FOCAL / 2), abs=1e-5)
