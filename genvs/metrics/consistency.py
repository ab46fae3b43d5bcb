"""Silhouettes: whether views can be of one object, and how well depth pictures agree."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.geometry import Cameras, generate_rays, project, stratified_depths
from genvs.modalities import ON_WHITE, depth_decoded, from_levels, to_levels

SILHOUETTE_THRESHOLD = 0.03  # of the range from black to white: what differs more from the background is the object
NOTHING = (to_levels(0.0),) * 3  # the background of depth pictures


def from_background(images: Tensor, background: Sequence[float] = ON_WHITE) -> Tensor:
    """Each pixel's distance from the background, in its farthest channel: `[..., 3, H, W]` in [-1, 1] to `[..., H, W]`.

    background: red, green and blue in [-1, 1], here and in all functions of this module.
    """
    return (images.new_tensor(background)[:, None, None] - images).abs().amax(dim=-3) / 2


def background_level(images: Tensor, background: Sequence[float] = ON_WHITE) -> Tensor:
    """The upper quartile of that distance on an image's border: `[..., 3, H, W]` to `[...]`, from 0 to 1."""
    distance = from_background(images, background)
    sides = [distance[..., 0, :], distance[..., -1, :], distance[..., 1:-1, 0], distance[..., 1:-1, -1]]
    return torch.cat(sides, dim=-1).quantile(0.75, dim=-1)


def silhouettes(images: Tensor, background: Sequence[float] = ON_WHITE) -> Tensor:
    """Where images show the object: `[..., 3, H, W]` in [-1, 1] to bool `[..., H, W]`.

    There they differ from the background by more than SILHOUETTE_THRESHOLD and by more than twice the image's own
    background level, since drawn backgrounds are never quite even.
    """
    threshold = (2 * background_level(images, background)).clamp_min(SILHOUETTE_THRESHOLD)
    return from_background(images, background) > threshold[..., None, None]


def overlap(masks: Tensor, others: Tensor) -> Tensor:
    """The intersection over union of masks, bool `[..., H, W]` to float32 `[...]`; 1 where both are empty."""
    both, either = (masks & others).sum(dim=(-2, -1)), (masks | others).sum(dim=(-2, -1))
    return (both / either.clamp_min(1)).where(either > 0, 1.0)


def hull_agreement(images: Tensor, cameras: Cameras, background: Sequence[float] = ON_WHITE) -> float:
    """How well K views of one object agree on its shape, from 0 to 1.

    images: `[K, 3, H, W]` in [-1, 1], K >= 2. cameras: `[K]`.

    The silhouettes carve a visual hull (Laurentini, 1994): the points that every view sees inside its silhouette. Seen
    from each view again, the hull fills the silhouette if some object has all these silhouettes, and only a part of it
    otherwise (silhouette coherence: Hernandez, Schmitt and Cipolla, 2007). The score is the mean of that part over the
    views: the intersection over union of the hull's image and the silhouette. The hull is sampled along the ray of
    each silhouette pixel (Matusik et al., 2000), at as many depths as the image has pixels a side, evenly between the
    depth planes; other views' silhouettes are widened by one pixel, to allow for the sampling.
    A view carves nothing outside its image: with planes far from the object, points that no other view sees may fill a
    silhouette, and the score is too high. A view without a silhouette counts 0 and carves away all that it sees.
    """
    size = tuple(images.shape[-2:])
    shown = silhouettes(images, background)
    wider = F.max_pool2d(shown.float()[:, None], kernel_size=3, stride=1, padding=1)[:, 0] > 0
    depths = stratified_depths(cameras.near, cameras.far, max(size))
    ray_origins, ray_directions = generate_rays(cameras, *size)
    filled = []
    for view, silhouette in enumerate(shown):
        origins, directions = ray_origins[view][silhouette], ray_directions[view][silhouette]
        points = origins[:, None] + depths[view][:, None] * directions[:, None]
        ray = torch.arange(len(points), device=images.device)[:, None].expand(points.shape[:2]).flatten()
        points = points.flatten(0, 1)
        for other in range(len(images)):
            if other != view:
                inside = _seen_inside(points, wider[other], cameras[other])
                points, ray = points[inside], ray[inside]
        filled.append(len(ray.unique()) / max(1, len(origins)))
    return sum(filled) / len(filled)


def _seen_inside(points: Tensor, silhouette: Tensor, camera: Cameras) -> Tensor:
    """Bool `[P]`: which of points `[P, 3]` a camera sees within its silhouette `[H, W]`, or does not see at all."""
    height, width = silhouette.shape
    uv, depth = project(points, camera)
    column, row = (uv[:, 0] * width).floor().long(), (uv[:, 1] * height).floor().long()
    unseen = (depth <= 0) | (column < 0) | (column >= width) | (row < 0) | (row >= height)
    return unseen | silhouette[row.clamp(0, height - 1), column.clamp(0, width - 1)]


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
