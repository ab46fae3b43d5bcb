"""Scenes in a `transforms.json`, as NeRF-synthetic, nerfstudio and instant-ngp write it, in a folder or a `.zip`.

`frames` lists the images (`file_path`) with their poses (`transform_matrix`: camera-to-world, OpenGL axes). Intrinsics
are in pixels (`fl_x`, `fl_y`, `cx`, `cy`, `w`, `h`) or fields of view in radians (`camera_angle_x`, `camera_angle_y`),
stated for all frames or with a frame, which goes first.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from genvs.data.files import MIN_SIDE, Intrinsics, checked_pose, normalized_intrinsics
from genvs.data.labels import read_classes
from genvs.data.scene import StoredScene, Targets
from genvs.data.scenes import SceneDataset
from genvs.data.srn import IMAGE_SUFFIXES
from genvs.data.storage import Storage, find_storage, natural_key, printable
from genvs.errors import InputError

TRANSFORMS = ("transforms_train.json", "transforms.json")  # the first that is there
TARGET_FRAMES = "transforms_test.json"
CAMERA_SETTINGS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
PINHOLE_MODELS = ("PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
NEGLIGIBLE_DISTORTION = 1e-3  # a fraction of a pixel at the sizes that networks see
MAX_LISTED = 20


class Frame(NamedTuple):
    """A frame of a `transforms.json`.

    image: its path from the folder of that file, perhaps without suffix. c2w: `[4, 4]`, OpenGL axes as a rule.
    settings: what is stated of its intrinsics, by the names of CAMERA_SETTINGS. shown: how messages name it.
    """

    image: str
    c2w: np.ndarray
    settings: dict[str, float]
    shown: str

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """In pixels, for the size that is stated, else for this one. Raises InputError for what no camera has."""
        width, height = int(self.settings.get("w", width)), int(self.settings.get("h", height))
        focal_x, focal_y = self._focal("x", width), self._focal("y", height)
        if focal_x is None and focal_y is None:
            raise InputError(f"{self.shown}: has no focal length; add camera_angle_x (radians) or fl_x (pixels)")
        matrix = np.eye(3)
        matrix[0, 0] = focal_y if focal_x is None else focal_x  # pixels are square unless both are stated
        matrix[1, 1] = focal_x if focal_y is None else focal_y
        matrix[0, 2], matrix[1, 2] = self.settings.get("cx", width / 2), self.settings.get("cy", height / 2)
        normalized_intrinsics(matrix, width, height, self.shown)  # refused by the name of the frame, not of the image
        return Intrinsics(matrix, width, height)

    def normalized_intrinsics(self, width: int, height: int) -> np.ndarray:
        """`[3, 3]`, for the size in pixels that is stated, else for this one."""
        matrix, of_width, of_height = self.intrinsics(width, height)
        return normalized_intrinsics(matrix, of_width or width, of_height or height, self.shown)

    def _focal(self, axis: str, side: int) -> float | None:
        """In pixels, for an image of `side` pixels along that axis."""
        if f"fl_{axis}" in self.settings:
            return self.settings[f"fl_{axis}"]
        angle = self.settings.get(f"camera_angle_{axis}")
        if angle is not None and not 0 < angle < math.pi:
            raise InputError(f"{self.shown}: camera_angle_{axis} is {angle:g}; give radians, between 0 and pi")
        return None if angle is None else 0.5 * side / math.tan(angle / 2)


class TransformsScene(StoredScene):
    """The frames of `file`, in natural order of their images; `folder` of `storage` ('' or 'a/') holds it.

    path: of `storage`. Raises InputError for what is wrong with the file, and one for all images that are missing.
    """

    convention = "opengl"

    def __init__(self, storage: Storage, path: Path, folder: str, file: str) -> None:
        self.storage, self.path, self.folder, self.file = storage, path, folder, file
        self.name, self.shown = folder.rstrip("/") or path.name, printable(path / folder / file)
        self.frames = read_frames(storage, path, folder + file)
        self.images = _find_images(storage, folder, self.frames, self.shown)
        self.view_names = frame_names(self.frames)

    def read_c2w(self, view: int) -> np.ndarray:
        return self.frames[view].c2w

    def read_intrinsics(self, view: int, width: int, height: int) -> Intrinsics:
        return self.frames[view].intrinsics(width, height)

    def read_targets(self) -> Targets | None:
        """The cameras in `transforms_test.json`, beside a file of TRANSFORMS. Their images need not exist."""
        if self.file not in TRANSFORMS or TARGET_FRAMES not in self.storage.names(self.folder):
            return None
        frames = read_frames(self.storage, self.path, self.folder + TARGET_FRAMES)
        size = self.image_size(0)
        intrinsics = np.stack([frame.normalized_intrinsics(*size) for frame in frames])
        return Targets(frame_names(frames), np.stack([frame.c2w for frame in frames]), intrinsics)

    def file_states(self) -> Iterable[tuple]:
        for name in (self.folder + self.file, *self.images):
            yield name, *self.storage.state(name)


class TransformsScenes(SceneDataset):
    """A split. path: FOLDER/transforms*.json, for the scene in that file or, where FOLDER has none, FOLDER/*/ have."""

    def list_scenes(self, path: Path) -> list[TransformsScene]:
        storage = find_storage(path.parent)
        folders = transforms_folders(storage, path.name) if storage else []
        if not storage or not folders:
            raise InputError(f"{printable(path)}: no such file, nor in the folders beside it; correct the path")
        self.storage: Storage = storage
        return [TransformsScene(storage, path.parent, folder, path.name) for folder in folders]

    def classes(self) -> list[int]:
        return read_classes(self.path.parent, self.scene_names)

    def pack_path(self) -> Path:
        return self.storage.beside(f".{self.path.stem}.{self.resolution}px.pack")


def transforms_folders(storage: Storage, file: str) -> list[str]:
    """Where in `storage` `file` is: [''] for at its top, else the folders ('a/', in natural order) that have it."""
    names = storage.names()
    if file in names:
        return [""]
    folders = sorted((name for name in names if name.endswith("/")), key=natural_key)
    return [folder for folder in folders if file in storage.names(folder[:-1])]


def read_frames(storage: Storage, path: Path, file: str) -> list[Frame]:
    """The frames of a `transforms.json`, in natural order of their images' paths. path: of `storage`.

    Raises InputError for a file that is not what it should be; warns where images are distorted.
    """
    shown = printable(path / file)
    try:
        record = json.loads(storage.read(file))
    except (ValueError, RecursionError):
        raise InputError(f"{shown}: not JSON; write it again") from None
    entries = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{shown}: has no list 'frames' with file_path and transform_matrix; write it again")
    frames = [_read_frame(record, entry, f"{shown}: frame {number}") for number, entry in enumerate(entries)]
    frames.sort(key=lambda frame: natural_key(frame.image))
    for first, second in zip(frames, frames[1:], strict=False):
        if first.image == second.image:
            raise InputError(f"{shown}: '{printable(first.image)}' is there twice; keep one of these frames")
    strength = max(abs(_number(entry.get(name) or 0, shown)) for entry in (record, *entries) for name in DISTORTION)
    if strength > NEGLIGIBLE_DISTORTION:
        warnings.warn(
            f"{shown}: states lens distortion (up to {strength:.2g}), which is ignored; undistort the images",
            stacklevel=2,
        )
    return frames


def frame_names(frames: Sequence[Frame]) -> list[str]:
    """A name for each frame, fit for a file: its image's without folder and suffix, or with both if need be."""
    paths = [PurePosixPath(frame.image) for frame in frames]
    names = [without_suffix(path.name) for path in paths]
    return names if len(set(names)) == len(names) else [str(path).replace("/", "_") for path in paths]


def without_suffix(image: str) -> str:
    """A path without `.png` or another suffix of images."""
    stem, _, suffix = image.rpartition(".")
    return stem if suffix.lower() in IMAGE_SUFFIXES else image


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
    size = [len(row) if isinstance(row, list) else 0 for row in rows] if isinstance(rows, list) else []
    if size not in ([4] * 4, [4] * 3):
        raise InputError(f"{shown} has no transform_matrix of 4x4 numbers; write camera-to-world, row by row")
    matrix = np.eye(4)
    matrix[: len(rows)] = [[_number(value, shown) for value in row] for row in rows]
    return checked_pose(matrix, shown)


def _settings(record: dict[str, Any], entry: dict[str, Any], shown: str) -> dict[str, float]:
    """What is stated of a frame's intrinsics: its own numbers, and those for all that its own leave open."""
    common, own = (
        {name: _number(source[name], f"{shown}: {name}") for name in CAMERA_SETTINGS if source.get(name) is not None}
        for source in (record, entry)
    )
    for axis in "xy":
        if own.keys() & {f"fl_{axis}", f"camera_angle_{axis}"}:
            common.pop(f"fl_{axis}", None)
    settings = common | own
    for name in settings.keys() & {"w", "h"}:
        if not (settings[name] == int(settings[name]) and MIN_SIDE <= settings[name] <= 65536):
            raise InputError(f"{shown}: {name} is {settings[name]:g}; give the image's side in pixels")
    return settings


def _number(value: Any, shown: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30:  # no nan, no infinity
        return float(value)
    raise InputError(f"{shown} holds {printable(repr(value)[:20])}, which is not a finite number; correct it")


def _find_images(storage: Storage, folder: str, frames: Sequence[Frame], shown: str) -> list[str]:
    """The image files of `frames`, as paths within `storage`. A suffix may be left out, and be in upper case.

    Raises InputError with all that are missing, and for one that is there twice.
    """
    there: dict[str, dict[str, str]] = {}
    found, missing = [], []
    for frame in frames:
        parent, slash, name = f"{folder}{frame.image}".rpartition("/")
        if parent not in there:
            names = sorted(_names(storage, parent))
            there[parent] = {_lower_suffix(file): file for file in names} | {file: file for file in names}
        candidates = [name, _lower_suffix(name), *(f"{name}.{suffix}" for suffix in IMAGE_SUFFIXES)]
        file = next((there[parent][candidate] for candidate in candidates if candidate in there[parent]), None)
        if file is None:
            missing.append(printable(frame.image))
        else:
            found.append(parent + slash + file)
    if missing:
        listed = ", ".join(missing[:MAX_LISTED]) + (", ..." if len(missing) > MAX_LISTED else "")
        raise InputError(
            f"{shown}: {len(missing)} of {len(frames)} frames have no image: {listed}; add these files, or remove "
            "their frames"
        )
    twice = next((file for file, count in Counter(found).items() if count > 1), None)
    if twice:
        raise InputError(f"{shown}: '{printable(twice)}' is there twice; keep one of these frames")
    return found


def _lower_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}{dot}{suffix.lower()}" if suffix.lower() in IMAGE_SUFFIXES else name


def _names(storage: Storage, folder: str) -> set[str]:
    try:
        return set(storage.names(folder))
    except InputError:
        return set()  # no such folder: its images are missing, as the caller says
