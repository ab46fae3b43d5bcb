"""An inference folder as tensors, and the cameras to draw from: the folder's own, or a trajectory's.

The folder is one scene in SRN's layout (`rgb/*.png`, `pose/*.txt`, `intrinsics.txt`, or one file a view in
`intrinsics/`), or of a `transforms_train.json` or `transforms.json`. Targets are in `target_pose/*.txt` or, for the
latter, in `transforms_test.json`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genvs.data.camera_checks import Placement, normalizing, settle_convention, warn_if_far, warn_if_inverted
from genvs.data.files import read_pose
from genvs.data.splits import TRANSFORMS
from genvs.data.srn import SRNScene, files_by_stem, list_scene
from genvs.data.storage import FolderStorage, natural_key, printable
from genvs.data.transforms import TransformsScene, frame_names, read_frames
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.geometry.trajectories import orbit, spiral

TRAJECTORIES = ("orbit", "spiral")
TARGET_FRAMES = "transforms_test.json"


@dataclass(frozen=True)
class SceneInput:
    """inputs: `[1, V]`, images uint8. target_cameras: `[1, K]`, None without targets. Names: file names' stems.

    placement: how the folder's poses were moved and scaled, if they were.
    """

    inputs: Views
    names: list[str]
    target_cameras: Cameras | None
    target_names: list[str]
    placement: Placement | None = None


def read_scene(
    folder: str | os.PathLike[str],
    *,
    resolution: int,
    near: float,
    far: float,
    convention: str | None = None,
    radius: float | None = None,
) -> SceneInput:
    """Read input views and target cameras, in natural order of their names (`2` before `10`).

    resolution: side of the images, pixels. near, far: depth planes of all cameras, world units. convention: of the
    poses, inputs and targets alike; by default settled as in `settle_convention`. radius: move and scale the scene so
    that the input cameras look at the origin from this distance; by default it stays. Targets from `target_pose/` have
    the first input's intrinsics. Raises InputError for whatever is missing, damaged or does not pair; warns where the
    cameras seem to follow another convention.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{printable(folder)}: no such folder; give --in_dir one with rgb/, pose/ and intrinsics.txt, or with "
            "transforms.json"
        )
    storage = FolderStorage(folder)
    scene = _open_scene(storage, folder)
    views = [scene.read_view(view, resolution) for view in range(len(scene.view_names))]
    images, intrinsics = (torch.from_numpy(np.stack(part)) for part in zip(*views, strict=True))
    stated_c2w = scene.all_c2w()
    convention = settle_convention(stated_c2w, convention, scene.convention, scene.shown)
    c2w = to_opencv(torch.from_numpy(stated_c2w), convention).numpy()
    warn_if_inverted(c2w, scene.shown)
    placement = normalizing(c2w, radius, scene.shown) if radius else None
    if placement is None:
        warn_if_far(c2w, scene.shown)

    def cameras(c2w: np.ndarray, intrinsics: Tensor) -> Cameras:
        return _cameras(placement.of(c2w) if placement else c2w, intrinsics, near, far)

    inputs = Views(images[None], cameras(c2w, intrinsics))
    targets = _read_targets(storage, scene, intrinsics[:1])
    if targets is None:
        return SceneInput(inputs, scene.view_names, None, [], placement)
    target_names, target_c2w, target_intrinsics = targets
    target_c2w = to_opencv(torch.from_numpy(target_c2w), convention).numpy()
    return SceneInput(inputs, scene.view_names, cameras(target_c2w, target_intrinsics), target_names, placement)


def _open_scene(storage: FolderStorage, folder: Path) -> SRNScene | TransformsScene:
    there = storage.names()
    for file in TRANSFORMS:
        if file in there and "rgb/" not in there:
            return TransformsScene(storage, folder, "", file)
    return list_scene(storage, folder, ".")


def _read_targets(
    storage: FolderStorage, scene: SRNScene | TransformsScene, first_intrinsics: Tensor
) -> tuple[list[str], np.ndarray, Tensor] | None:
    """Names, poses `[K, 4, 4]` as in the files, and intrinsics `[K or 1, 3, 3]` of the views to draw, if any."""
    there, folder = storage.names(), storage.root
    if "target_pose/" in there:
        targets = files_by_stem(storage, folder, "target_pose", ("txt",))
        if not targets:
            raise InputError(f"{printable(folder / 'target_pose')}: holds no .txt; add the poses to draw, or remove it")
        names = sorted(targets, key=natural_key)
        return names, np.stack([read_pose(folder / targets[name]) for name in names]), first_intrinsics
    if isinstance(scene, SRNScene) or TARGET_FRAMES not in there:
        return None
    frames = read_frames(storage, folder, TARGET_FRAMES)
    size = scene.image_size(0)  # the images to draw need not exist
    matrices = np.stack([frame.normalized_intrinsics(*size) for frame in frames])
    return frame_names(frames), np.stack([frame.c2w for frame in frames]), torch.from_numpy(matrices)


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
