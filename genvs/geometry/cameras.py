"""Cameras, and the only place that converts between camera conventions.

OpenCV axes (+x right, +y down, +z forward). Intrinsics are normalised: row 0 by the image's width, row 1 by its height,
so that they hold at every resolution. `depth` is camera z.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound="TensorGroup")


@dataclass(frozen=True)
class TensorGroup:
    """Base of dataclasses whose members are tensors, or such groups, with the same leading dimensions."""

    def map(self: T, function: Callable[[Any], Any]) -> T:
        """Apply `function` to every member that is not None."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(member) for name, member in members.items() if member is not None})

    def __getitem__(self: T, index) -> T:
        """Index the leading dimensions."""
        return self.map(lambda member: member[index])

    def to(self: T, *args, **kwargs) -> T:
        """As `Tensor.to`, on every member; integers keep their type."""

        def moved(member: Any) -> Any:
            to = member.to(*args, **kwargs)
            return to.to(member.dtype) if isinstance(member, Tensor) and not member.is_floating_point() else to

        return self.map(moved)

    def pin_memory(self: T) -> T:
        """Copies in page-locked memory, from which `.to(device, non_blocking=True)` does not wait. Needs CUDA."""
        return self.map(lambda member: member.pin_memory())

    @classmethod
    def cat(cls: type[T], groups: Sequence[T], dim: int = 0) -> T:
        """Concatenate along a leading dimension (`dim` >= 0)."""
        return cls._joined("cat", groups, dim)

    @classmethod
    def stack(cls: type[T], groups: Sequence[T], dim: int = 0) -> T:
        """Stack along a new leading dimension (`dim` >= 0)."""
        return cls._joined("stack", groups, dim)

    @classmethod
    def _joined(cls: type[T], function: str, groups: Sequence[T], dim: int) -> T:
        def joined(members: list[Any]) -> Any:
            owner = torch if isinstance(members[0], Tensor) else type(members[0])
            return getattr(owner, function)(members, dim=dim)

        return cls(*(joined([getattr(group, field.name) for group in groups]) for field in fields(cls)))


@dataclass(frozen=True)
class Cameras(TensorGroup):
    """A batch of cameras, or of other sensors, with any leading shape.

    c2w: `[..., 4, 4]`, camera-to-world, OpenCV axes. intrinsics: `[..., 3, 3]`, normalised.
    near, far: `[...]`, depth planes in the camera frame, world units. modality: int64 `[...]`, what each is, by its
    place in `genvs.modalities.MODALITIES`; by default all take photos (0).
    """

    c2w: Tensor
    intrinsics: Tensor
    near: Tensor
    far: Tensor
    modality: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.modality is None:
            photos = torch.zeros(self.near.shape, dtype=torch.int64, device=self.near.device)
            object.__setattr__(self, "modality", photos)

    @property
    def shape(self) -> torch.Size:
        """The leading shape, `[...]`."""
        return self.near.shape

    @property
    def device(self) -> torch.device:
        return self.c2w.device

    @property
    def w2c(self) -> Tensor:
        """World-to-camera `[..., 4, 4]`; the inverse of a rigid motion, without a solver."""
        rotation = self.c2w[..., :3, :3].mT
        translation = -apply_linear(rotation, self.c2w[..., None, :3, 3])
        return torch.cat([torch.cat([rotation, translation.mT], dim=-1), self.c2w[..., 3:, :]], dim=-2)

    @property
    def centers(self) -> Tensor:
        """Optical centres `[..., 3]`, world."""
        return self.c2w[..., :3, 3]


def apply_linear(matrix: Tensor, vectors: Tensor) -> Tensor:
    """`matrix` `[..., 3, 3]` times each of `vectors` `[..., P, 3]`.

    Written out, because autocast and TF32 would round a matrix product to 8 or 10 bits, an error of a pixel.
    """
    x, y, z = vectors.split(1, dim=-1)
    column_x, column_y, column_z = matrix[..., None, :, :].unbind(dim=-1)
    return x * column_x + y * column_y + z * column_z


def world_to_camera(points: Tensor, cameras: Cameras) -> Tensor:
    """World points `[..., P, 3]` in the coordinates of cameras `[...]`."""
    w2c = cameras.w2c
    return apply_linear(w2c[..., :3, :3], points) + w2c[..., None, :3, 3]


def camera_to_world(points: Tensor, cameras: Cameras) -> Tensor:
    """The inverse of `world_to_camera`."""
    return apply_linear(cameras.c2w[..., :3, :3], points) + cameras.centers[..., None, :]


def project(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """World points to normalised image coordinates.

    points: `[..., P, 3]`, world. cameras: `[...]`, with as many leading dimensions as `points` (they broadcast).
    Returns uv `[..., P, 2]` (inside the image where 0 <= uv < 1) and depth `[..., P]` (negative behind the camera).
    """
    in_camera = world_to_camera(points, cameras)
    homogeneous = apply_linear(cameras.intrinsics, in_camera)
    depth = in_camera[..., 2]
    # A point in the plane of the camera has no image. A tiny depth puts it far outside and keeps gradients finite.
    safe_depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    return homogeneous[..., :2] / safe_depth[..., None], depth


def frustum_matrix(cameras: Cameras) -> Tensor:
    """The matrix `[..., 4, 4]` from world points (x, y, z, 1) to (u depth, v depth, w, depth).

    w is 0 at the near plane and 1 at the far plane; u, v and depth are as in `project`.
    """
    w2c = cameras.w2c[..., :3, :]
    image = apply_linear(cameras.intrinsics, w2c.mT).mT
    depth = w2c[..., 2:, :]
    near, far = cameras.near[..., None, None], cameras.far[..., None, None]
    w = torch.cat([depth[..., :3], depth[..., 3:] - near], dim=-1) / (far - near)
    return torch.cat([image[..., :2, :], w, depth], dim=-2)


def directions_through(uv: Tensor, cameras: Cameras) -> Tensor:
    """World directions `[..., P, 3]`, with camera-z 1, through uv `[..., P, 2]`."""
    homogeneous = torch.cat([uv, torch.ones_like(uv[..., :1])], dim=-1)
    # Not linalg.inv, which waits for a GPU to report errors.
    in_camera = apply_linear(torch.linalg.inv_ex(cameras.intrinsics).inverse, homogeneous)
    return apply_linear(cameras.c2w[..., :3, :3], in_camera)


def unproject(uv: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    """The inverse of `project`: uv `[..., P, 2]` at camera z `depth` `[..., P]` to world points `[..., P, 3]`."""
    return cameras.centers[..., None, :] + depth[..., None] * directions_through(uv, cameras)


def to_opencv(c2w: Tensor, convention: str) -> Tensor:
    """Camera-to-world `[..., 4, 4]` with axes of `convention`, 'opencv' or 'opengl' (+y up, -z forward), to OpenCV."""
    if convention == "opencv":
        return c2w
    return c2w * torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=c2w.dtype, device=c2w.device)
