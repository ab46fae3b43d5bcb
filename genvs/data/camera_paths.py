"""Camera paths in files: nerfstudio's, and `transforms.json`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genvs.data.camera_checks import checked_pose
from genvs.data.framing import Framing, Lens, framed
from genvs.data.storage import Storage, printable
from genvs.data.transforms import read_frames
from genvs.errors import InputError
from genvs.geometry import to_opencv


class CameraPath(NamedTuple):
    """c2w: `[N, 4, 4]`, OpenCV axes. intrinsics: `[N, 3, 3]`. Both float64. fps: frames a second, if stated."""

    c2w: Tensor
    intrinsics: Tensor
    fps: float | None = None


def read_camera_path(path: Path, framing: Framing, convention: str | None = None) -> CameraPath:
    """The cameras in a file, in its order, or for a `transforms.json` in natural order of its images.

    Those of nerfstudio's camera path keep their vertical field of view and become square; those of a `transforms.json`,
    whose images need not exist, are framed as photos are. convention: of the latter's axes, by default OpenGL. Raises
    InputError for anything that is missing or wrong.
    """
    storage, shown = Storage(path.parent), printable(path)
    record = storage.read_json(path.name)
    if isinstance(record, dict) and "camera_path" in record:
        return _nerfstudio_path(record, shown)
    if not isinstance(record, dict) or "frames" not in record:
        fault = "is neither a camera path of nerfstudio ('camera_path') nor a transforms.json ('frames')"
        raise InputError(f"{shown}: {fault}; give one of these")
    frames = read_frames(storage, path.name).values()
    lenses = [framed(frame.lens.size or (1, 1), frame.lens, framing.fit)[2] for frame in frames]
    c2w = torch.from_numpy(np.stack([frame.c2w for frame in frames]))
    return CameraPath(to_opencv(c2w, convention or "opengl"), torch.from_numpy(np.stack(lenses)))


def transforms_of(names: Sequence[str], c2w: np.ndarray, intrinsics: np.ndarray, side: int) -> dict[str, Any]:
    """The content of a `transforms.json`: cameras c2w `[N, 4, 4]`, OpenCV axes, of square images of `side` pixels.

    names: of the images, from the file's folder. intrinsics: `[N, 3, 3]`, normalised.
    """
    poses = to_opencv(torch.from_numpy(c2w), "opengl").tolist()  # the same flip leads back
    frames = []
    for name, pose, lens in zip(names, poses, side * intrinsics, strict=True):
        pixels = {"fl_x": lens[0, 0], "fl_y": lens[1, 1], "cx": lens[0, 2], "cy": lens[1, 2], "w": side, "h": side}
        frames.append({"file_path": name, "transform_matrix": pose, **{key: float(at) for key, at in pixels.items()}})
    return {"frames": frames}


def _nerfstudio_path(record: dict[str, Any], shown: str) -> CameraPath:
    """`camera_path` lists `camera_to_world` (16 numbers, row by row, OpenGL axes) and `fov` (vertical, degrees)."""
    if record.get("camera_type", "perspective") != "perspective":
        kind = printable(str(record["camera_type"]))
        raise InputError(f"{shown}: the camera type {kind} is not drawn; make it perspective")
    entries = record["camera_path"]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{shown}: its 'camera_path' lists no cameras; add some and export it again")
    poses, lenses = [], []
    for number, entry in enumerate(entries):
        place, camera = f"{shown}: camera {number}", entry if isinstance(entry, dict) else {}
        rows, angle = camera.get("camera_to_world"), camera.get("fov")
        if isinstance(rows, list) and len(rows) == 16:
            rows = [rows[start : start + 4] for start in range(0, 16, 4)]
        poses.append(checked_pose(rows, place))
        if not isinstance(angle, (int, float)) or not 0 < angle < 180:
            raise InputError(f"{place}: fov is {printable(repr(angle)[:20])}; give degrees, between 0 and 180")
        lenses.append(Lens({"camera_angle_y": math.radians(angle)}, place).intrinsics((1, 1)))
    fps = record.get("fps")
    stated = fps if isinstance(fps, (int, float)) and 1 <= fps <= 120 else None
    c2w = to_opencv(torch.from_numpy(np.stack(poses)), "opengl")
    return CameraPath(c2w, torch.from_numpy(np.stack(lenses)), stated)
