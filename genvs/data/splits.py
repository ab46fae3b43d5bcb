"""What a path given as a dataset stands for: its splits, and which layout each has."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path

from genvs.data.map_style import adapted
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.srn import IMAGE_SUFFIXES, LAYOUT, SRNScenes
from genvs.data.storage import Storage, find_storage, printable
from genvs.data.transforms import TRANSFORMS, TransformsScenes, read_frames, transforms_folders, without_suffix
from genvs.errors import InputError

NAME_ONE = "give PACKAGE.MODULE.CLASS, with its folder on PYTHONPATH"
GIVE = f"give a folder or .zip of scenes, {LAYOUT}, or a transforms.json (docs/data.md)"


def open_splits(path: str | os.PathLike[str]) -> Splits:
    """The training split that `path` stands for (`find_train`), and the held-out ones beside it.

    Raises InputError where there is none, a scene would be left out, or what is held out is also trained on.
    """
    train = find_train(path)
    splits = Splits(train, *(_sibling(train, split) for split in ("val", "test")))
    for held_out in (splits.val, splits.test):
        if held_out and train.name == TRANSFORMS[0]:
            _refuse_shared_frames(train, held_out)
        elif held_out and train.suffix != ".json":
            _refuse_shared_scenes(train, held_out)
    return splits


def find_train(path: str | os.PathLike[str]) -> Path:
    """The scenes that `path` stands for: the first that fits of

    * a `transforms*.json`, which is taken as it is;
    * the common part of `cars_train`, `cars_val`, `cars_test`: `cars_train`;
    * the folder of a scene: itself in SRN's layout, else its `transforms_train.json` or `transforms.json`;
    * a folder with one folder `*_train`: that one;
    * a folder of scenes: itself in SRN's layout, else FOLDER/transforms_train.json or FOLDER/transforms.json, which
      stands for the files of that name in its folders;
    * a folder with one folder in it: that one.

    A `.zip` is like the folder that was packed into it, and paths into it are written as if it were one.
    Raises InputError where none fits.
    """
    path = spelled_out(Path(path))
    beside = path.parent / f"{path.name}_train"
    if path.name and find_storage(beside):
        return find_train(beside)
    if path.suffix == ".json" and find_storage(path.parent):
        return path
    storage = find_storage(path)
    if storage is None:
        what = "is neither a folder nor a .zip" if os.path.exists(path) else "no such folder or .zip"
        raise InputError(f"{printable(path)}: {what}; {GIVE}")
    there = set(storage.names())
    file = next((file for file in TRANSFORMS if file in there), None)
    if file and not {"rgb/", "pose/"} <= there:
        return path / file
    folders = sorted(name[:-1] for name in there if name.endswith("/"))
    trains = [name for name in folders if name.endswith("_train")]
    if len(trains) > 1:
        raise InputError(f"{printable(path)}: holds {' and '.join(map(printable, trains))}; name one of them")
    if trains:
        return find_train(path / trains[0])
    if {"rgb", "pose"} & set(folders) or any("rgb/" in storage.names(folder) for folder in folders):
        return path
    train, whole = (transforms_folders(storage, file) for file in TRANSFORMS)
    ignored = [folder for folder in whole if folder not in train]
    if train and ignored:
        raise InputError(
            f"{printable(path / ignored[0])}: has no {TRANSFORMS[0]}, as {printable(path / train[0])} has, and would "
            f"be left out; rename its {TRANSFORMS[1]}, or move it elsewhere"
        )
    if train or whole:
        return path / TRANSFORMS[0 if train else 1]
    if len(folders) == 1:
        return find_train(path / folders[0])
    raise InputError(f"{printable(path)}: holds no scenes; {GIVE}")


def spelled_out(path: Path) -> Path:
    """The same path, with the name of a folder that is written '.' or '..': splits, depths and scenes go by it."""
    folder, file = (path.parent, path.name) if path.suffix == ".json" else (path, "")
    return path if folder.name not in ("", "..") else Path(os.path.realpath(folder)) / file


def dataset_class(split: Path) -> type[SceneDataset]:
    """The class that reads a split, as `open_splits` gives it."""
    return TransformsScenes if split.suffix == ".json" else SRNScenes


def own_dataset_class(name: str) -> type[SceneDataset]:
    """The class of the user's own that `package.module.Class` names. Raises InputError where it cannot be one.

    A class that was written for the unofficial implementation is adapted (genvs.data.map_style).
    """
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
    if not issubclass(found, SceneDataset) and hasattr(found, "__getitem__") and hasattr(found, "__len__"):
        return adapted(found)
    if not issubclass(found, SceneDataset):
        raise InputError(f"{shown}: is not derived from genvs.data.scenes.SceneDataset; see docs/data.md")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{shown}: has no {missing}; write it (docs/data.md)")
    return found


def _sibling(train: Path, split: str) -> Path | None:
    """The held-out split beside a training split, where there is one."""
    if train.name == TRANSFORMS[0]:
        sibling = train.with_name(f"transforms_{split}.json")
        return sibling if _is_there(sibling) else None
    folder, file = (train.parent, train.name) if train.suffix == ".json" else (train, "")
    while folder.name.endswith("_train"):
        sibling = folder.with_name(folder.name.removesuffix("train") + split) / file
        if _is_there(sibling):
            return sibling
        folder = folder.parent  # SRN's chairs are in chairs_train/chairs_2.0_train and chairs_val
    return None


def _is_there(split: Path) -> bool:
    if split.suffix != ".json":
        return find_storage(split) is not None
    storage = find_storage(split.parent)
    return storage is not None and bool(transforms_folders(storage, split.name))


def _refuse_shared_frames(train: Path, held_out: Path) -> None:
    """One scene's frames may be in two splits, but not one image."""
    storage = find_storage(train.parent)
    for folder in transforms_folders(storage, held_out.name) if storage else []:
        if storage and train.name in storage.names(folder):
            first, second = (_images(storage, train.parent, folder + split.name) for split in (train, held_out))
            shared = sorted(first.keys() & second.keys())
            if shared:
                raise InputError(
                    f"{printable(held_out.parent / folder / held_out.name)}: '{printable(second[shared[0]])}' is "
                    f"also in {train.name}, and would not be held out; remove one of the two"
                )


def _images(storage: Storage, path: Path, file: str) -> dict[str, str]:
    """The images of a `transforms.json`, without suffixes, to what it calls them."""
    return {without_suffix(frame.image): frame.image for frame in read_frames(storage, path, file)}


def _refuse_shared_scenes(train: Path, held_out: Path) -> None:
    """Scenes may share a name (a counter), but not their first image too: then they are not held out."""
    storages = [storage for storage in map(find_storage, (train, held_out)) if storage]
    common = set.intersection(*(set(storage.names()) for storage in storages))
    for scene in sorted(name for name in common if name.endswith("/")):
        first, second = (_first_image(storage, scene) for storage in storages)
        if first and first == second:
            raise InputError(
                f"{printable(held_out / scene)}: is also in {printable(train)}, and would not be held out; "
                "remove one of the two"
            )


def _first_image(storage: Storage, scene: str) -> bytes | None:
    names = storage.names(f"{scene}rgb") if "rgb/" in storage.names(scene) else []
    first = min((name for name in names if name.lower().endswith(IMAGE_SUFFIXES)), default=None)
    return storage.read(f"{scene}rgb/{first}") if first else None
