"""Datasets with and without packs, and whether they hold the same, for tests."""

import shutil
from pathlib import Path

import torch

from genvs.data.stored import StoredScenes
from genvs.data.types import ViewBatch, Views
from tests.unit.srn_folder import INTRINSICS, write_scene, write_split


def write_uneven_split(path: Path) -> Path:
    """Three scenes of 6, 5 and 6 views; intrinsics and images of the second are of other sizes."""
    write_split(path)
    shutil.rmtree(path / "car2")
    scene = write_scene(path / "car2", num_views=5, size=64, seed=9)
    (scene / "intrinsics.txt").write_text(INTRINSICS.replace("32.8125", "40.5"))
    return path


def pack_of(split: Path, resolution: int = 32) -> Path:
    return split.with_name(f"{split.name}.{resolution}px.pack")


def unfinished(split: Path) -> list[Path]:
    """What a process writes until the pack is whole."""
    return list(split.parent.glob(f".{pack_of(split).name}.*.tmp"))


def forbid_packing(split: Path) -> None:
    lock = split.with_name(f".{pack_of(split).name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()


def visible(folder: Path) -> list[str]:
    """The names in a folder, in order, without hidden ones such as locks."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def opened(split: Path, **options) -> StoredScenes:
    return StoredScenes(split, **{"resolution": 32, **options})


def packed_scenes(split: Path, workers: int = 0, **options) -> StoredScenes:
    dataset = opened(split, **options)
    dataset.make_packs(workers)
    return dataset


def same_views(first: Views, second: Views) -> bool:
    parts = [(v.images, v.cameras.c2w, v.cameras.intrinsics, v.cameras.near, v.cameras.far) for v in (first, second)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*parts, strict=True))


def same_batch(first: ViewBatch, second: ViewBatch) -> bool:
    views = same_views(first.inputs, second.inputs) and same_views(first.targets, second.targets)
    return views and torch.equal(first.sample_index, second.sample_index)


def equal_scenes(first: StoredScenes, second: StoredScenes) -> bool:
    """Whether all views are equal, bit for bit."""
    assert len(first) == len(second)
    counts = [first.num_views(scene) for scene in range(len(first))]
    return all(same_views(*(s.load(i, range(count)) for s in (first, second))) for i, count in enumerate(counts))
