"""Camera paths around the origin, world z up, whose camera x stays horizontal, at the poles too; and through views."""

import math

import torch
from torch import Tensor

from genvs.errors import InputError
from genvs.geometry.cameras import Cameras
from genvs.geometry.key_views import through

# Their names, and what shapes each of them.
TRAJECTORIES = {
    "orbit": ("radius", "elevation"),
    "spiral": ("radius", "elevation"),
    "archimedean": ("radius",),
    "line": (),
}


def spherical_c2w(azimuth: Tensor, elevation: Tensor, radius: Tensor | float) -> Tensor:
    """Cameras on a sphere that look at the origin, camera x horizontal.

    azimuth, elevation: radians, `[...]`; radius: world units, broadcastable. Returns c2w `[..., 4, 4]`, OpenCV axes.
    At the poles, the azimuth determines which way is up in the image.
    """
    azimuth, elevation = torch.broadcast_tensors(azimuth, elevation)
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    zero = torch.zeros_like(azimuth)
    right = torch.stack([-sin_a, cos_a, zero], dim=-1)
    down = torch.stack([sin_e * cos_a, sin_e * sin_a, -cos_e], dim=-1)
    forward = torch.stack([-cos_e * cos_a, -cos_e * sin_a, -sin_e], dim=-1)
    radius = torch.as_tensor(radius, dtype=azimuth.dtype, device=azimuth.device)
    center = -forward * radius[..., None]
    c2w = torch.stack([right, down, forward, center], dim=-1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=azimuth.dtype, device=azimuth.device)
    return torch.cat([c2w, bottom.expand(*azimuth.shape, 1, 4)], dim=-2)


def orbit(num_views: int, radius: float, elevation: float = math.radians(20), start: float = 0.0) -> Tensor:
    """A full horizontal turn: c2w `[num_views, 4, 4]`; elevation and start in radians, radius in world units."""
    azimuth = start + torch.arange(num_views, dtype=torch.float64) * (2 * math.pi / num_views)
    return spherical_c2w(azimuth, torch.full_like(azimuth, elevation), radius).float()


def spiral(num_views: int, radius: float, turns: float = 2.0, highest: float = math.radians(60)) -> Tensor:
    """A closed spiral from the horizon up to elevation `highest` (radians) and back: c2w `[num_views, 4, 4]`."""
    phase = torch.arange(num_views, dtype=torch.float64) / num_views
    elevation = highest * (1 - torch.cos(2 * math.pi * phase)) / 2
    return spherical_c2w(2 * math.pi * turns * phase, elevation, radius).float()


def srn_spiral(radius: float, num_views: int = 251) -> Tensor:
    """The test cameras of SRN's datasets: from the horizon to the pole, in steps of 0.08 rad azimuth.

    Returns c2w `[num_views, 4, 4]`. radius: 1.3 for cars, 2.0 for chairs. SRN's last camera, over the pole, is turned a
    quarter about its axis; this one is not.
    """
    index = torch.arange(num_views, dtype=torch.float64)
    azimuth = 0.08 * (num_views - 1 - index)
    elevation = (math.pi / 2) * index / (num_views - 1)
    return spherical_c2w(azimuth, elevation, radius).float()


def archimedean(num_views: int = 498, radius: float = 1.3, turns: float = 10.0) -> Tensor:
    """An Archimedean spiral on the sphere, from pole to pole: c2w `[num_views, 4, 4]`; radius in world units.

    The azimuth is proportional to the angle from the north pole. The defaults are those of the unofficial
    implementation's videos.
    """
    from_pole = torch.linspace(0, math.pi, num_views, dtype=torch.float64)
    return spherical_c2w(2 * turns * from_pole, math.pi / 2 - from_pole, radius).float()


def trajectory_cameras(
    inputs: Cameras, trajectory: str, num_views: int, *, radius: float | None = None, elevation: float | None = None
) -> Cameras:
    """Cameras `[1, num_views]` around the origin, with the first input's intrinsics; or along a line.

    inputs: `[1, V]`. trajectory: one of TRAJECTORIES; orbits start at the first input's azimuth, and 'line' goes
    straight from each input to the next one. radius: world units, by default the inputs' mean distance; depth planes
    move with it. elevation: degrees, of the orbit (20 by default) or of the spiral's highest point (60). Raises
    InputError for an impossible radius or elevation.
    """
    if trajectory == "line":
        inputs = inputs[:, inputs.modality[0] == inputs.modality[0, 0]]  # a scene has each view in each modality
        return placed(inputs, *through(inputs.c2w[0], inputs.intrinsics[0], num_views, smooth=False))
    distance = float(inputs.centers.norm(dim=-1).mean())
    radius = distance if radius is None else radius
    if elevation is None:
        elevation = 20.0 if trajectory == "orbit" else 60.0
    if not -90 <= elevation <= 90:
        raise InputError(f"`elevation`={elevation:g}: choose degrees from -90 to 90")
    if not 0 < radius < math.inf or float(inputs.far[0, 0]) + radius <= distance:
        raise InputError(f"`radius`={radius:g}: choose a distance near that of the input cameras, {distance:.3g}")
    if trajectory == "orbit":
        x, y, _ = inputs.centers[0, 0].tolist()
        c2w = orbit(num_views, radius, math.radians(elevation), start=math.atan2(y, x))
    elif trajectory == "spiral":
        c2w = spiral(num_views, radius, highest=math.radians(elevation))
    else:
        c2w = archimedean(num_views, radius)
    return placed(inputs, c2w, inputs.intrinsics[0, :1].expand(num_views, -1, -1))


def placed(inputs: Cameras, c2w: Tensor, intrinsics: Tensor) -> Cameras:
    """The cameras c2w `[K, 4, 4]` with intrinsics `[K, 3, 3]` as targets `[1, K]` of the inputs `[1, V]`.

    A camera that is further from the origin than the inputs are on average has depth planes that are as much further
    than the first input's. The result has the inputs' type and device. Raises InputError for one that is so close that
    nothing is left between them.
    """
    c2w, intrinsics = c2w.to(inputs.near), intrinsics.to(inputs.near)
    distances, usual = c2w[:, :3, 3].norm(dim=-1), inputs.centers.norm(dim=-1).mean()
    near, far = (plane[0, 0] + distances - usual for plane in (inputs.near, inputs.far))
    if not (far > 0).all():
        fault = f"has a camera {float(distances.min()):.3g} from the origin, and the inputs' are {float(usual):.3g}"
        raise InputError(f"`trajectory` {fault} from it: keep it further away")
    return Cameras(c2w[None], intrinsics[None], torch.maximum(near, 0.01 * far)[None], far[None])
