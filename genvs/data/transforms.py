"""Scenes in a `transforms.json`, as NeRF-synthetic, nerfstudio and instant-ngp write it.

`frames` lists the images (`file_path`) with their poses (`transform_matrix`: camera-to-world, OpenGL axes). Intrinsics
(see Lens) are stated for all frames or for a single one, whose own values take precedence.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from genvs.data.camera_checks import checked_pose
from genvs.data.frames import Frame, Lens, StoredScene
from genvs.data.storage import IMAGE_SUFFIXES, Storage, natural_key, printable
from genvs.errors import InputError

TRANSFORMS = ("transforms_train.json", "transforms.json")  # the first that exists is read
TARGET_FRAMES = "transforms_test.json"
PINHOLE_MODELS = ("PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
LENS_SETTINGS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y", *DISTORTION)
NEGLIGIBLE_DISTORTION = 1e-3  # a fraction of a pixel at the networks' resolutions
MAX_LISTED = 20


class TransformsScene(StoredScene):
    """The frames of `file`, which is in `folder`, in natural order of their images.

    Raises InputError for a bad file, and one that lists all missing images.
    """

    convention = "opengl"

    def __init__(self, storage: Storage, folder: str, file: str) -> None:
        super().__init__(storage, folder, file)
        frames = read_frames(storage, folder + file)
        self.view_names, self.frames = _names(frames), list(frames.values())
        self.images, self.other_files = _find_images(storage, folder, frames, self.shown), [folder + file]

    def target_frames(self) -> dict[str, Frame] | None:
        """The cameras in `transforms_test.json`, if it lies beside a file of TRANSFORMS."""
        if self.file not in TRANSFORMS or TARGET_FRAMES not in self.storage.names(self.folder):
            return None
        frames = read_frames(self.storage, self.folder + TARGET_FRAMES)
        return dict(zip(_names(frames), frames.values(), strict=True))


def folders_with(storage: Storage, file: str) -> list[str]:
    """The folders of `storage` that have `file`: [''] if it is at the top, else 'a/', ... in natural order."""
    return [""] if file in storage.names() else [name for name in storage.folders() if file in storage.names(name)]


def read_frames(storage: Storage, file: str) -> dict[str, Frame]:
    """The frames of a `transforms.json`, by their images' paths from its folder, in natural order.

    Raises InputError for anything that is missing or wrong; warns of distorted images.
    """
    shown, record = storage.shown(file), storage.read_json(file)
    entries = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{shown}: has no list 'frames' with file_path and transform_matrix; write it again")
    frames = [_read_frame(record, entry, f"{shown}: frame {number}") for number, entry in enumerate(entries)]
    [(image, count)] = Counter(without_suffix(image) for image, _ in frames).most_common(1)
    if count > 1:
        raise InputError(f"{shown}: '{printable(image)}' is there twice; keep one of these frames")
    strength = max(abs(frame.lens.settings.get(name, 0)) for _, frame in frames for name in DISTORTION)
    if strength > NEGLIGIBLE_DISTORTION:
        warnings.warn(
            f"{shown}: has lens distortion (up to {strength:.2g}), which is ignored; undistort the images", stacklevel=2
        )
    return dict(sorted(frames, key=lambda frame: natural_key(frame[0])))


def without_suffix(image: str) -> str:
    """A path without `.png` or another suffix of images."""
    stem, _, suffix = image.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else image


def _names(images: Iterable[str]) -> list[str]:
    """A name for each path: without folder and suffix, or all of it where those are not unique."""
    names = [without_suffix(PurePosixPath(image).name) for image in images]
    return names if len(set(names)) == len(names) else [image.replace("/", "_") for image in images]


def _read_frame(record: dict[str, Any], entry: Any, shown: str) -> tuple[str, Frame]:
    """The path of a frame's image, and the frame. record: of all frames."""
    if not isinstance(entry, dict):
        raise InputError(f"{shown} is not an object with file_path and transform_matrix; write the file again")
    image = _image_path(entry.get("file_path"), shown)
    shown = f"{shown} ('{printable(image)}')"
    model = entry.get("camera_model") or record.get("camera_model") or PINHOLE_MODELS[0]
    if model not in PINHOLE_MODELS or entry.get("is_fisheye") or record.get("is_fisheye"):
        raise InputError(f"{shown} is not of a pinhole camera; undistort its image")
    shared, own = (
        {name: source[name] for name in LENS_SETTINGS if source.get(name) is not None} for source in (record, entry)
    )
    for axis in "xy":
        if f"camera_angle_{axis}" in own:
            shared.pop(f"fl_{axis}", None)
    return image, Frame(checked_pose(entry.get("transform_matrix"), shown), Lens(shared | own, shown))


def _image_path(written: Any, shown: str) -> str:
    """An image's path with '/', without './' in front. Raises InputError for one that leads out of the folder."""
    path = PurePosixPath(written.replace("\\", "/")) if isinstance(written, str) else PurePosixPath()
    usable = path.name and str(path).isprintable() and len(str(path)) <= 1024
    if not usable or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise InputError(
            f"{shown}: file_path {printable(repr(written)[:80])} names no image in this folder; put the images beside "
            "this file, and write their paths from there"
        )
    return str(path)


def _find_images(storage: Storage, folder: str, images: Iterable[str], shown: str) -> list[str]:
    """The files of `images`, as names within `storage`. A suffix may be left out; case makes no difference.

    Raises InputError with all that are missing.
    """

    @functools.cache
    def files_in(parent: str) -> dict[str, str]:
        names = sorted(storage.names(parent))
        return {name.lower(): name for name in names} | {name: name for name in names}

    found, missing = [], []
    for image in images:
        parent, slash, name = f"{folder}{image}".rpartition("/")
        files = files_in(parent + slash)
        candidates = (name, name.lower(), *(f"{name.lower()}.{suffix}" for suffix in IMAGE_SUFFIXES))
        file = next((files[candidate] for candidate in candidates if candidate in files), None)
        if file is None:
            missing.append(printable(image))
        else:
            found.append(parent + slash + file)
    if missing:
        names = ", ".join(missing[:MAX_LISTED]) + (", ..." if len(missing) > MAX_LISTED else "")
        raise InputError(
            f"{shown}: {len(missing)} of {len(missing) + len(found)} frames have no image: {names}; add these files, "
            "or remove their frames"
        )
    return found
