"""Finds the image files, and their masks, that other files name."""

import itertools
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from genvs.data.storage import IMAGE_SUFFIXES, Storage, folded, natural_key, printable
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
            listed[folder] = {folded(file): stored + file for file in names} | {file: stored + file for file in names}
        stems = dict.fromkeys((folded(name), without_suffix(folded(name))))
        candidates = (name, folded(name), *(f"{stem}.{suffix}" for stem in stems for suffix in IMAGE_SUFFIXES))
        found.append(next((listed[folder][candidate] for candidate in candidates if candidate in listed[folder]), None))
    return found


def _as_stored(storage: Storage, folder: str) -> str:
    """`folder` with the names that its parts have in `storage`, where case or accents may be written otherwise."""
    path = ""
    for part in folder.split("/")[:-1]:
        there = [name for name in storage.names(path) if name.endswith("/")]
        alike = {folded(name): name for name in there} | {name: name for name in there}
        path += alike.get(f"{part}/", alike.get(folded(f"{part}/"), f"{part}/"))
    return path


def find_stated(storage: Storage, folder: str, paths: Iterable[str]) -> list[str | None]:
    """What `find_files` finds, for paths from `folder` that a scene's own files state.

    Of paths that were written on another computer or from another folder, the end that exists here is taken.
    """
    parts = [PurePosixPath(posixpath.normpath(path.replace("\\", "/").lstrip("/"))).parts for path in paths]
    for start in range(max(map(len, parts), default=0)):
        files = find_files(storage, (folder + "/".join(one[start:] or one) for one in parts))
        if any(files):
            return files
    return [None] * len(parts)


def image_folders(storage: Storage, folder: str) -> list[str]:
    """`images/`, `images_2/`, ... in a scene's folder: the largest images first."""
    return sorted(filter(re.compile(r"(?i)images(_\d+)?/").fullmatch, storage.names(folder)), key=natural_key)


def find_images(storage: Storage, folder: str, paths: Sequence[str]) -> list[str | None]:
    """What `find_stated` finds, or else smaller copies of what is stated to be in `images/`, which may come alone."""
    found = find_stated(storage, folder, paths)
    if any(found):
        return found
    for place in image_folders(storage, folder):
        copies = find_stated(storage, folder, (re.sub("(^|/)images/", rf"\1{place}", path) for path in paths))
        if any(copies):
            return copies
    return found


def check_listed_once(images: Iterable[str], shown: str) -> None:
    """Raises InputError, naming `shown`, for an image that is listed twice."""
    for image, count in Counter(images).most_common(1):
        if count > 1:
            raise InputError(f"{shown}: '{printable(image)}' is listed twice; keep one of these frames")


def without_missing(storage: Storage, folder: str, images: Sequence[str], shown: str) -> dict[str, str]:
    """The files of those `images` (paths from `folder`) that exist, by path. Warns of the others, in one line.

    Raises InputError, naming `shown`, if none is there, if one is listed twice, and if two have the same file.
    """
    check_listed_once(images, shown)
    files = dict(zip(images, find_images(storage, folder, images), strict=True))
    found = {image: file for image, file in files.items() if file is not None}
    missing = [image for image in images if image not in found]
    if not found:
        raise InputError(
            f"{shown}: none of its {len(images)} images exists ({listed(missing)}); put them into this folder"
        )
    [(file, count)] = Counter(found.values()).most_common(1)
    if count > 1:
        first, second, *_ = (printable(image) for image in found if found[image] == file)
        raise InputError(
            f"{shown}: '{first}' and '{second}' are the same file, {storage.shown(file)}; keep one of them"
        )
    if missing:
        warnings.warn(
            f"{shown}: {len(missing)} of {len(images)} images are missing, and are left out: {listed(missing)}; add "
            "them",
            stacklevel=3,
        )
    return found


def find_masks(storage: Storage, folder: str, images: Sequence[str]) -> list[str | None]:
    """The masks of `images`, names within `storage`: in `masks/` or `mask/` beside `images/`; or in `masks_4/`.

    A mask has its image's name, perhaps with another suffix, or with one more, as COLMAP's have. folder: of the scene.
    Returns an empty list if there is no such folder.
    """
    there = {name.lower(): name for name in storage.names(folder) if re.fullmatch(r"(?i)masks?(_\d+)?/", name)}
    candidates: list[list[str]] = []
    for image in images if there else ():
        top, _, rest = image.removeprefix(folder).partition("/")
        size = re.findall(r"_\d+$|$", top)[0]
        beside = filter(None, (there.get(f"{name}/") for name in (f"masks{size}", f"mask{size}", "masks", "mask")))
        candidates.append([folder + parent + name for parent in beside
                           for name in (rest, rest.rpartition(".")[0]) if name])  # fmt: skip
    found = iter(find_files(storage, itertools.chain(*candidates)))
    return [next(filter(None, [next(found) for _ in paths]), None) for paths in candidates]


def without_suffix(image: str) -> str:
    """A path without `.png` or another suffix of images."""
    stem, _, suffix = image.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else image


def view_names(images: Iterable[str], folder: str = "") -> list[str]:
    """A name for each path, usable for a file: without folder and suffix, or the path from `folder` with `_` for `/` if
    those are not unique, or the same after the path's number.
    """
    paths = [image.removeprefix(folder) for image in images]
    names = [without_suffix(PurePosixPath(path).name) for path in paths]
    joined = [path.replace("/", "_") for path in paths]
    numbered = [f"{number}_{name}" for number, name in enumerate(joined)]
    return next(choice for choice in (names, joined, numbered) if len(set(choice)) == len(choice))


def listed(names: Sequence[str]) -> str:
    """The first of these names, for messages."""
    return ", ".join(map(printable, names[:MAX_LISTED])) + (", ..." if len(names) > MAX_LISTED else "")
