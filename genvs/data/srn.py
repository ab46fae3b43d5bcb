"""Scenes in SRN's layout, `<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from genvs.config import SceneConfig
from genvs.data.files import MIN_SIDE, Intrinsics, read_intrinsics, read_pose
from genvs.data.scene import StoredScene, Targets
from genvs.data.storage import IMAGE_SUFFIXES, Storage, natural_key, printable
from genvs.errors import InputError

CARS = SceneConfig()
NEAR_FAR = {"cars": (CARS.near, CARS.far), "chairs": (1.25, 2.75)}  # by the beginning of the split folder's name
LAYOUT = "<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}"
TARGET_FOLDER = "target_pose/"


class SRNScene(StoredScene):
    """A scene in `folder` ('' or 'a/') of `storage`. Files of a view have one name; views are in natural order.

    Raises InputError for files that are missing or do not pair.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self.storage, self.folder = storage, folder
        self.name, self.shown = folder.rstrip("/") or storage.root.name, storage.shown(folder)
        there = storage.names(folder)
        for kind in ("rgb", "pose"):
            if kind + "/" not in there:
                raise InputError(
                    f"{self.shown}: has no folder {kind}; the layout is {LAYOUT}; add it or remove this scene"
                )
        images = _files_by_stem(storage, f"{folder}rgb/", IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{self.shown}/rgb: holds no images (.png or .jpg); add them or remove this scene")
        self.view_names = list(images)
        self.images = list(images.values())
        self.poses = self._of_views("pose")
        if "intrinsics/" in there:
            self.intrinsics = self._of_views("intrinsics")
        elif "intrinsics.txt" in there:
            self.intrinsics = [f"{folder}intrinsics.txt"] * len(images)
        else:
            raise InputError(
                f"{self.shown}/intrinsics.txt: is missing; add it ('f cx cy 0.', '0. 0. 0.', '1.', 'height width')"
            )
        self.other_files = list(dict.fromkeys(self.poses + self.intrinsics))
        self._parsed: dict[tuple, Any] = {}

    def read_c2w(self, view: int) -> np.ndarray:
        return self._parse(read_pose, self.poses[view])

    def read_intrinsics(self, view: int, width: int, height: int) -> Intrinsics:
        return self._parse(read_intrinsics, self.intrinsics[view], width, height)

    def read_targets(self) -> Targets | None:
        """The poses in `target_pose/*.txt`, with the first view's intrinsics."""
        if TARGET_FOLDER not in self.storage.names(self.folder):
            return None
        poses = _files_by_stem(self.storage, self.folder + TARGET_FOLDER, ("txt",))
        if not poses:
            raise InputError(f"{self.shown}/{TARGET_FOLDER}: holds no .txt; add poses to draw, or remove the folder")
        c2w = np.stack([self._parse(read_pose, name) for name in poses.values()])
        intrinsics = self.read_view(0, MIN_SIDE)[1]
        return Targets(list(poses), c2w, np.broadcast_to(intrinsics, (len(poses), 3, 3)))

    def _parse(self, parse: Callable, name: str, *size: int) -> Any:
        """What `parse` makes of a file, which is read once. size: of the image, for intrinsics."""
        key = (name, *size)
        if key not in self._parsed:
            self._parsed[key] = parse(self.storage.read(name), self.storage.shown(name), *size)
        return self._parsed[key]

    def _of_views(self, kind: str) -> list[str]:
        """The .txt files in the folder `kind`, one for each view. Raises InputError if images and files do not pair."""
        files = _files_by_stem(self.storage, f"{self.folder}{kind}/", ("txt",))
        if files.keys() != set(self.view_names):
            unpaired = min(files.keys() ^ set(self.view_names), key=natural_key)
            there, missing = (kind, "rgb") if unpaired in files else ("rgb", kind)
            raise InputError(
                f"{self.shown}/{there}: '{printable(unpaired)}' has no file of the same name in {missing}/; there are "
                f"{len(self.images)} images and {len(files)} {kind} files: add the missing one, or remove this one"
            )
        return list(files.values())


def list_scenes(storage: Storage) -> list[SRNScene]:
    """The scenes in the folders of `storage`, or the one that it holds itself, in natural order."""
    folders = storage.folders()
    if not folders:
        raise InputError(f"{storage.shown('')}: holds no scene folders; the layout is {LAYOUT}")
    if {"rgb/", "pose/"} & set(folders):
        folders = [""]
    return [SRNScene(storage, folder) for folder in folders]


def default_depths(storage: Storage) -> tuple[float, float] | None:
    """near and far, world units, from the split's `dataset.json`, else by the split's name, else None."""
    if "dataset.json" in storage.names():
        try:
            record = json.loads(storage.read("dataset.json"))
            if "near" in record or "far" in record:
                return float(record["near"]), float(record["far"])
        except (ValueError, TypeError, LookupError, RecursionError):
            raise InputError(
                f"{storage.shown('dataset.json')}: not JSON with numbers near and far; correct or remove it"
            ) from None
    return next((depths for name, depths in NEAR_FAR.items() if storage.root.name.startswith(name)), None)


def _files_by_stem(storage: Storage, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files in `folder` with one of these suffixes (lower case), by name without suffix, in natural order."""
    found: dict[str, str] = {}
    for name in storage.names(folder):
        stem, _, suffix = name.removesuffix("/").rpartition(".")
        if suffix.lower() not in suffixes:
            continue
        if name.endswith("/"):
            raise InputError(f"{storage.shown(folder + name)}: is a folder, not a file; remove it")
        if stem in found:
            other = printable(found[stem])
            raise InputError(f"{storage.shown(folder + name)}: is there twice, also as {other}; keep one")
        found[stem] = folder + name
    return {stem: found[stem] for stem in sorted(found, key=natural_key)}
