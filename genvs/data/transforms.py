"""Scenes in a `transforms.json`, as NeRF-synthetic, nerfstudio and instant-ngp write it.

`frames` lists the images (`file_path`) with their poses (`transform_matrix`: camera-to-world, OpenGL axes). Intrinsics
are in pixels (`fl_x`, `fl_y`, `cx`, `cy`, `w`, `h`) or fields of view in radians (`camera_angle_x`, `camera_angle_y`),
for all frames or for a single one, whose own values take precedence.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from genvs.data.files import Intrinsics, checked_pose, is_side, normalized_intrinsics
from genvs.data.scene import StoredScene, Targets
from genvs.data.storage import IMAGE_SUFFIXES, Storage, natural_key, printable
from genvs.errors import InputError

TRANSFORMS = ("transforms_train.json", "transforms.json")  # the first that exists is read
TARGET_FRAMES = "transforms_test.json"
CAMERA_SETTINGS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
PINHOLE_MODELS = ("PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
NEGLIGIBLE_DISTORTION = 1e-3  # a fraction of a pixel at the networks' resolutions
MAX_LISTED = 20


class Frame(NamedTuple):
    """A frame of a `transforms.json`.

    image: its path from the folder of that file, perhaps without suffix. c2w: `[4, 4]`, usually with OpenGL axes.
    settings: the intrinsics in the file, by the names of CAMERA_SETTINGS. shown: its name in messages.
    """

    image: str
    c2w: np.ndarray
    settings: dict[str, float]
    shown: str

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """In pixels. width, height: of the image, pixels, for files without `w` and `h`."""
        width, height = int(self.settings.get("w", width)), int(self.settings.get("h", height))
        focal_x, focal_y = self._focal("x", width), self._focal("y", height)
        if focal_x is None and focal_y is None:
            raise InputError(f"{self.shown}: has no focal length; add camera_angle_x (radians) or fl_x (pixels)")
        matrix = np.eye(3)
        matrix[0, 0] = focal_y if focal_x is None else focal_x  # pixels are square unless both are given
        matrix[1, 1] = focal_x if focal_y is None else focal_y
        matrix[0, 2], matrix[1, 2] = self.settings.get("cx", width / 2), self.settings.get("cy", height / 2)
        normalized_intrinsics(matrix, width, height, self.shown)  # so that messages name the frame, not the image
        return Intrinsics(matrix, width, height)

    def _focal(self, axis: str, side: int) -> float | None:
        """In pixels, for an image of `side` pixels along that axis."""
        if f"fl_{axis}" in self.settings:
            return self.settings[f"fl_{axis}"]
        angle = self.settings.get(f"camera_angle_{axis}")
        if angle is not None and not 0 < angle < math.pi:
            raise InputError(f"{self.shown}: camera_angle_{axis} is {angle:g}; give radians, between 0 and pi")
        return None if angle is None else 0.5 * side / math.tan(angle / 2)


class TransformsScene(StoredScene):
    """The frames of `file`, which is in `folder` ('' or 'a/') of `storage`, in natural order of their images.

    Raises InputError for a bad file, and one that lists all missing images.
    """

    convention = "opengl"

    def __init__(self, storage: Storage, folder: str, file: str) -> None:
        self.storage, self.folder, self.file = storage, folder, file
        self.name, self.shown = folder.rstrip("/") or storage.root.name, storage.shown(folder + file)
        self.frames = read_frames(storage, folder + file)
        self.images = _find_images(storage, folder, self.frames, self.shown)
        self.view_names = _frame_names(self.frames)
        self.other_files = [folder + file]

    def read_c2w(self, view: int) -> np.ndarray:
        return self.frames[view].c2w

    def read_intrinsics(self, view: int, width: int, height: int) -> Intrinsics:
        return self.frames[view].intrinsics(width, height)

    def read_targets(self) -> Targets | None:
        """The cameras in `transforms_test.json`, if it lies beside a file of TRANSFORMS. They need no images."""
        if self.file not in TRANSFORMS or TARGET_FRAMES not in self.storage.names(self.folder):
            return None
        frames, size = read_frames(self.storage, self.folder + TARGET_FRAMES), self.image_size(0)
        intrinsics = [normalized_intrinsics(*frame.intrinsics(*size), frame.shown) for frame in frames]
        return Targets(_frame_names(frames), np.stack([frame.c2w for frame in frames]), np.stack(intrinsics))


def folders_with(storage: Storage, file: str) -> list[str]:
    """The folders of `storage` that have `file`: [''] if it is at the top, else 'a/', ... in natural order."""
    return [""] if file in storage.names() else [name for name in storage.folders() if file in storage.names(name)]


def list_scenes(storage: Storage, file: str) -> list[TransformsScene]:
    """The scenes of all files of that name at the top of `storage` or, if there is none, in its folders."""
    folders = folders_with(storage, file)
    if not folders:
        raise InputError(f"{storage.shown(file)}: no such file, nor in the folders beside it; correct the path")
    return [TransformsScene(storage, folder, file) for folder in folders]


def read_frames(storage: Storage, file: str) -> list[Frame]:
    """The frames of a `transforms.json`, in natural order of their images' paths.

    Raises InputError for anything that is missing or wrong; warns of distorted images.
    """
    shown = storage.shown(file)
    try:
        record = json.loads(storage.read(file))
    except (ValueError, RecursionError):
        raise InputError(f"{shown}: not JSON; write it again") from None
    entries = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{shown}: has no list 'frames' with file_path and transform_matrix; write it again")
    frames = [_read_frame(record, entry, f"{shown}: frame {number}") for number, entry in enumerate(entries)]
    frames.sort(key=lambda frame: natural_key(frame.image))
    _refuse_twice([frame.image for frame in frames], shown)
    strength = max(abs(_number(entry.get(name) or 0, shown)) for entry in (record, *entries) for name in DISTORTION)
    if strength > NEGLIGIBLE_DISTORTION:
        warnings.warn(
            f"{shown}: has lens distortion (up to {strength:.2g}), which is ignored; undistort the images", stacklevel=2
        )
    return frames


def without_suffix(image: str) -> str:
    """A path without `.png` or another suffix of images."""
    stem, _, suffix = image.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else image


def _frame_names(frames: Sequence[Frame]) -> list[str]:
    """A name for each frame: its image's without folder and suffix, or its whole path where those are not unique."""
    paths = [PurePosixPath(frame.image) for frame in frames]
    names = [without_suffix(path.name) for path in paths]
    return names if len(set(names)) == len(names) else [str(path).replace("/", "_") for path in paths]


