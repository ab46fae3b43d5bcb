"""Views and batches: images with the cameras that took them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genvs.geometry import Cameras


@dataclass(frozen=True)
class Views:
    """Images and their cameras, with any leading shape.

    images: `[..., 3, H, W]`, uint8 as loaded or float32 in [-1, 1]. cameras: `[...]`.
    """

    images: Tensor
    cameras: Cameras

    @property
    def shape(self) -> torch.Size:
        """The leading shape, `[...]`."""
        return self.images.shape[:-3]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Views:
        return Views(function(self.images), self.cameras.map(function))

    def __getitem__(self, index) -> Views:
        """Indexes the leading dimensions."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Views:
        """Moves to `device`, and makes float32 in [-1, 1] of uint8 images there, which are a quarter of the size."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return Views(moved.images.float() / 127.5 - 1, moved.cameras) if moved.images.dtype == torch.uint8 else moved

    def pin_memory(self) -> Views:
        """Copies in page-locked memory, from which `.to(device, non_blocking=True)` does not wait. Needs CUDA."""
        return self._map(Tensor.pin_memory)

    def mirrored(self) -> Views:
        """The same views of the world's mirror image in the plane x = 0.

        Images are flipped left to right. With M = diag(-1, 1, 1, 1) a camera becomes M c2w M, which is a rotation
        again, and u becomes 1 - u: a mirrored world point projects to (1 - u, v) at its old depth.
        """
        reflection = self.cameras.c2w.new_tensor([-1.0, 1.0, 1.0, 1.0])
        flip_u = self.cameras.intrinsics.new_tensor([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        cameras = Cameras(
            c2w=reflection[:, None] * self.cameras.c2w * reflection,
            intrinsics=flip_u @ self.cameras.intrinsics * reflection[:3],
            near=self.cameras.near,
            far=self.cameras.far,
        )
        return Views(self.images.flip(-1), cameras)

    @staticmethod
    def cat(views: Sequence[Views], dim: int = 0) -> Views:
        """Concatenates along a leading dimension (`dim` >= 0)."""
        return Views(torch.cat([v.images for v in views], dim=dim), Cameras.cat([v.cameras for v in views], dim=dim))

    @staticmethod
    def stack(views: Sequence[Views], dim: int = 0) -> Views:
        """Stacks along a new leading dimension (`dim` >= 0)."""
        cameras = Cameras.stack([v.cameras for v in views], dim=dim)
        return Views(torch.stack([v.images for v in views], dim=dim), cameras)


@dataclass(frozen=True)
class ViewBatch:
    """One training batch. inputs: `[B, V]`. targets: `[B, T]`. sample_index: `[B]` int64, each sample's seed.

    classes: `[B, K]` float32, of the scenes, one-hot; None for networks without classes.
    """

    inputs: Views
    targets: Views
    sample_index: Tensor
    classes: Tensor | None = None

    def _map(self, function: Callable) -> ViewBatch:
        classes = None if self.classes is None else function(self.classes)
        return ViewBatch(function(self.inputs), function(self.targets), function(self.sample_index), classes)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ViewBatch:
        """Moves every member to `device`, images as floats in [-1, 1]."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ViewBatch:
        """Called by a DataLoader with `pin_memory=True`."""
        return self._map(lambda part: part.pin_memory())
