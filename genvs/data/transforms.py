"""Scenes in a `transforms.json`, as NeRF-synthetic, nerfstudio and instant-ngp write it.

`frames` lists the images (`file_path`) with their poses (`transform_matrix`: camera-to-world, OpenGL axes). Intrinsics
(see Lens) are stated for all frames or for single ones; a frame's own values take precedence.
"""

import contextlib
from pathlib import Path, PurePosixPath
from typing import Any

from genvs.data.camera_checks import checked_pose
from genvs.data.frames import Frame, StoredScene
from genvs.data.framing import Lens
from genvs.data.image_files import check_listed_once, find_images, view_names, without_missing
from genvs.data.storage import Storage, find_storage, natural_key, printable
from genvs.errors import InputError
from genvs.geometry.distortion import CAMERA_MODELS, COEFFICIENTS

TRANSFORMS = ("transforms_train.json", "transforms.json")  # the first that exists is read
DISTORTION_PARAMS = ("k1", "k2", "k3", "k4", "p1", "p2")  # the order of nerfstudio's `distortion_params`
TARGET_FRAMES = "transforms_test.json"
LENS_SETTINGS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y", *COEFFICIENTS)


class TransformsScene(StoredScene):
    """The frames of `file`, which is in `folder`, in natural order of their images.

    Frames whose image is missing are left out, with a warning. Raises InputError for a bad file.
    """

    convention = "opengl"

    def __init__(self, storage: Storage, folder: str, file: str) -> None:
        super().__init__(storage, folder, file)
        frames = read_frames(storage, folder + file)
        images = without_missing(storage, folder, list(frames), self.shown)
        self.images, self.frames = list(images.values()), [frames[image] for image in images]
        self.view_names, self.other_files = view_names(self.images, folder), [folder + file]
        self.find_masks([frame.mask for frame in self.frames])

    def target_frames(self) -> dict[str, Frame] | None:
        """The cameras in `transforms_test.json`, if it lies beside a file of TRANSFORMS."""
        if self.file not in TRANSFORMS or TARGET_FRAMES not in self.storage.names(self.folder):
            return None
        frames = read_frames(self.storage, self.folder + TARGET_FRAMES)
        return dict(zip(view_names(frames), frames.values(), strict=True))


def folders_with(storage: Storage, file: str) -> list[str]:
    """The folders of `storage` that have `file`: [''] if it is at the top, else 'a/', ... in natural order."""
    return [""] if file in storage.names() else [name for name in storage.folders() if file in storage.names(name)]


def states_cameras_alone(path: Path) -> bool:
    """Whether `path` is a `transforms_test.json` of which no image exists: inference draws from its cameras."""
    storage = find_storage(path.parent) if path.name == TARGET_FRAMES else None
    if storage is None:
        return False
    frames = {folder: list(read_frames(storage, folder + path.name)) for folder in folders_with(storage, path.name)}
    return not any(any(find_images(storage, folder, images)) for folder, images in frames.items())


def read_frames(storage: Storage, file: str) -> dict[str, Frame]:
    """The frames of a `transforms.json`, by their images' paths from its folder, in natural order.

    Raises InputError for anything that is missing or wrong.
    """
    shown, record = storage.shown(file), storage.read_json(file)
    entries = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{shown}: has no list 'frames' with file_path and transform_matrix; write it again")
    frames = [_read_frame(record, entry, f"{shown}: frame {number}") for number, entry in enumerate(entries)]
    check_listed_once((image for image, _ in frames), shown)
    return dict(sorted(frames, key=lambda frame: natural_key(frame[0])))


def _read_frame(record: dict[str, Any], entry: Any, shown: str) -> tuple[str, Frame]:
    """The path of a frame's image, and the frame. record: of all frames."""
    if not isinstance(entry, dict):
        raise InputError(f"{shown} is not an object with file_path and transform_matrix; write the file again")
    image = _image_path(entry.get("file_path"), shown)
    shown = f"{shown} ('{printable(image)}')"
    fisheye = "OPENCV_FISHEYE" if entry.get("is_fisheye") or record.get("is_fisheye") else "OPENCV"
    model = str(entry.get("camera_model") or record.get("camera_model") or fisheye).upper()
    model = "OPENCV" if model == "PERSPECTIVE" else model
    if not CAMERA_MODELS.get(model):
        raise InputError(f"{shown}: the camera model {printable(model)} is not supported; undistort its image")
    shared, own = (_settings(source) for source in (record, entry))
    for axis in "xy":
        if f"camera_angle_{axis}" in own:
            shared.pop(f"fl_{axis}", None)
    lens = Lens(shared | own, shown, model)
    mask = _image_path(entry["mask_path"], shown, "mask_path") if entry.get("mask_path") else None
    c2w = checked_pose(entry.get("transform_matrix_start", entry.get("transform_matrix")), shown)
    if "transform_matrix_end" in entry:  # instant-ngp's, of a moving camera
        c2w = checked_pose((c2w + checked_pose(entry["transform_matrix_end"], shown)) / 2, shown)
    return image, Frame(c2w, lens, mask)


def _settings(source: dict[str, Any]) -> dict[str, Any]:
    """A lens's settings in `source`, the file's record or a frame."""
    if isinstance(source.get("distortion_params"), list):
        source = source | dict(zip(DISTORTION_PARAMS, source["distortion_params"], strict=False))
    return {name: _number(source[name]) for name in LENS_SETTINGS if source.get(name) is not None}


def _number(value: Any) -> Any:
    """A number that is written as text, "50.0", which other programs read too; anything else as it is."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _image_path(written: Any, shown: str, name: str = "file_path") -> str:
    """An image's path with '/', without './' in front. Raises InputError for what is no path."""
    path = PurePosixPath(written.replace("\\", "/")) if isinstance(written, str) else PurePosixPath()
    if not path.name or not str(path).isprintable() or len(str(path)) > 1024:
        raise InputError(
            f"{shown}: {name} {printable(repr(written)[:80])} names no image; write its path from this folder"
        )
    return str(path)
