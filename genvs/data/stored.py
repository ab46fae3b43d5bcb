"""Datasets in files: what a path stands for, and which class reads it."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genvs.data import colmap, pack_scenes, srn, transforms
from genvs.data.frames import StoredScene
from genvs.data.image_files import listed, without_suffix
from genvs.data.map_style import adapted
from genvs.data.packed import Pack
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.storage import IMAGE_SUFFIXES, Storage, counted, find_storage, natural_key, open_split, printable
from genvs.data.transforms import TRANSFORMS
from genvs.errors import InputError
from genvs.modalities import BY_NAME, MODALITIES

SRN_FOLDERS = {"pose/", *(f"{name}/" for name in BY_NAME)}
NAME_ONE = "give PACKAGE.MODULE.CLASS, with its folder on PYTHONPATH"
GIVE = (
    "give a folder or .zip of scenes, or one scene: rgb/*.png, pose/*.txt and intrinsics.txt, or a transforms.json (or "
    "that file, if it has another name), or images/ and sparse/0/ as COLMAP writes them (docs/data.md; docs/tutorial.md"
    " says how to find photos' cameras)"
)
MAPPED = {"poses_bounds.npy", "database.db"}  # LLFF's and COLMAP's, which lie beside a model, or should


class NoScenesError(InputError):
    """There are no scenes at a path that exists."""


class StoredScenes(SceneDataset):
    """The scenes of one split, in a folder or a `.zip`.

    path: FOLDER/transforms*.json, for the scene in that file or, if it does not exist, those in FOLDER/*/; packs, for
    a PackedScenes; else a folder of scenes, or of one, in SRN's layout or COLMAP's. Opening a split lists names and
    examines the first scene. Other files are read when a sample uses them or, which is much faster, all at once into a
    pack.
    """

    def __new__(cls, path: str | os.PathLike[str] = "", **options) -> StoredScenes:  # copies and pickles have no path
        return super().__new__(PackedScenes if pack_scenes.are_packs(path) else cls)

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """The training split that `path` stands for (`find_train`), and the held-out ones beside it.

        Raises InputError if there is none, a scene would be left out, or what is held out is also trained on.
        """
        if pack_scenes.are_packs(path):
            return pack_scenes.find_splits(path)
        train = find_train(path)
        splits = Splits(train, *(_sibling(train, split) for split in ("val", "test")))
        for held_out in filter(None, splits[1:]):
            for folder in sorted(_folders(train) & _folders(held_out)):
                trained, kept = _images(train, folder), _images(held_out, folder)
                if shared := [name for image, name in kept.items() if image in trained]:
                    raise InputError(f"{shared[0]} is also in {printable(train.name)}, not held out; remove one")
        return splits

    def list_scenes(self, path: Path) -> Sequence[StoredScene]:
        storage, self.file = open_split(path)
        if storage is None:
            raise InputError(f"{printable(path)}: no such folder or .zip; {GIVE}")
        self.storage = storage
        if self.file:
            folders = transforms.folders_with(storage, self.file)
        else:
            srn.check_windows(storage, self.modalities)
            of_scenes = [name for name in storage.folders() if _is_scene(storage, name)]
            folders = [""] if _has_cameras(storage, "") else of_scenes
        without = [name[:-1] for name in storage.folders() if "" not in folders and name not in folders]
        if folders and without:
            lacking = self.file or "cameras"
            fault = f"{counted(len(without), 'folder')} without {lacking} left out: {listed(without)}"
            warnings.warn(f"{storage.shown('')}: {fault}; add {lacking} to those that are scenes", stacklevel=2)
        return [_opened(storage, folder, self.file) for folder in folders]

    def default_depths(self) -> tuple[float, float] | None:
        return None if self.file else srn.default_depths(self.storage)

    def pack_path(self) -> Path:
        file = f".{self.path.stem}" if self.file else ""
        return self.storage.beside(f"{file}.{self.resolution}px.pack")


def _opened(storage: Storage, folder: str, file: str) -> StoredScene:
    if file:
        return transforms.TransformsScene(storage, folder, file)
    models = colmap.find_models(storage, folder)
    return colmap.ColmapScene(storage, folder, models) if models else srn.SRNScene(storage, folder)


class PackedScenes(StoredScenes):
    """The scenes of packs, as they were when these were made. Opening it reads indices alone."""

    scenes: pack_scenes.ScenesOfPacks

    def __init__(self, path: str | os.PathLike[str], *, convention: str | None = None, **options) -> None:
        if convention not in (None, "opencv"):
            raise InputError(f"{printable(path)}: poses in packs have OpenCV's axes; leave out `convention`")
        super().__init__(path, **options)
        coded = self.scenes.settings("planes")
        if coded and coded != [self._scene_config.planes] * len(coded):
            raise InputError(f"{printable(path)}: depths are for other planes; give `near` and `far` as {coded[0]}")

    def list_scenes(self, path: Path) -> pack_scenes.ScenesOfPacks:  # type: ignore[override]
        self.normalized, self.normalize = self.normalize, False  # they are placed already
        return self._opened(path)

    def _opened(self, path: Path) -> pack_scenes.ScenesOfPacks:
        """The scenes at `resolution`, from whose packs views are taken from now on."""
        scenes = pack_scenes.open_scenes(path, self.resolution, self.modalities, self.framing, self.normalized)
        self._packs = {MODALITIES[name].index: scenes.packs(name) for name in self.modalities}
        return scenes

    def default_depths(self) -> tuple[float, float] | None:
        """The range of the packs' depth pictures; without any, of all depths that the packs state."""
        planes = self.scenes.settings("planes")
        stated = [(each["near"], each["far"]) for each in planes] or self.scenes.settings("depths")
        return (min(near for near, _ in stated), max(far for _, far in stated)) if stated else None

    def at_resolution(self, resolution: int) -> SceneDataset:
        other = copy.copy(self)
        other.resolution = resolution
        other.scenes = other._opened(self.path)
        return other

    def classes(self) -> Sequence[Any]:
        folder = copy.copy(self)
        folder.path = pack_scenes.listed(self.path)[0].parent
        return super(PackedScenes, folder).classes()

    def pack_path(self) -> None:  # type: ignore[override]
        return None

    def make_packs(self, workers: int, *, verify: bool = False) -> list[Pack]:
        """Makes none: they are the data. With `verify`, raises InputError for a damaged one."""
        for pack in self.scenes.all_packs() if verify else ():
            if not pack.is_current(verify=True):
                raise InputError(f"{printable(pack.path)}: a checksum is wrong; copy it again, or {pack_scenes.AGAIN}")
        return []


def dataset_class(name: str | None = None) -> type[SceneDataset]:
    """The user's own class that `package.module.Class` names; StoredScenes for None. Raises InputError for others.

    A class that was written for the unofficial implementation is adapted (genvs.data.map_style).
    """
    if name is None:
        return StoredScenes
    shown = f"`data_class`={printable(name)}"
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None) if module else None
    except ImportError as error:
        raise InputError(f"{shown}: {error}; {NAME_ONE}") from None
    if not isinstance(found, type):
        raise InputError(f"{shown}: no such class; {NAME_ONE}")
    if not issubclass(found, SceneDataset):
        if hasattr(found, "__getitem__") and hasattr(found, "__len__"):
            return adapted(found)
        raise InputError(f"{shown}: is not derived from genvs.data.scenes.SceneDataset; see docs/data.md")
    return found


def find_train(path: str | os.PathLike[str]) -> Path:
    """The scenes that `path` stands for: the first that fits of those in docs/data.md.

    The folder of a scene in SRN's layout stands for that scene, a folder with a single folder in it for that one. Paths
    into a `.zip` are written as if it were a folder. Raises InputError if none fits.
    """
    path = Path(path)
    if (path.parent if path.suffix == ".json" else path).name in ("", ".."):
        path = Path(os.path.realpath(path))  # splits, depths and scenes are known by the folder's name
    beside = path.parent / f"{path.name}_train"
    if path.name and find_storage(beside):
        return find_train(beside)
    if path.suffix == ".json" and find_storage(path.parent):
        return path
    storage = find_storage(path)
    if storage is None:
        raise InputError(f"{printable(path)}: no such folder or .zip; {GIVE}")
    there, folders = set(storage.names()), storage.folders()
    file = next((file for file in TRANSFORMS if file in there), None)
    if file and not {"rgb/", "pose/"} <= there:
        return path / file
    if _needs_no_transforms(storage, ""):
        return path
    trains = _training_splits(storage, folders)
    if len(trains) > 1:
        raise InputError(f"{printable(path)}: holds {' and '.join(map(printable, trains))}; name one of them")
    if trains:
        return find_train(path / trains[0])
    if any(_needs_no_transforms(storage, folder) for folder in folders):
        return path
    train, whole = (transforms.folders_with(storage, file) for file in TRANSFORMS)
    left_out = [folder for folder in whole if train and folder not in train]
    if left_out:
        shown, other = storage.shown(left_out[0]), storage.shown(train[0])
        fault = f"has no {TRANSFORMS[0]}, as {other} has, and would be left out"
        raise InputError(f"{shown}: {fault}; rename its {TRANSFORMS[1]}, or move it elsewhere")
    if train or whole:
        return path / TRANSFORMS[0 if train else 1]
    if len(folders) == 1:
        with contextlib.suppress(NoScenesError):
            return find_train(path / folders[0])
    instead = f", but {listed(sorted(there, key=natural_key))}" if there else ""
    remedy = "add the sparse/0/ that COLMAP's mapper writes" if there & MAPPED else GIVE
    for folder in folders:  # of categories, for one
        if any(_is_scene(storage, folder + name) for name in storage.names(folder) if name.endswith("/")):
            remedy = f"name {printable(folder)}, which holds some, or put those of all folders into one"
            break
    raise NoScenesError(f"{printable(path)}: holds no scenes{instead}; {remedy}")


def _training_splits(storage: Storage, folders: Sequence[str]) -> list[str]:
    """The folders that are `cars_train/`, or `train/` beside other splits alone. `toy_train/` may be a scene."""
    others = [name for name in folders if not f"_{name}".endswith(("_train/", "_val/", "_test/"))]

    def is_one_of_scenes(folder: str) -> bool:
        return _is_scene(storage, folder) and any(_is_scene(storage, name) for name in others)

    trains = (name for name in folders if name.endswith("_train/") and not is_one_of_scenes(name))
    return sorted(name[:-1] for name in (*trains, *(() if others else {"train/"} & set(folders))))


def _is_scene(storage: Storage, folder: str) -> bool:
    return not set(TRANSFORMS).isdisjoint(storage.names(folder)) or _has_cameras(storage, folder)


def _needs_no_transforms(storage: Storage, folder: str) -> bool:
    """Whether a scene is in SRN's layout or COLMAP's. A `transforms.json` comes before all but rgb/ with pose/."""
    names = set(storage.names(folder))
    if names.intersection(TRANSFORMS):
        return {"rgb/", "pose/"} <= names
    return _has_cameras(storage, folder)


def _has_cameras(storage: Storage, folder: str) -> bool:
    """Whether a folder is meant to be a scene in SRN's layout or COLMAP's."""
    return not SRN_FOLDERS.isdisjoint(storage.names(folder)) or bool(colmap.find_models(storage, folder))


def _sibling(train: Path, split: str) -> Path | None:
    """The held-out split beside a training split, if there is one."""
    folder, file = (train.parent, train.name) if train.suffix == ".json" else (train, "")
    beside = [folder / f"transforms_{split}.json"] if file == TRANSFORMS[0] else []
    while file != TRANSFORMS[0] and f"_{folder.name}".endswith("_train"):
        beside.append(folder.with_name(folder.name.removesuffix("train") + split) / file)
        folder = folder.parent  # SRN's chairs are in chairs_train/chairs_2.0_train and chairs_val
    return next((path for path in beside if _folders(path)), None)


def _folders(split: Path) -> set[str]:
    """The folders of a split's scenes: '' or 'a/'. Empty for a split that does not exist."""
    storage, file = open_split(split)
    return set() if storage is None else set(transforms.folders_with(storage, file) if file else storage.folders())


def _images(split: Path, folder: str) -> dict[object, str]:
    """Images of a scene, by what makes two of them the same, and their names in messages.

    The images in a `transforms.json` by their paths. In SRN's layout the first one by its content: names may be
    counters.
    """
    storage, file = open_split(split)
    assert storage is not None
    if file:
        shown, parent = storage.shown(folder + file), storage.root / folder
        frames = transforms.read_frames(storage, folder + file)
        return {parent / without_suffix(image): f"{shown}: '{printable(image)}'" for image in frames}
    names = (name for name in storage.names(f"{folder}rgb/") if name.lower().endswith(IMAGE_SUFFIXES))
    first = min(names, default=None)
    return {storage.read(f"{folder}rgb/{first}"): f"{storage.shown(folder)}:"} if first else {}
