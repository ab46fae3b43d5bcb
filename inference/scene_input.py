"""An inference folder as tensors, and the cameras to draw from: the folder's own, or a trajectory's.

The folder is one scene in SRN's layout (`rgb/*.png`, `pose/*.txt`, `intrinsics.txt`, or one file a view in
`intrinsics/`), with `target_pose/*.txt` beside.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genvs.data.camera_checks import warn_if_suspicious
from genvs.data.files import read_intrinsics, read_pose, read_view
from genvs.data.srn import files_by_stem, list_scene
from genvs.data.storage import FolderStorage, natural_key, printable
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.trajectories import orbit, spiral

TRAJECTORIES = ("orbit", "spiral")


@dataclass(frozen=True)
class SceneInput:
    """inputs: `[1, V]`, images uint8. target_cameras: `[1, K]`, None without target_pose/. Names: file names' stems."""

    inputs: Views
    names: list[str]
    target_cameras: Cameras | None
    target_names: list[str]


def read_scene(folder: str | os.PathLike[str], *, resolution: int, near: float, far: float) -> SceneInput:
    """Read input views and target cameras, in natural order of their names (`2` before `10`).

    resolution: side of the images, pixels. near, far: depth planes of all cameras, world units. Targets have the first
    input's intrinsics. Raises InputError for whatever is missing, damaged or does not pair; warns where the cameras
    seem to follow another convention.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{printable(folder)}: no such folder; give --in_dir one with rgb/, pose/ and intrinsics.txt")
    storage = FolderStorage(folder)
    files = list_scene(storage, folder, ".")
    images, intrinsics = [], []
    for image, of_view in zip(files.images, files.intrinsics, strict=True):
        pixels, matrix = read_view(folder / image, read_intrinsics(folder / of_view), resolution)
        images.append(pixels)
        intrinsics.append(matrix)
    c2w = np.stack([read_pose(folder / pose) for pose in files.poses])
    if len(c2w) > 1 and np.ptp(c2w, axis=0).max() == 0:
        raise InputError(f"{printable(folder / 'pose')}: all poses are the same; write each view's own")
    warn_if_suspicious(c2w, 0.0, math.inf, printable(folder / "pose"))
    cameras = _cameras(c2w, torch.from_numpy(np.stack(intrinsics)), near, far)
    target_names, target_cameras = [], None
    if "target_pose/" in storage.names():
        targets = files_by_stem(storage, folder, "target_pose", ("txt",))
        if not targets:
            raise InputError(f"{printable(folder / 'target_pose')}: holds no .txt; add the poses to draw, or remove it")
        target_names = sorted(targets, key=natural_key)
        target_c2w = np.stack([read_pose(folder / targets[name]) for name in target_names])
        target_cameras = _cameras(target_c2w, cameras.intrinsics[0, :1], near, far)
    names = [Path(image).stem for image in files.images]
    return SceneInput(Views(torch.from_numpy(np.stack(images))[None], cameras), names, target_cameras, target_names)


def trajectory_cameras(
    inputs: Cameras, trajectory: str, num_views: int, *, radius: float | None = None, elevation: float | None = None
) -> Cameras:
    """Cameras `[1, num_views]` around the origin, with the first input's intrinsics.

    inputs: `[1, V]`. trajectory: 'orbit', a full turn that starts at the first input's azimuth, or 'spiral'.
    radius: world units; by default the inputs' mean distance. The depth planes move with the cameras, so that they
    enclose what they enclose at that distance. elevation: degrees; of the orbit, by default 20, or the spiral's
    highest, by default 60. Raises InputError for a radius or an elevation that no camera can have.
    """
    distance = float(inputs.centers.norm(dim=-1).mean())
    radius = distance if radius is None else radius
    if elevation is None:
        elevation = 20.0 if trajectory == "orbit" else 60.0
    if not -90 <= elevation <= 90:
        raise InputError(f"--elevation={elevation:g}: choose degrees from -90 to 90")
    near, far = (float(plane[0, 0]) + radius - distance for plane in (inputs.near, inputs.far))
    if not 0 < far < math.inf or radius <= 0:
        raise InputError(f"--radius={radius:g}: choose a distance near that of the input cameras, {distance:.3g}")
    if trajectory == "orbit":
        x, y, _ = inputs.centers[0, 0].tolist()
        c2w = orbit(num_views, radius, math.radians(elevation), start=math.atan2(y, x))
    else:
        c2w = spiral(num_views, radius, highest=math.radians(elevation))
    return _cameras(c2w, inputs.intrinsics[0, :1], max(near, 0.01 * far), far)


def _cameras(c2w: np.ndarray | Tensor, intrinsics: Tensor, near: float, far: float) -> Cameras:
    """Cameras `[1, N]` from c2w `[N, 4, 4]` and intrinsics `[N or 1, 3, 3]`."""
    c2w = torch.as_tensor(c2w).float()
    planes = (torch.full((1, len(c2w)), plane) for plane in (near, far))
    return Cameras(c2w[None], intrinsics.float().expand(len(c2w), -1, -1)[None], *planes)
