"""What the cameras of a scene say about it: where the object is, which depths to cover, and whether they look wrong."""

from __future__ import annotations

import warnings

import numpy as np


def nearest_point_to_axes(c2w: np.ndarray) -> np.ndarray:
    """The point `[3]`, world, that is nearest (least squares) to all optical axes of c2w `[N, 4, 4]`.

    The origin where the axes do not meet: one camera, or all parallel.
    """
    centers, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    off_axis = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    normal = off_axis.sum(axis=0)
    if np.linalg.cond(normal) > 1e3:
        return np.zeros(3)
    return np.linalg.solve(normal, (off_axis @ centers[:, :, None]).sum(axis=0)[:, 0])


def depth_range(c2w: np.ndarray, intrinsics: np.ndarray) -> tuple[float, float]:
    """near and far, world units, for an object that the cameras look at from around.

    c2w: `[N, 4, 4]`. intrinsics: `[N, 3, 3]`, normalised. The object is taken to fit into the images: a ball around
    the point nearest to the optical axes, of the radius s = r sin(half the narrowest field of view) at the median
    distance r. The planes enclose it for every camera, but near stays beyond 0.05 r.
    """
    distances = np.linalg.norm(c2w[:, :3, 3] - nearest_point_to_axes(c2w), axis=1)
    radius = float(np.median(distances))
    size = radius * np.sin(np.arctan(0.5 / intrinsics[:, [0, 1], [0, 1]].max()))
    return float(max(distances.min() - size, 0.05 * radius)), float(distances.max() + size)


def warn_if_suspicious(c2w: np.ndarray, near: float, far: float, name: str) -> None:
    """Warn where poses (`[N, 4, 4]`) are valid but seem to follow another convention, or near/far miss the object."""
    facing = _facing_origin(c2w)
    if facing.max() < 0:
        warnings.warn(
            f"{name}: every camera faces away from the origin; poses must be camera-to-world with OpenCV axes "
            "(x right, y down, z forward), not OpenGL's",
            stacklevel=2,
        )
    elif np.median(facing) < 0.7 and np.median(_facing_origin(np.linalg.inv(c2w))) > 0.9:
        warnings.warn(f"{name}: the poses look like world-to-camera matrices; invert them", stacklevel=2)
    distance = float(np.median(np.linalg.norm(c2w[:, :3, 3] - nearest_point_to_axes(c2w), axis=1)))
    if not near < distance < far:
        warnings.warn(
            f"{name}: the cameras look at a point {distance:.3g} away, outside near={near:.3g} and far={far:.3g}; "
            "pass --near and --far",
            stacklevel=2,
        )


def _facing_origin(c2w: np.ndarray) -> np.ndarray:
    """Cosine `[N]` between each camera's viewing direction and the direction to the origin."""
    centers, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    return -(centers * forward).sum(axis=1) / np.linalg.norm(centers, axis=1).clip(min=1e-9)
