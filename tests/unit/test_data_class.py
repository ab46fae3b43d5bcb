"""A dataset class of the user's own: the example of the documentation, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from docs.own_dataset import NpzScene, NpzScenes
from genvs.data.scenes import Splits
from genvs.errors import InputError
from tests.small_training import small_run
from tests.unit.packed_folder import equal_scenes
from tests.unit.srn_folder import refused, some_c2w
from training.config import TrainConfig
from training.data import open_data, pack_data

EXAMPLE = "docs.own_dataset.NpzScenes"


def write_npz(folder: Path, num_scenes: int = 3) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for scene in range(num_scenes):
        images = rng.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
        np.savez(folder / f"{scene}.npz", images=images, c2w=some_c2w(6), focal=40.0)
    return folder


class NoPack(NpzScenes):
    """Images are decoded each time, and the last file is held out."""

    @classmethod
    def find_splits(cls, path):
        return Splits(Path(path) / "train", Path(path) / "val")

    def pack_path(self):
        return None


def test_the_example_of_the_documentation(tmp_path):
    config = small_run(write_npz(tmp_path / "captures"), data_class=EXAMPLE)
    data = open_data(config)
    assert type(data.train).__name__ == "NpzScenes" and data.train.scene_names == ["0", "1", "2"]
    assert list(data.train_scenes) == [0, 1] and list(data.held_out_scenes) == [2]
    views = data.train.load(1, [3])
    np.testing.assert_allclose(views.cameras.c2w[0], some_c2w(6)[3], atol=1e-6)
    expected = torch.tensor([[40 / 48, 0, 0.5], [0, 40 / 32, 0.5], [0, 0, 1]])
    torch.testing.assert_close(views.cameras.intrinsics[0], expected)
    pack_data(data)
    assert (tmp_path / "captures" / "32px.pack").exists()
    assert equal_scenes(data.train, NpzScenes(tmp_path / "captures", resolution=32))


def test_splits_and_packs_are_the_classes_own(tmp_path):
    write_npz(tmp_path / "train")
    write_npz(tmp_path / "val", 2)
    data = open_data(small_run(tmp_path, data_class=f"{__name__}.NoPack"))
    assert len(data.train) == 3 and len(data.held_out) == 2 and list(data.held_out_scenes) == [0, 1]
    pack_data(data)
    assert sorted(path.name for path in tmp_path.rglob("*pack*")) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NpzScenes", "no such class"),
        ("docs.no_such_module.Scenes", "No module named"),
        ("docs.own_dataset.Scenes", "no such class"),
        ("docs.own_dataset.NpzScene", "is not derived from genvs.data.scenes.SceneDataset"),
    ],
)
def test_what_is_no_dataset_class(tmp_path, name, reason):
    config = small_run(write_npz(tmp_path / "captures"), data_class=name)
    assert reason in refused(f"`data_class`={name}", lambda: open_data(config))


class OddScene(NpzScene):
    """Has one view whose `part` is changed."""

    part, change, odd_view = "", staticmethod(lambda value: value), 2

    def changed(self, view, **parts):
        return [
            self.change(value) if (view, part) == (self.odd_view, self.part) else value for part, value in parts.items()
        ]

    def read_c2w(self, view):
        return self.changed(view, c2w=super().read_c2w(view))[0]

    def read_view(self, view, resolution):
        image, intrinsics = super().read_view(view, resolution)
        return self.changed(view, image=image, intrinsics=intrinsics)


class OddScenes(NpzScenes):
    def list_scenes(self, path):
        return [OddScene(file) for file in sorted(path.glob("*.npz"))]


@pytest.mark.parametrize("view", [0, 2])
@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("c2w", lambda c2w: c2w * np.nan, "not 4x4 finite numbers"),
        ("c2w", lambda c2w: c2w * [[2, 2, 2, 1]], "take the scale out"),
        ("image", lambda image: image[:, :20], "OddScene gives an image uint8 [3, 20, 32]"),
        ("intrinsics", lambda matrix: matrix * 128, "divide row 0 by"),
    ],
)
def test_views_that_are_not_as_they_should_be(tmp_path, monkeypatch, view, part, change, reason):
    for name, value in {"part": part, "change": staticmethod(change), "odd_view": view}.items():
        monkeypatch.setattr(OddScene, name, value)
    config = small_run(write_npz(tmp_path / "captures"), data_class=f"{__name__}.OddScenes")
    message = refused(f"captures/0.npz: view {view}", lambda: open_data(config).train.load(0, range(6)))
    assert reason in message


class Labelled(NpzScenes):
    labels: object = None

    def classes(self):
        return self.labels


def test_the_classes_own_labels(tmp_path, monkeypatch):
    config = small_run(write_npz(tmp_path / "captures"), data_class=f"{__name__}.Labelled", cond=True)
    monkeypatch.setattr(Labelled, "labels", np.array([2, 0, 1]))
    assert open_data(config).train.one_hot.argmax(1).tolist() == [2, 0, 1]
    monkeypatch.setattr(Labelled, "labels", [0, 1])
    assert "'2' has the class None" in refused("captures", lambda: open_data(config))


def test_no_scenes_and_no_data(tmp_path):
    (tmp_path / "captures").mkdir()
    config = small_run(tmp_path / "captures", data_class=EXAMPLE)
    assert "NpzScenes finds no scene" in refused("captures", lambda: open_data(config))
    with pytest.raises(InputError, match="`data_class`=a.B: give"):
        dataclasses.replace(TrainConfig(), data_class="a.B")


def test_a_pack_is_of_the_class_that_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(OddScene, "part", "image")
    monkeypatch.setattr(OddScene, "change", staticmethod(lambda image: 255 - image))
    folder = write_npz(tmp_path / "captures")
    plain, odd = NpzScenes(folder, resolution=32), OddScenes(folder, resolution=32)
    assert plain.pack_path() == odd.pack_path()
    for dataset in (plain, odd):
        dataset.make_packs(workers=1)
    assert torch.equal(plain.load(0, [2]).images, 255 - odd.load(0, [2]).images)
