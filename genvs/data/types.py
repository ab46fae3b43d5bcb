"""Views and batches: images with the cameras that took them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genvs.geometry import Cameras
from genvs.geometry.cameras import TensorGroup
from genvs.modalities import to_levels


@dataclass(frozen=True)
class Views(TensorGroup):
    """Pictures and the cameras or other sensors that took them, with any leading shape.

    images: `[..., 3, H, W]`, uint8 as loaded or float32 in [-1, 1]; gray ones have equal channels. cameras: `[...]`.
    """

    images: Tensor
    cameras: Cameras

    @property
    def shape(self) -> torch.Size:
        """The leading shape, `[...]`."""
        return self.images.shape[:-3]

    @property
    def modality(self) -> Tensor:
        """What each picture is, int64 `[...]` (genvs.modalities)."""
        return self.cameras.modality

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Views:
        """Moves to `device`, and makes float32 in [-1, 1] of uint8 images there, which are a quarter of the size."""
        moved = super().to(device, non_blocking=non_blocking)
        return Views(to_levels(moved.images.float()), moved.cameras) if moved.images.dtype == torch.uint8 else moved

    def mirrored(self) -> Views:
        """The same views of the world's mirror image in the plane x = 0.

        Images are flipped left to right. With M = diag(-1, 1, 1, 1) a camera becomes M c2w M, which is a rotation
        again, and u becomes 1 - u: a mirrored world point projects to (1 - u, v) at its old depth.
        """
        reflection = self.cameras.c2w.new_tensor([-1.0, 1.0, 1.0, 1.0])
        flip_u = self.cameras.intrinsics.new_tensor([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        c2w = reflection[:, None] * self.cameras.c2w * reflection
        cameras = replace(self.cameras, c2w=c2w, intrinsics=flip_u @ self.cameras.intrinsics * reflection[:3])
        return Views(self.images.flip(-1), cameras)


@dataclass(frozen=True)
class ViewBatch(TensorGroup):
    """One training batch. inputs: `[B, V]`. targets: `[B, T]`. sample_index: `[B]` int64, each sample's seed.

    classes: `[B, K]` float32, of the scenes, one-hot; None for networks without classes.
    """

    inputs: Views
    targets: Views
    sample_index: Tensor
    classes: Tensor | None = None
