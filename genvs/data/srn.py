"""Scenes in SRN's layout, `<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}`, in a folder or a `.zip`.

Starting lists names only and examines the first scene; every other file is read, and checked, when a sample uses it.
Or, which is much faster, all are read once, into a pack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from genvs.data.files import (
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    Intrinsics,
    image_size,
    read_intrinsics,
    read_pose,
    read_view,
)
from genvs.data.scenes import Scene, SceneDataset
from genvs.data.storage import Storage, find_storage, natural_key, printable
from genvs.errors import InputError

NEAR_FAR = {"cars": (0.8, 1.8), "chairs": (1.25, 2.75)}  # by the beginning of the split folder's name
IMAGE_SUFFIXES = ("png", "jpg", "jpeg")
LAYOUT = "<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}"
MAKE_ONE = "make a dataset with: python -m genvs.data.synthetic --out datasets/cars"


class SRNScene(Scene):
    """A scene's files, one of each kind a view, in natural order of the views' names; paths within `storage`."""

    def __init__(
        self,
        storage: Storage,
        path: Path,
        name: str,
        view_names: list[str],
        images: list[str],
        poses: list[str],
        intrinsics: list[str],
    ) -> None:
        self.storage, self.path, self.name, self.shown = storage, path, name, printable(path / name)
        self.view_names, self.images, self.poses, self.intrinsics = view_names, images, poses, intrinsics
        self._c2w: dict[str, np.ndarray] = {}
        self._intrinsics: dict[str, Intrinsics] = {}

    def read_c2w(self, view: int) -> np.ndarray:
        name = self.poses[view]
        if name not in self._c2w:
            self._c2w[name] = read_pose(self.storage.read(name, MAX_TEXT_BYTES), str(self.path / name))
        return self._c2w[name]

    def read_intrinsics(self, view: int) -> Intrinsics:
        """In pixels."""
        name = self.intrinsics[view]
        if name not in self._intrinsics:
            self._intrinsics[name] = read_intrinsics(self.storage.read(name, MAX_TEXT_BYTES), str(self.path / name))
        return self._intrinsics[name]

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        name = self.images[view]
        data = self.storage.read(name, MAX_IMAGE_BYTES)
        return read_view(data, self.read_intrinsics(view), resolution, str(self.path / name))

    def image_size(self, view: int) -> tuple[int, int]:
        name = self.images[view]
        return image_size(self.storage.read(name, MAX_IMAGE_BYTES), str(self.path / name))

    def file_states(self) -> Iterable[tuple]:
        for name in (*self.images, *self.poses, *dict.fromkeys(self.intrinsics)):
            yield name, *self.storage.state(name)


class SRNScenes(SceneDataset):
    """The scenes of one split. path: as `genvs.data.splits.open_splits` gives it."""

    def list_scenes(self, path: Path) -> list[SRNScene]:
        storage = find_storage(path)
        if storage is None:
            raise InputError(f"{printable(path)}: no such folder; give one of scenes, or {MAKE_ONE}")
        self.storage: Storage = storage
        folders = sorted((name[:-1] for name in storage.names() if name.endswith("/")), key=natural_key)
        if not folders:
            raise InputError(f"{printable(path)}: holds no scene folders; the layout is {LAYOUT}; or {MAKE_ONE}")
        return [list_scene(storage, path, folder) for folder in folders]

    def default_depths(self) -> tuple[float, float] | None:
        """The split's own, else by its name."""
        by_name = next((depths for name, depths in NEAR_FAR.items() if self.path.name.startswith(name)), None)
        return _recorded_depths(self.storage, self.path) or by_name

    def pack_path(self) -> Path:
        return self.storage.beside(f".{self.resolution}px.pack")


def list_scene(storage: Storage, path: Path, scene: str) -> SRNScene:
    """Pair the views of the scene in a folder of `storage`, which is at `path`, by file name.

    Raises InputError for what is missing or does not pair.
    """
    shown = printable(path / scene)
    there = storage.names(scene)
    for folder in ("rgb", "pose"):
        if folder + "/" not in there:
            raise InputError(f"{shown}: has no folder {folder}; the layout is {LAYOUT}; complete or remove this scene")
    images = files_by_stem(storage, path, f"{scene}/rgb", IMAGE_SUFFIXES)
    poses = files_by_stem(storage, path, f"{scene}/pose", ("txt",))
    if not images:
        raise InputError(f"{shown}/rgb: holds no images (.png or .jpg); add them or remove this scene")
    stems = sorted(images, key=natural_key)
    _refuse_unpaired(shown, images, poses, "pose")
    if "intrinsics/" in there:
        intrinsics = files_by_stem(storage, path, f"{scene}/intrinsics", ("txt",))
        _refuse_unpaired(shown, images, intrinsics, "intrinsics")
        of_views = [intrinsics[stem] for stem in stems]
    elif "intrinsics.txt" in there:
        of_views = [f"{scene}/intrinsics.txt"] * len(stems)
    else:
        raise InputError(f"{shown}/intrinsics.txt: is missing; add it ('f cx cy 0.', '0. 0. 0.', '1.', 'height width')")
    return SRNScene(
        storage, path, scene, stems, [images[stem] for stem in stems], [poses[stem] for stem in stems], of_views
    )


def files_by_stem(storage: Storage, path: Path, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """File name without suffix to path, for the files that have one of `suffixes` (lower case, without the dot)."""
    found: dict[str, str] = {}
    for name in storage.names(folder):
        stem, _, suffix = name.removesuffix("/").rpartition(".")
        if suffix.lower() not in suffixes:
            continue
        if name.endswith("/"):
            raise InputError(f"{printable(path / folder / name)}: is a folder, not a file; remove it")
        if stem in found:
            other = printable(os.path.basename(found[stem]))
            raise InputError(f"{printable(path / folder / name)}: is there twice, also as {other}; keep one")
        found[stem] = f"{folder}/{name}"
    return found


def _refuse_unpaired(shown: str, images: dict[str, str], others: dict[str, str], kind: str) -> None:
    if images.keys() == others.keys():
        return
    unpaired = min(images.keys() ^ others.keys(), key=natural_key)
    there, missing = ("rgb", kind) if unpaired in images else (kind, "rgb")
    raise InputError(
        f"{shown}/{there}: '{printable(unpaired)}' has no file of the same name in {missing}/; "
        f"there are {len(images)} images and {len(others)} {kind} files: add the missing one, or remove this one"
    )


def _recorded_depths(storage: Storage, path: Path) -> tuple[float, float] | None:
    """near and far from the split's `dataset.json`, where it has one that states them."""
    if "dataset.json" not in storage.names():
        return None
    try:
        record = json.loads(storage.read("dataset.json", MAX_TEXT_BYTES))
        return (float(record["near"]), float(record["far"])) if "near" in record or "far" in record else None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InputError(
            f"{printable(path / 'dataset.json')}: not JSON with numbers near and far; correct or remove it"
        ) from None