def _refuse_twice(images: Sequence[str], shown: str) -> None:
    for image, count in Counter(images).items():
        if count > 1:
            raise InputError(f"{shown}: '{printable(image)}' is there twice; keep one of these frames")


def _read_frame(record: dict[str, Any], entry: Any, shown: str) -> Frame:
    if not isinstance(entry, dict):
        raise InputError(f"{shown} is not an object with file_path and transform_matrix; write the file again")
    image = _image_path(entry.get("file_path"), shown)
    shown = f"{shown} ('{printable(image)}')"
    model = entry.get("camera_model") or record.get("camera_model") or PINHOLE_MODELS[0]
    if model not in PINHOLE_MODELS or entry.get("is_fisheye") or record.get("is_fisheye"):
        raise InputError(f"{shown} is not of a pinhole camera; undistort its image")
    return Frame(image, _read_matrix(entry.get("transform_matrix"), shown), _settings(record, entry, shown), shown)


def _image_path(written: Any, shown: str) -> str:
    """An image's path with '/', without './' in front. Raises InputError for one that leads out of the folder."""
    path = PurePosixPath(written.replace("\\", "/")) if isinstance(written, str) else PurePosixPath()
    if not path.name or not str(path).isprintable() or len(str(path)) > 1024:
        raise InputError(f"{shown} has no usable file_path; write its image's path, from the folder of this file")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise InputError(
            f"{shown}: file_path '{path}' leads out of the folder; put the images beside this file, and write their "
            "paths from there"
        )
    return str(path)


def _read_matrix(rows: Any, shown: str) -> np.ndarray:
    """`[4, 4]` from four rows of four numbers, or from three."""
    sizes = [len(row) if isinstance(row, list) else 0 for row in rows] if isinstance(rows, list) else []
    if sizes not in ([4] * 4, [4] * 3):
        raise InputError(f"{shown} has no transform_matrix of 4x4 numbers; write camera-to-world, row by row")
    matrix = np.eye(4)
    matrix[: len(rows)] = [[_number(value, shown) for value in row] for row in rows]
    return checked_pose(matrix, shown)


def _settings(record: dict[str, Any], entry: dict[str, Any], shown: str) -> dict[str, float]:
    """A frame's intrinsics: its own numbers and, for what it leaves open, those for all frames."""
    shared, own = (
        {name: _number(source[name], f"{shown}: {name}") for name in CAMERA_SETTINGS if source.get(name) is not None}
        for source in (record, entry)
    )
    for axis in "xy":
        if f"camera_angle_{axis}" in own:
            shared.pop(f"fl_{axis}", None)
    settings = shared | own
    for name in settings.keys() & {"w", "h"}:
        if not is_side(settings[name]):
            raise InputError(f"{shown}: {name} is {settings[name]:g}; give the image's side in pixels")
    return settings


def _number(value: Any, shown: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30:  # no nan, no infinity
        return float(value)
    raise InputError(f"{shown} holds {printable(repr(value)[:20])}, which is not a finite number; correct it")


def _find_images(storage: Storage, folder: str, frames: Sequence[Frame], shown: str) -> list[str]:
    """The image files of `frames`, as names within `storage`. A suffix may be left out, or be in upper case.

    Raises InputError with all that are missing, and for one that is there twice.
    """
    listed: dict[str, dict[str, str]] = {}  # the files of each folder, by name and by name with lower-case suffix
    found, missing = [], []
    for frame in frames:
        parent, slash, name = f"{folder}{frame.image}".rpartition("/")
        parent += slash
        if parent not in listed:
            files = sorted(storage.names(parent)) if storage.has(parent) else []
            listed[parent] = {_lower_suffix(file): file for file in files} | {file: file for file in files}
        candidates = [name, _lower_suffix(name), *(f"{name}.{suffix}" for suffix in IMAGE_SUFFIXES)]
        file = next((listed[parent][candidate] for candidate in candidates if candidate in listed[parent]), None)
        if file is None:
            missing.append(printable(frame.image))
        else:
            found.append(parent + file)
    if missing:
        names = ", ".join(missing[:MAX_LISTED]) + (", ..." if len(missing) > MAX_LISTED else "")
        raise InputError(
            f"{shown}: {len(missing)} of {len(frames)} frames have no image: {names}; add these files, or remove "
            "their frames"
        )
    _refuse_twice(found, shown)
    return found


def _lower_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}{dot}{suffix.lower()}" if suffix.lower() in IMAGE_SUFFIXES else name
