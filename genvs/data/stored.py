"""Datasets in files: what a path stands for, and which class reads it."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from genvs.data import srn, transforms
from genvs.data.frames import StoredScene
from genvs.data.map_style import adapted
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.storage import IMAGE_SUFFIXES, Storage, find_storage, printable
from genvs.data.transforms import TRANSFORMS
from genvs.errors import InputError

NAME_ONE = "give PACKAGE.MODULE.CLASS, with its folder on PYTHONPATH"
GIVE = f"give a folder or .zip of scenes, {srn.LAYOUT}, or a transforms.json (docs/data.md)"


class StoredScenes(SceneDataset):
    """The scenes of one split, in a folder or a `.zip`.

    path: FOLDER/transforms*.json, for the scene in that file or, if it does not exist, those in FOLDER/*/; else SRN's
    layout: a folder of scenes, or of one. Opening a split lists names and examines the first scene. Other files are
    read when a sample uses them or, which is much faster, all at once into a pack.
    """

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """The training split that `path` stands for (`find_train`), and the held-out ones beside it.

        Raises InputError if there is none, a scene would be left out, or what is held out is also trained on.
        """
        train = find_train(path)
        splits = Splits(train, *(_sibling(train, split) for split in ("val", "test")))
        for held_out in (splits.val, splits.test):
            shared = _shared_frames if train.name == TRANSFORMS[0] else _shared_scenes
            for name in shared(train, held_out) if held_out else ():
                raise InputError(f"{name} is also in {printable(train.name)}, not held out; remove one of the two")
        return splits

    def list_scenes(self, path: Path) -> Sequence[StoredScene]:
        self.file = path.name if path.suffix == ".json" else ""
        storage = find_storage(path.parent if self.file else path)
        if storage is None:
            raise InputError(f"{printable(path)}: no such folder or .zip; {GIVE}")
        self.storage = storage
        return transforms.list_scenes(storage, self.file) if self.file else srn.list_scenes(storage)

    def default_depths(self) -> tuple[float, float] | None:
        return None if self.file else srn.default_depths(self.storage)

    def pack_path(self) -> Path:
        file = f".{self.path.stem}" if self.file else ""
        return self.storage.beside(f"{file}.{self.resolution}px.pack")


def dataset_class(name: str | None = None) -> type[SceneDataset]:
    """The user's own class that `package.module.Class` names; StoredScenes for None. Raises InputError for others.

    A class that was written for the unofficial implementation is adapted (genvs.data.map_style).
    """
    if name is None:
        return StoredScenes
    shown = f"`data_class`={printable(name)}"
    module, _, attribute = name.rpartition(".")
    if not module or not attribute:
        raise InputError(f"{shown}: names no module and class; {NAME_ONE}")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(f"{shown}: {error}; {NAME_ONE}") from None
    if not isinstance(found, type):
        raise InputError(f"{shown}: module {module!r} has no class {attribute!r}; {NAME_ONE}")
    if not issubclass(found, SceneDataset):
        if hasattr(found, "__getitem__") and hasattr(found, "__len__"):
            return adapted(found)
        raise InputError(f"{shown}: is not derived from genvs.data.scenes.SceneDataset; see docs/data.md")
    if inspect.isabstract(found):
        raise InputError(f"{shown}: has no {', '.join(sorted(found.__abstractmethods__))}; write it (docs/data.md)")
    return found


def find_train(path: str | os.PathLike[str]) -> Path:
    """The scenes that `path` stands for: the first of these that fits.

    * a `transforms*.json`: itself
    * the common part of `cars_train`, `cars_val`, `cars_test`: `cars_train`
    * the folder of a scene: itself in SRN's layout, else its `transforms_train.json` or `transforms.json`
    * a folder with one folder `*_train`: that one
    * a folder of scenes: itself in SRN's layout, else FOLDER/transforms_train.json or FOLDER/transforms.json, which
      stands for the files of that name in its folders
    * a folder with one folder in it: that one

    A `.zip` is like the folder that was packed into it, and paths into it are written as if it were one.
    Raises InputError if none fits.
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
        what = "is neither a folder nor a .zip" if os.path.exists(path) else "no such folder or .zip"
        raise InputError(f"{printable(path)}: {what}; {GIVE}")
    there, folders = set(storage.names()), storage.folders()
    file = next((file for file in TRANSFORMS if file in there), None)
    if file and not {"rgb/", "pose/"} <= there:
        return path / file
    trains = sorted(name[:-1] for name in folders if name.endswith("_train/"))
    if len(trains) > 1:
        raise InputError(f"{printable(path)}: holds {' and '.join(map(printable, trains))}; name one of them")
    if trains:
        return find_train(path / trains[0])
    if {"rgb/", "pose/"} & there or any("rgb/" in storage.names(folder) for folder in folders):
        return path
    train, whole = (transforms.folders_with(storage, file) for file in TRANSFORMS)
    ignored = [folder for folder in whole if folder not in train]
    if train and ignored:
        raise InputError(
            f"{storage.shown(ignored[0])}: has no {TRANSFORMS[0]}, as {storage.shown(train[0])} has, and would be left "
            f"out; rename its {TRANSFORMS[1]}, or move it elsewhere"
        )
    if train or whole:
        return path / TRANSFORMS[0 if train else 1]
    if len(folders) == 1:
        return find_train(path / folders[0])
    raise InputError(f"{printable(path)}: holds no scenes; {GIVE}")


def _sibling(train: Path, split: str) -> Path | None:
    """The held-out split beside a training split, if there is one."""
    if train.name == TRANSFORMS[0]:
        sibling = train.with_name(f"transforms_{split}.json")
        return sibling if _exists(sibling) else None
    folder, file = (train.parent, train.name) if train.suffix == ".json" else (train, "")
    while folder.name.endswith("_train"):
        sibling = folder.with_name(folder.name.removesuffix("train") + split) / file
        if _exists(sibling):
            return sibling
        folder = folder.parent  # SRN's chairs are in chairs_train/chairs_2.0_train and chairs_val
    return None


def _exists(split: Path) -> bool:
    storage = find_storage(split.parent if split.suffix == ".json" else split)
    return storage is not None and (split.suffix != ".json" or bool(transforms.folders_with(storage, split.name)))


def _shared_frames(train: Path, held_out: Path) -> Iterator[str]:
    """Images that are in both files of one scene, whose frames may be in two splits."""
    storage = find_storage(train.parent)
    for folder in transforms.folders_with(storage, held_out.name) if storage else []:
        if storage and train.name in storage.names(folder):
            trained, kept = (transforms.read_frames(storage, folder + split.name) for split in (train, held_out))
            images = set(map(transforms.without_suffix, trained))
            shared = (image for image in kept if transforms.without_suffix(image) in images)
            yield from (f"{storage.shown(folder + held_out.name)}: '{printable(image)}'" for image in shared)


def _shared_scenes(train: Path, held_out: Path) -> Iterator[str]:
    """Scenes of the same name, perhaps a counter, with the same first image."""
    first, second = find_storage(train), find_storage(held_out)
    if first is None or second is None:
        return  # they are in a transforms.json
    for scene in sorted(set(first.folders()) & set(second.folders())):
        image = _first_image(first, scene)
        if image and image == _first_image(second, scene):
            yield f"{printable(held_out / scene)}:"


def _first_image(storage: Storage, scene: str) -> bytes | None:
    names = storage.names(f"{scene}rgb/") if storage.has(f"{scene}rgb/") else []
    first = min((name for name in names if name.lower().endswith(IMAGE_SUFFIXES)), default=None)
    return storage.read(f"{scene}rgb/{first}") if first else None
