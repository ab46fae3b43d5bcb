"""Finds the image files, and their masks, that other files name."""

import itertools
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from genvs.data.storage import IMAGE_SUFFIXES, Storage, printable
from genvs.errors import InputError

MAX_LISTED = 5


def find_files(storage: Storage, paths: Iterable[str]) -> list[str | None]:
    """The image file of each path, as a name within `storage`; None for one that is missing or leads upwards.

    A suffix may be left out, or be that of another kind of image: programs that shrink or convert images change it.
    Upper and lower case, and the two ways to write an accent, make no difference.
    """
    listed: dict[str, dict[str, str]] = {}  # of each folder the files, by the names that they may be given
    found = []
    for path in paths:
        folder, name = path[: path.rfind("/") + 1], path.rpartition("/")[2]
        if folder not in listed:
            stored = "" if ".." in path.split("/") else _as_stored(storage, folder)
            names = sorted(storage.names(stored)) if stored or not folder else []
            listed[folder] = {_plain(file): stored + file for file in names} | {file: stored + file for file in names}
        stems = dict.fromkeys((_plain(name), without_suffix(_plain(name))))
        candidates = (name, _plain(name), *(f"{stem}.{suffix}" for stem in stems for suffix in IMAGE_SUFFIXES))
        found.append(next((listed[folder][candidate] for candidate in candidates if candidate in listed[folder]), None))
    return found


def _as_stored(storage: Storage, folder: str) -> str:
    """`folder` with the names that its parts have in `storage`, where case or accents may be written otherwise."""
    path = ""
    for part in folder.split("/")[:-1]:
        there = [name for name in storage.names(path) if name.endswith("/")]
        alike = {_plain(name): name for name in there} | {name: name for name in there}
        path += alike.get(f"{part}/", alike.get(_plain(f"{part}/"), f"{part}/"))
    return path


def without_missing(storage: Storage, folder: str, images: Sequence[str], shown: str) -> dict[str, str]:
    """The files of those `images` (paths from `folder`) that exist, by path. Warns of the others, in one line.

    Raises InputError, naming `shown`, if none is there.
    """
    files = dict(zip(images, find_files(storage, (folder + image for image in images)), strict=True))
    found = {image: file for image, file in files.items() if file is not None}
    missing = [image for image in images if image not in found]
    if not found:
        raise InputError(f"{shown}: none of its {len(images)} images exists ({listed(missing)}); add them")
    if missing:
        warnings.warn(
            f"{shown}: {len(missing)} of {len(images)} images are missing, and are left out: {listed(missing)}",
            stacklevel=3,
        )
    return found


def find_masks(storage: Storage, folder: str, images: Sequence[str]) -> list[str | None]:
    """The masks of `images`, names within `storage`: in `masks/`, or `masks_4/`, beside `images/`, or `images_4/`.

    A mask has its image's name, perhaps with another suffix, or with one more, as COLMAP's have. folder: of the scene.
    Returns an empty list if there is no such folder.
    """
    there = [name for name in storage.names(folder) if name.startswith("masks")]
    candidates: list[list[str]] = []
    for image in images if there else ():
        top, _, rest = image.removeprefix(folder).partition("/")
        beside = f"{top.replace('images', 'masks')}/", "masks/"
        candidates.append([folder + parent + name for parent in beside if parent in there
                           for name in (rest, rest.rpartition(".")[0]) if name])  # fmt: skip
    found = iter(find_files(storage, itertools.chain(*candidates)))
    return [next(filter(None, [next(found) for _ in paths]), None) for paths in candidates]


def without_suffix(image: str) -> str:
    """A path without `.png` or another suffix of images."""
    stem, _, suffix = image.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else image


def view_names(images: Iterable[str]) -> list[str]:
    """A name for each path: without folder and suffix, or the whole path if those names are not unique."""
    names = [without_suffix(PurePosixPath(image).name) for image in images]
    return names if len(set(names)) == len(names) else [image.replace("/", "_") for image in images]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def listed(names: Sequence[str]) -> str:
    """The first of these names, for messages."""
    return ", ".join(map(printable, names[:MAX_LISTED])) + (", ..." if len(names) > MAX_LISTED else "")
