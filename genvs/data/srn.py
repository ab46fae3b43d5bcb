"""Scenes in SRN's layout, `<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}`, in a folder or a `.zip`.

Opening a split lists names and examines the first scene. Every other file is read and checked when a sample uses it or,
which is much faster, all files are read once into a pack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from genvs.config import SceneConfig
from genvs.data.files import (
    MIN_SIDE,
    Intrinsics,
    read_intrinsics,
    read_pose,
)
from genvs.data.scene import StoredScene, Targets
from genvs.data.scenes import SceneDataset
from genvs.data.storage import Storage, find_storage, natural_key, printable
from genvs.errors import InputError

CARS = SceneConfig()
NEAR_FAR = {"cars": (CARS.near, CARS.far), "chairs": (1.25, 2.75)}  # by the beginning of the split folder's name
IMAGE_SUFFIXES = ("png", "jpg", "jpeg")
LAYOUT = "<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}"
TARGET_FOLDER = "target_pose"


class SRNScene(StoredScene):
    """A scene in `folder` ('' or 'a/') of `storage`, which is at `path`. Views pair by name, in natural order.

    Raises InputError for files that are missing or do not pair.
    """

    def __init__(self, storage: Storage, path: Path, folder: str) -> None:
        self.storage, self.path, self.folder = storage, path, folder
        self.name, self.shown = folder.rstrip("/") or path.name, printable(path / folder)
        there = storage.names(folder)
        for kind in ("rgb", "pose"):
            if kind + "/" not in there:
                raise InputError(
                    f"{self.shown}: has no folder {kind}; the layout is {LAYOUT}; add it or remove this scene"
                )
        images = files_by_stem(storage, path, f"{folder}rgb", IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{self.shown}/rgb: holds no images (.png or .jpg); add them or remove this scene")
        self.view_names = sorted(images, key=natural_key)
        self.images = [images[name] for name in self.view_names]
        self.poses = self._of_views("pose", images)
        if "intrinsics/" in there:
            self.intrinsics = self._of_views("intrinsics", images)
        elif "intrinsics.txt" in there:
            self.intrinsics = [f"{folder}intrinsics.txt"] * len(images)
        else:
            raise InputError(
                f"{self.shown}/intrinsics.txt: is missing; add it ('f cx cy 0.', '0. 0. 0.', '1.', 'height width')"
            )
        self._c2w: dict[str, np.ndarray] = {}
        self._intrinsics: dict[str, Intrinsics] = {}

    def read_c2w(self, view: int) -> np.ndarray:
        return self._read_pose(self.poses[view])

    def _read_pose(self, name: str) -> np.ndarray:
        if name not in self._c2w:
            self._c2w[name] = read_pose(self.storage.read(name), str(self.path / name))
        return self._c2w[name]

    def read_intrinsics(self, view: int, width: int, height: int) -> Intrinsics:
        name = self.intrinsics[view]
        if name not in self._intrinsics:
            self._intrinsics[name] = read_intrinsics(self.storage.read(name), str(self.path / name))
        return self._intrinsics[name]

    def read_targets(self) -> Targets | None:
        """The poses in `target_pose/*.txt`, with the first view's intrinsics."""
        if TARGET_FOLDER + "/" not in self.storage.names(self.folder):
            return None
        poses = files_by_stem(self.storage, self.path, self.folder + TARGET_FOLDER, ("txt",))
        if not poses:
            raise InputError(
                f"{self.shown}/{TARGET_FOLDER}: holds no .txt; add the poses to draw, or remove the folder"
            )
        names = sorted(poses, key=natural_key)
        c2w = np.stack([self._read_pose(poses[name]) for name in names])
        intrinsics = self.read_view(0, MIN_SIDE)[1]
        return Targets(names, c2w, np.broadcast_to(intrinsics, (len(names), 3, 3)))

    def file_states(self) -> Iterable[tuple]:
        for name in (*self.images, *self.poses, *dict.fromkeys(self.intrinsics)):
            yield name, *self.storage.state(name)

    def _of_views(self, kind: str, images: dict[str, str]) -> list[str]:
        """The .txt files in the folder `kind`, one for each view. Raises InputError where images and files differ."""
        files = files_by_stem(self.storage, self.path, self.folder + kind, ("txt",))
        if images.keys() != files.keys():
            unpaired = min(images.keys() ^ files.keys(), key=natural_key)
            there, missing = ("rgb", kind) if unpaired in images else (kind, "rgb")
            raise InputError(
                f"{self.shown}/{there}: '{printable(unpaired)}' has no file of the same name in {missing}/; there are "
                f"{len(images)} images and {len(files)} {kind} files: add the missing one, or remove this one"
            )
        return [files[name] for name in self.view_names]


class SRNScenes(SceneDataset):
    """The scenes of one split. path: as `genvs.data.splits.open_splits` gives it, or the folder of one scene."""

    def list_scenes(self, path: Path) -> list[SRNScene]:
        storage = find_storage(path)
        if storage is None:
            raise InputError(f"{printable(path)}: no such folder; give one of scenes")
        self.storage: Storage = storage
        folders = sorted((name for name in storage.names() if name.endswith("/")), key=natural_key)
        if {"rgb/", "pose/"} & set(folders):
            folders = [""]
        if not folders:
            raise InputError(f"{printable(path)}: holds no scene folders; the layout is {LAYOUT}")
        return [SRNScene(storage, path, folder) for folder in folders]

    def default_depths(self) -> tuple[float, float] | None:
        """The split's own, else by its name."""
        by_name = next((depths for name, depths in NEAR_FAR.items() if self.path.name.startswith(name)), None)
        return _recorded_depths(self.storage, self.path) or by_name

    def pack_path(self) -> Path:
        return self.storage.beside(f".{self.resolution}px.pack")


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


def _recorded_depths(storage: Storage, path: Path) -> tuple[float, float] | None:
    """near and far from the split's `dataset.json`, where it has one that states them."""
    if "dataset.json" not in storage.names():
        return None
    try:
        record = json.loads(storage.read("dataset.json"))
        return (float(record["near"]), float(record["far"])) if "near" in record or "far" in record else None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InputError(
            f"{printable(path / 'dataset.json')}: not JSON with numbers near and far; correct or remove it"
        ) from None
