"""How sensors map the space before them to pictures.

A chart gives a point (u, v, w): u and v are its place in the picture, from the left and from the top, w is what the
picture loses, each in [0, 1]. A feature volume lies in the chart of its view: (D, H, W) is (w, v, u).

A camera keeps two angles and sums along the range. A side-looking radar and a forward-looking sonar keep azimuth and
range, and sum over elevation; in both the far end is on top. Their pictures reach from the near to the far plane in
range. (x, y, z) is a point in camera coordinates, L = far - near, f the focal length over the picture's width:

    pinhole   u = f x / z + 1/2    v = f y / z + 1/2    w = (z - near) / L
    slant     u = x / L + 1/2      v = (far - z) / L    w = y / L + 1/2        parallel rays along z
    fan       u = t / T + 1/2      v = (far - r) / L    w = p / T + 1/2        rays through the centre

with t = atan2(x, z), p = asin(y / r), r = |(x, y, z)| and T = 2 atan(1 / (2 f)).
"""

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

from genvs.geometry.cameras import (
    Cameras,
    apply_linear,
    camera_to_world,
    frustum_matrix,
    project,
    unproject,
    world_to_camera,
)
from genvs.geometry.rays import generate_rays, pixel_centers


class Projection(abc.ABC):
    """How a sensor sees space. keeps_range: whether v is the range, and a picture sums over elevation instead."""

    keeps_range = True

    @abc.abstractmethod
    def chart(self, points: Tensor, cameras: Cameras) -> Tensor:
        """(u, v, w) `[..., P, 3]` of world points `[..., P, 3]`. cameras: `[...]`."""

    @abc.abstractmethod
    def points(self, uvw: Tensor, cameras: Cameras) -> Tensor:
        """World points `[..., P, 3]`: the inverse of `chart`."""

    @abc.abstractmethod
    def rays(self, cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
        """Origins and directions `[..., width * width, 3]`, world, with the depth or range as ray parameter.

        A pinhole's are those of its pixels, row by row. The others': of each azimuth, from the left, `width`
        elevations, from the top.
        """

    def matrix(self, cameras: Cameras) -> Tensor:
        """As `frustum_matrix`, `[..., 4, 4]`: from world points into volumes that were resampled at `places`.

        It is the same for all that keep the range: `Slant.chart`, with a depth that is always 1.
        """
        extent, far = (cameras.far - cameras.near)[..., None], cameras.far[..., None]
        x, y, z, one = cameras.w2c.unbind(dim=-2)
        half = 0.5 * one
        return torch.stack([x / extent + half, (far * one - z) / extent, y / extent + half, one], dim=-2)

    def places(self, cameras: Cameras, size: Sequence[int]) -> Tensor | None:
        """The places (u, v, w) in this chart of the voxels of a volume in the chart of `matrix`, `[N, D, H, W, 3]`.

        cameras: `[N]`. size: (D, H, W). Returns None where both are the same chart.
        """
        return None


class Pinhole(Projection):
    keeps_range = False

    def chart(self, points: Tensor, cameras: Cameras) -> Tensor:
        uv, depth = project(points, cameras)
        near, far = cameras.near[..., None], cameras.far[..., None]
        return torch.cat([uv, ((depth - near) / (far - near))[..., None]], dim=-1)

    def points(self, uvw: Tensor, cameras: Cameras) -> Tensor:
        near, far = cameras.near[..., None], cameras.far[..., None]
        return unproject(uvw[..., :2], near + (far - near) * uvw[..., 2], cameras)

    def rays(self, cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
        origins, directions = generate_rays(cameras, width, width)
        return origins.flatten(-3, -2), directions.flatten(-3, -2)

    def matrix(self, cameras: Cameras) -> Tensor:
        return frustum_matrix(cameras)


class Slant(Projection):
    def chart(self, points: Tensor, cameras: Cameras) -> Tensor:
        x, y, z = world_to_camera(points, cameras).unbind(dim=-1)
        extent, far = (cameras.far - cameras.near)[..., None], cameras.far[..., None]
        return torch.stack([x / extent + 0.5, (far - z) / extent, y / extent + 0.5], dim=-1)

    def points(self, uvw: Tensor, cameras: Cameras) -> Tensor:
        in_camera = _slant_to_camera(cameras.near[..., None], cameras.far[..., None], *uvw.unbind(dim=-1))
        return camera_to_world(torch.stack(in_camera, dim=-1), cameras)

    def rays(self, cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
        across = (_azimuths_and_elevations(cameras, width) - 0.5) * (cameras.far - cameras.near)[..., None, None]
        in_plane = torch.cat([across, torch.zeros_like(across[..., :1])], dim=-1)
        forward = cameras.c2w[..., None, :3, 2]
        return camera_to_world(in_plane, cameras), forward.expand_as(in_plane)


class Fan(Projection):
    def chart(self, points: Tensor, cameras: Cameras) -> Tensor:
        near, far = cameras.near[..., None], cameras.far[..., None]
        in_camera = world_to_camera(points, cameras).unbind(dim=-1)
        return torch.stack(_camera_to_fan(near, far, _field_of_view(cameras), *in_camera), dim=-1)

    def points(self, uvw: Tensor, cameras: Cameras) -> Tensor:
        distance = cameras.far[..., None] - uvw[..., 1] * (cameras.far - cameras.near)[..., None]
        return camera_to_world(distance[..., None] * _directions(uvw[..., [0, 2]], cameras), cameras)

    def rays(self, cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
        directions = _directions(_azimuths_and_elevations(cameras, width), cameras)
        return cameras.centers[..., None, :].expand_as(directions), apply_linear(cameras.c2w[..., :3, :3], directions)

    def places(self, cameras: Cameras, size: Sequence[int]) -> Tensor:
        """Places for the slant chart of the same camera, because no matrix describes a fan."""
        near, far, angle = (x.reshape(-1, 1, 1, 1) for x in (cameras.near, cameras.far, _field_of_view(cameras)))
        w, v, u = ((torch.arange(n, device=near.device, dtype=near.dtype) + 0.5) / n for n in size)
        # [N, H, W, D], the order of volumes in memory. Bearings need no D: much of the work is done for a slice.
        in_camera = _slant_to_camera(near, far, u[:, None], v[:, None, None], w)
        uvw = torch.broadcast_tensors(*_camera_to_fan(near, far, angle, *in_camera))
        return torch.stack(uvw, dim=-1).permute(0, 3, 1, 2, 4)


PROJECTIONS: dict[str, Projection] = {"pinhole": Pinhole(), "slant": Slant(), "fan": Fan()}


def _slant_to_camera(near: Tensor, far: Tensor, u: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    extent = far - near
    return (u - 0.5) * extent, (w - 0.5) * extent, far - v * extent


def _camera_to_fan(
    near: Tensor, far: Tensor, angle: Tensor, x: Tensor, y: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    level = torch.hypot(x, z)
    bearing, distance, elevation = torch.atan2(x, z), torch.hypot(level, y), torch.atan2(y, level)
    return bearing / angle + 0.5, (far - distance) / (far - near), elevation / angle + 0.5


def _field_of_view(cameras: Cameras) -> Tensor:
    """The field of view `[..., 1]`, radians, the same in bearing and in elevation."""
    return 2 * torch.atan(0.5 / cameras.intrinsics[..., 0, :1])


def _directions(angles: Tensor, cameras: Cameras) -> Tensor:
    """Unit vectors in camera coordinates, from bearing and elevation as (u, w) `[..., P, 2]`."""
    bearing, elevation = ((angles - 0.5) * _field_of_view(cameras)[..., None]).unbind(dim=-1)
    cosine = elevation.cos()
    return torch.stack([cosine * bearing.sin(), elevation.sin(), cosine * bearing.cos()], dim=-1)


def _azimuths_and_elevations(cameras: Cameras, width: int) -> Tensor:
    """(u, w) `[..., width * width, 2]` of a range-keeping picture's rays."""
    centers = pixel_centers(width, width, device=cameras.device, dtype=cameras.c2w.dtype)
    return centers.transpose(0, 1).flatten(0, 1).expand(*cameras.shape, -1, -1)
