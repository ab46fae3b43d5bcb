"""What a path given as a dataset stands for: its splits, and which layout each has."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path

from genvs.data.files import MAX_IMAGE_BYTES
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.srn import IMAGE_SUFFIXES, LAYOUT, MAKE_ONE, SRNScenes
from genvs.data.storage import Storage, find_storage, printable
from genvs.data.transforms import TransformsScenes, locate_images, read_frames, transforms_folders
from genvs.errors import InputError

TRANSFORMS = ("transforms_train.json", "transforms.json")  # the first that is there
NAME_ONE = "give PACKAGE.MODULE.CLASS, with its folder on PYTHONPATH"


def open_splits(path: str | os.PathLike[str]) -> Splits:
    """Find the splits of a dataset.

    `path` is one of: the common part of `cars_train`, `cars_val`, `cars_test`; a folder that has one `*_train` folder;
    a split itself (one named `*_train` brings its siblings, or those of a `*_train` that it is in); a scene or a folder
    of scenes with `transforms.json`, or with `transforms_train.json` (which brings `transforms_val.json` and
    `transforms_test.json`); such a `.json`; a `.zip` of any of these. Paths into a zip are written as if it were a
    folder. A split in `transforms*.json` is written FOLDER/transforms*.json, also where the scenes are in folders of
    FOLDER.

    Raises InputError where no split is found, a scene would be left out, or what is held out is also trained on.
    """
    train = _find_train(spelled_out(Path(path)))
    splits = Splits(train)
    for split in ("val", "test"):
        sibling = _sibling(train, split)
        if sibling:
            splits = splits._replace(**{split: sibling})
    return splits


def spelled_out(path: Path) -> Path:
    """The same path, with the name of a folder that is written '.' or '..': splits, depths and scenes go by it."""
    folder, file = (path.parent, path.name) if path.suffix == ".json" else (path, "")
    return path if folder.name not in ("", "..") else Path(os.path.realpath(folder)) / file


def dataset_class(split: Path) -> type[SceneDataset]:
    """The class that reads a split, as `open_splits` gives it."""
    return TransformsScenes if split.suffix == ".json" else SRNScenes


def own_dataset_class(name: str) -> type[SceneDataset]:
    """The class of the user's own that `package.module.Class` names. Raises InputError where it cannot be one."""
    shown = f"--data-class={printable(name)}"
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
        raise InputError(f"{shown}: is not derived from genvs.data.scenes.SceneDataset; see docs/data.md")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{shown}: has no {missing}; write it (docs/data.md)")
    return found


def _sibling(train: Path, split: str) -> Path | None:
    """The held-out split beside a training split, where there is one."""
    if train.name == "transforms_train.json":
        sibling = train.with_name(f"transforms_{split}.json")
        _refuse_shared_frames(train, sibling)
        return sibling if _has_transforms(sibling) else None
    folder, file = (train.parent, train.name) if train.suffix == ".json" else (train, "")
    if not folder.name.endswith("_train"):
        return None
    sibling = folder.with_name(folder.name.removesuffix("train") + split) / file
    if not (_has_transforms(sibling) if file else find_storage(sibling)):
        return _sibling(folder.parent / file, split)  # SRN's chairs are in chairs_train/chairs_2.0_train and chairs_val
    if not file:
        _refuse_shared_scenes(train, sibling)
    return sibling


def _has_transforms(path: Path) -> bool:
    storage = find_storage(path.parent)
    return storage is not None and bool(transforms_folders(storage, path.name))


def _find_train(path: Path) -> Path:
    """The folder of training scenes that `path` stands for, as described in `open_splits`."""
    if path.suffix == ".json" and find_storage(path.parent):
        return path
    beside = path.parent / f"{path.name}_train"
    if path.name and find_storage(beside):
        return _find_train(beside)
    storage = find_storage(path)
    if storage is None:
        if os.path.exists(path):
            raise InputError(f"{printable(path)}: is neither a folder nor a .zip; give one of {LAYOUT}, or {MAKE_ONE}")
        raise InputError(f"{printable(path)}: no such folder or .zip, nor {printable(beside)}; give one, or {MAKE_ONE}")
    for file in TRANSFORMS:
        if file in storage.names():
            return path / file
    folders = [name[:-1] for name in storage.names() if name.endswith("/")]
    trains = sorted(name for name in folders if name.endswith("_train"))
    if len(trains) == 1:
        return _find_train(path / trains[0])
    if trains:
        raise InputError(f"{printable(path)}: holds {' and '.join(map(printable, trains))}; name one of them")
    if "rgb" in folders:
        raise InputError(f"{printable(path)}: is a single scene; give the folder that holds the scenes")
    if any("rgb/" in storage.names(folder) for folder in folders):
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
    if path.name.endswith("_train"):
        return path  # for the dataset to say what is wrong with it
    if len(folders) == 1:  # an archive's own top folder
        return _find_train(path / folders[0])
    raise InputError(
        f"{printable(path)}: holds no scenes and no *_train folder; the layout is {LAYOUT}, or a transforms.json; "
        f"or {MAKE_ONE}"
    )


def _refuse_shared_frames(train: Path, held_out: Path) -> None:
    """One scene's frames may be in two splits, but not one image."""
    storage = find_storage(train.parent)
    for folder in transforms_folders(storage, held_out.name) if storage else []:
        if storage and train.name in storage.names(folder[:-1]):
            first, second = (_images(storage, train.parent, folder, split.name) for split in (train, held_out))
            shared = sorted(first.keys() & second.keys())
            if shared:
                raise InputError(
                    f"{printable(held_out.parent / folder / held_out.name)}: '{printable(second[shared[0]])}' is "
                    f"also in {train.name}, and would not be held out; remove one of the two"
                )


def _images(storage: Storage, path: Path, folder: str, file: str) -> dict[str, str]:
    """The image files of a `transforms.json`, or what it says where one is missing, to what it says."""
    frames = read_frames(storage, path, folder + file)
    located = locate_images(storage, folder, frames)
    return {found or folder + frame.image: frame.image for found, frame in zip(located, frames, strict=True)}


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
    return storage.read(f"{scene}rgb/{first}", MAX_IMAGE_BYTES) if first else None
