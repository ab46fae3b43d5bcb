"""Camera paths through key views, in float64."""

import numpy as np
import torch
from torch import Tensor


def through(c2w: Tensor, intrinsics: Tensor, num_views: int, *, smooth: bool) -> tuple[Tensor, Tensor]:
    """`num_views` cameras from the first key view to the last one, at an even pace: c2w and intrinsics.

    c2w: `[K, 4, 4]`. intrinsics: `[K, 3, 3]`. What is returned is float64, on the CPU. With one view, it is the first
    key view. The pace is even in the distance between centres, in units of their mean distance from the origin, plus
    the angle of the turn in radians.

    Without `smooth`, centres move along straight lines, and cameras turn at constant rates (slerp). With it, rotations
    follow scipy's RotationSpline, whose rate and acceleration are continuous. The origin's place in the camera's own
    axes, rather than the centre, follows a cubic spline, so that cameras that look at the origin still do on the way
    between them.
    """
    from scipy.interpolate import CubicSpline, PchipInterpolator, make_interp_spline  # takes half a second
    from scipy.spatial.transform import Rotation, RotationSpline, Slerp

    c2w, intrinsics = c2w.double().cpu(), intrinsics.double().cpu()
    keys, lenses = c2w.numpy(), intrinsics.numpy()
    rotations, centers = Rotation.from_matrix(keys[:, :3, :3]), keys[:, :3, 3]
    unit = np.linalg.norm(centers, axis=1).mean() or 1.0
    moves = np.linalg.norm(np.diff(centers, axis=0), axis=1) / unit
    steps = moves + (rotations[:-1].inv() * rotations[1:]).magnitude() if len(keys) > 1 else moves
    moved = np.concatenate([[True], steps > 1e-6])  # splines take no key twice
    times = np.concatenate([[0.0], steps.cumsum()])[moved]
    rotations, centers, lenses = rotations[moved], centers[moved], lenses[moved]
    if len(times) == 1:
        return c2w[:1].expand(num_views, -1, -1), intrinsics[:1].expand(num_views, -1, -1)
    at = np.linspace(0, times[-1], num_views)
    path = np.tile(np.eye(4), (num_views, 1, 1))
    if smooth:
        turned = RotationSpline(times, rotations)(at)
        places = turned.apply(CubicSpline(times, rotations.inv().apply(centers))(at))
    else:
        turned, places = Slerp(times, rotations)(at), make_interp_spline(times, centers, k=1)(at)
    path[:, :3, :3], path[:, :3, 3] = turned.as_matrix(), places
    return torch.from_numpy(path), torch.from_numpy(PchipInterpolator(times, lenses)(at))
