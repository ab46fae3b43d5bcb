"""What the cameras of a scene say about it: where the object is, which depths to cover, and whether they look wrong."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from genvs.config import CONVENTIONS
from genvs.errors import InputError
from genvs.geometry import to_opencv

MAX_TRANSLATION = 1e6  # world units; float32 is off by a sixteenth of one there
LAST_ROW = np.array([0.0, 0, 0, 1])
ROUNDING = 5e-3  # of rotations that are written with three decimals
FOCAL_RANGE = (0.05, 100.0)  # over the image's side: fields of view from 168 to 0.6 degrees
CENTER_RANGE = (-1.0, 2.0)  # a crop may lie beside its principal point
MAX_OFF_CENTER, SAME_SHARE = 0.2, 0.1  # of the width and the height
IN_FRONT = 0.9  # share of the cameras that must have the point they look at in front of them
MAX_MISS = 1 / 3  # how much of what the axes' directions differ may be noise, which makes that point look nearer
FAR_OFF = 3  # median distances from the middle of all cameras: the few that are farther away may be misplaced
FAR_AWAY = 10  # median distances from that point: a camera that is farther away was misplaced
MAX_OFFSET = 1e4  # of a scene from the origin, in distances of its cameras: float32 is off by a tenth of a pixel there


def checked_pose(rows: Any, shown: str) -> np.ndarray:
    """Camera-to-world `[4, 4]` float64. Raises InputError, naming `shown`, if it is not a rotation and a translation.

    rows: `[4, 4]`, or `[3, 4]` without the last row.
    """
    try:
        c2w = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        c2w = np.empty(0)
    if c2w.shape not in ((4, 4), (3, 4)) or not np.isfinite(c2w).all():
        raise InputError(f"{shown}: its pose is not 4x4 finite numbers; write camera-to-world, row by row")
    c2w = np.vstack([c2w, LAST_ROW])[:4]
    rotation = c2w[:3, :3]
    lengths = np.linalg.norm(rotation, axis=0)
    unit = rotation / lengths.clip(min=1e-9)
    angles = unit.T @ unit - np.eye(3)
    faults = {
        "the last row is not 0 0 0 1; write the camera-to-world matrix row by row": abs(c2w[3] - LAST_ROW) > 1e-6,
        f"the axes have lengths {_join(lengths)}, not 1; take the scale out of them": abs(lengths - 1) > ROUNDING,
        "the axes are not at right angles; write a rotation without shear": abs(angles) > ROUNDING,
        "the axes are left-handed (a mirror image); write a rotation": np.linalg.det(rotation) < 0,
    }
    for fault, holds in faults.items():
        if np.any(holds):
            raise InputError(f"{shown}: {fault}")
    return c2w


def checked_position(c2w: np.ndarray, shown: str) -> np.ndarray:
    """The pose `[4, 4]` as given. Raises InputError, naming `shown`, for a camera too far from the origin."""
    position = c2w[:3, 3]
    if abs(position).max() > MAX_TRANSLATION:
        raise InputError(
            f"{shown}: the camera is at {_join(position)}, beyond {MAX_TRANSLATION:g}; bring the scene to the origin "
            "with `normalize`, or correct this pose"
        )
    return c2w


def checked_intrinsics(intrinsics: np.ndarray, shown: str, remedy: str) -> np.ndarray:
    """Normalised intrinsics `[3, 3]`. Raises InputError, naming `shown`, for values that no real camera has."""
    focal, center = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    usable = (FOCAL_RANGE[0] <= focal) & (focal <= FOCAL_RANGE[1])
    usable &= (CENTER_RANGE[0] <= center) & (center <= CENTER_RANGE[1]) & (abs(intrinsics[0, 1]) <= 1)
    if not usable.all():  # nan is not
        raise InputError(
            f"{shown}: focal length {_join(focal)} and principal point {_join(center)}, over the image's width and "
            f"height, make no sense; {remedy}"
        )
    return intrinsics


def _join(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


class Placement(NamedTuple):
    """Moves and scales a scene: its point x goes to scale * (x - center). center: `[3]`, world."""

    center: np.ndarray
    scale: float

    def of(self, c2w: np.ndarray) -> np.ndarray:
        """The cameras c2w `[..., 4, 4]` in the moved and scaled scene."""
        placed = c2w.copy()
        placed[..., :3, 3] = self.scale * (c2w[..., :3, 3] - self.center)
        return placed

    @property
    def inverse(self) -> Placement:
        """Moves and scales back."""
        return Placement(-self.center * self.scale, 1 / self.scale)

    def __str__(self) -> str:
        move = np.round(-self.center * self.scale, 4) / self.scale + 0.0  # without rounding errors, and no -0
        return f"moved by ({_join(move)}), then scaled by {self.scale:.4g}"


def nearest_point_to_axes(c2w: np.ndarray) -> np.ndarray | None:
    """The point `[3]`, world, that is nearest (least squares) to all optical axes of c2w `[N, 4, 4]`.

    A single camera is taken to look at the origin. None where the axes do not meet in front of the cameras: they are
    parallel, or nearly so and pass each other, or the point is behind some of the cameras. Noise in nearly parallel
    directions makes them seem to meet nearer than they do, so little of it is allowed there.
    """
    if len(c2w) == 1:
        return np.zeros(3)
    centers, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    off_axis = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    normal = off_axis.sum(axis=0)
    if np.linalg.cond(normal) > 1e3:
        return None
    point = np.linalg.solve(normal, (off_axis @ centers[:, :, None]).sum(axis=0)[:, 0])
    misses = np.square(off_axis @ (centers - point)[:, :, None]).sum()
    differences = np.linalg.eigvalsh(normal)[0] * np.square(centers - point).sum(axis=1).mean()  # at the point
    meet = misses <= MAX_MISS * differences
    return point if meet and (_facing(c2w, point) > 0).mean() >= IN_FRONT else None


def normalizing(c2w: np.ndarray, radius: float, name: str) -> Placement:
    """Brings the scene of the cameras c2w `[N, 4, 4]` to the origin, and their median distance from it to `radius`.

    The scene is taken to be at the point that their optical axes pass nearest to.
    """
    center = nearest_point_to_axes(c2w)
    if center is None:
        fault, remedy = _looking_past(c2w)
        raise InputError(
            f"{name}: {fault}, so there is no point that `normalize` could move to the origin; {remedy}leave it out, "
            "and give `near` and `far`"
        )
    distance = float(np.median(_distances(c2w, center)))
    if not distance > 0:
        raise InputError(f"{name}: the cameras are all at one point, which gives no scale; correct the poses")
    return Placement(center, radius / distance)


def depth_range(c2w: np.ndarray, intrinsics: np.ndarray, name: str) -> tuple[float, float]:
    """near and far, world units, for an object that the cameras look at from around.

    c2w: `[N, 4, 4]`. intrinsics: `[..., 3, 3]`, normalised. The object is taken to fit into the images: a ball around
    the point nearest to the optical axes, of the radius s = r sin(half the narrowest field of view) at the median
    distance r. The planes enclose it for every camera, but near stays beyond 0.05 r. Raises InputError, naming `name`,
    if they look at no point.
    """
    center = nearest_point_to_axes(c2w)
    if center is None:
        warn_of_cameras(c2w, None, name)
        fault, remedy = _looking_past(c2w)
        raise InputError(f"{name}: {fault}, so nothing tells how far away the scene is; {remedy}give `near` and `far`")
    distances = _distances(c2w, center)
    radius = float(np.median(distances))
    size = radius * np.sin(np.arctan(0.5 / intrinsics[..., [0, 1], [0, 1]].max()))
    return float(max(distances.min() - size, 0.05 * radius)), float(distances.max() + size)


def _looking_past(c2w: np.ndarray) -> tuple[str, str]:
    """Why cameras `[N, 4, 4]` look at no one point, and a remedy: a few that were misplaced may be to blame."""
    away = _distances(c2w, np.median(c2w[:, :3, 3], axis=0))
    alone = away > FAR_OFF * np.median(away)
    if 0 < alone.mean() <= 1 - IN_FRONT and nearest_point_to_axes(c2w[~alone]) is not None:
        which = ", ".join(map(str, np.flatnonzero(alone)[:5]))
        return f"camera {which} (from 0 up) is far from all others", "remove its view if it was misplaced, or "
    return "its cameras do not look at one point (they may be parallel)", ""


def settle_convention(c2w: np.ndarray, stated: str | None, default: str, certain: bool, name: str) -> str:
    """The axes of a scene's poses, one of CONVENTIONS: `stated` by the user, else `default`, the usual ones.

    c2w: `[N, 4, 4]` as in the files. If every camera faces away from the scene (the point that their axes pass nearest
    to), the other axes are taken instead of the default ones, unless those are `certain`. Warns in either case. Raises
    InputError if all poses are the same.
    """
    if len(c2w) > 1 and np.ptp(c2w, axis=0).max() == 0:
        raise InputError(f"{name}: all its poses are the same; write each view's own camera-to-world matrix")
    convention = stated or default
    other = CONVENTIONS[1 - CONVENTIONS.index(convention)]
    if certain and not stated or not face_away(to_opencv(torch.from_numpy(c2w), convention).numpy()):
        return convention
    found = f"{name}: every camera faces away from the scene when its axes are taken to be {convention}'s"
    believed = f"as `convention` says; {other}'s look right"
    guessed = f"so they are taken to be {other}'s; state `convention` to decide it"
    warnings.warn(f"{found}, {believed if stated else guessed}", stacklevel=2)
    return stated or other


def face_away(c2w: np.ndarray) -> bool:
    """Whether all cameras c2w `[N, 4, 4]`, OpenCV axes, face away from the point that their axes pass nearest to, as
    those of OpenGL poses do."""
    turned = to_opencv(torch.from_numpy(c2w), "opengl").numpy()
    point = nearest_point_to_axes(turned)
    return point is not None and bool(_facing(turned, point).min() >= 0.1)


def warn_of_center(intrinsics: np.ndarray, name: str) -> None:
    """Warns if normalised intrinsics `[3, 3]` seem to be for a larger or a smaller image than theirs.

    Their principal point is then off the middle by the same share of the width and of the height.
    """
    center = intrinsics[:2, 2]
    if np.ptp(center) < SAME_SHARE and (abs(center - 0.5) > MAX_OFF_CENTER).all():
        found = f"the principal point is at {_join(center)} of the image's width and height"
        remedy = "if the intrinsics are for an image of another size, state that size beside them (w and h)"
        warnings.warn(f"{name}: {found}; {remedy}", stacklevel=2)


def warn_of_cameras(c2w: np.ndarray, planes: tuple[float, float] | None, name: str) -> None:
    """Warns if poses look inverted, if the scene is too far from the origin for float32, and if the point that the
    cameras look at is outside the depth planes.

    c2w: `[N, 4, 4]`, OpenCV axes. planes: near and far; None if they need no check.
    """
    origin, center, inverse = np.zeros(3), nearest_point_to_axes(c2w), np.linalg.inv(c2w)
    around = np.linalg.norm(inverse[:, :3, 2].mean(axis=0)) < 0.97  # they do not all look in one direction
    # Seen through the inverse, all cameras face the origin or, if the axes are the other convention's, away from it.
    if around and abs(np.median(_facing(inverse, origin))) > 0.9 and np.median(_facing(c2w, origin)) < 0.7:
        warnings.warn(f"{name}: the poses look like world-to-camera matrices; invert them", stacklevel=2)
    if center is None:
        return
    offset, distances = float(np.linalg.norm(center)), _distances(c2w, center)
    distance, farthest = float(np.median(distances)), int(distances.argmax())
    near, far = planes or (0.0, np.inf)
    found = {
        f"the cameras look at a point {offset:.3g} from the origin, from {distance:.3g} away: positions are not exact "
        "to a pixel there; bring the scene to the origin with `normalize`": offset > MAX_OFFSET * distance,
        f"camera {farthest} (from 0 up) is {distances[farthest]:.3g} from the point that the cameras look at, most are "
        f"{distance:.3g} away; remove its view if it was misplaced": distances[farthest] > FAR_AWAY * distance,
        f"the cameras look at a point {distance:.3g} away, outside near={near:.3g} and far={far:.3g}; choose `near` "
        "and `far` to enclose it": not near < distance < far,
    }
    for message, holds in found.items():
        if holds:
            warnings.warn(f"{name}: {message}", stacklevel=2)


def _distances(c2w: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Distances `[N]` of the cameras c2w `[N, 4, 4]` from a point `[3]`, world units."""
    return np.linalg.norm(c2w[:, :3, 3] - point, axis=1)


def _facing(c2w: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Cosine `[N]` between each camera's viewing direction and the direction to `point` `[3]`."""
    towards, forward = point - c2w[:, :3, 3], c2w[:, :3, 2]
    return (towards * forward).sum(axis=1) / np.linalg.norm(towards, axis=1).clip(min=1e-9)
