"""How well depth pictures agree: distances where both have a return, and where they have one."""

from torch import Tensor

from genvs.geometry import Cameras
from genvs.metrics.consistency import overlap, silhouettes
from genvs.modalities import depth_decoded, from_levels, to_levels

NOTHING = (to_levels(0.0),) * 3


def depth_agreement(images: Tensor, targets: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The mean absolute error in world units over the pixels where both have a return, and the returns' intersection
    over union, `[...]` each. Without a common pixel the error is far - near; without any return the union is 1.

    images, targets: depth pictures `[..., 3, H, W]` in [-1, 1]. cameras: `[...]`.
    """
    near, far = (plane[..., None, None] for plane in (cameras.near, cameras.far))
    ours, theirs = (silhouettes(pictures, NOTHING) for pictures in (images, targets))
    depth, expected = (depth_decoded(from_levels(pictures.mean(dim=-3)), near, far) for pictures in (images, targets))
    both = (ours & theirs).sum(dim=(-2, -1))
    error = ((depth - expected).abs() * (ours & theirs)).sum(dim=(-2, -1)) / both.clamp_min(1)
    return error.where(both > 0, cameras.far - cameras.near), overlap(ours, theirs)
