"""Rendering on a CPU without gradients, as `genvs.ops.reference` does it, in half the time."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.ops import reference
from genvs.ops.reference import FieldLayers, Known, RaySamples

PART = 2**15  # points at a time: few enough for the caches, and enough for threads to share the work on them


def supports(volume: Tensor) -> bool:
    """Whether `render` takes this volume: float32, on a CPU, without gradients and autocast."""
    plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return plain and volume.device.type == "cpu" and volume.dtype == torch.float32


def render(
    volume: Tensor,
    frusta: Tensor,
    view_weights: Tensor,
    rays: RaySamples,
    field: FieldLayers,
    *,
    elevations: int | None = None,
    known: Known | None = None,
) -> Tensor:
    """As `genvs.ops.render`, some rays at a time."""
    batch, num_targets, num_rays, num_samples = rays.depths.shape
    group = elevations or 1
    stride = max(1, PART // (batch * num_targets * num_samples * group)) * group
    rendered = []
    for start in range(0, num_rays, stride):
        part = RaySamples(*(each[:, :, start : start + stride] for each in rays))
        given = None if known is None else Known(known.first, known.values[:, :, start : start + stride])
        scene = (volume, frusta, view_weights, part, field)
        rendered.append(reference.render(*scene, elevations=elevations, known=given, fuse=fuse_views))
    return torch.cat(rendered, dim=2)


def fuse_views(volume: Tensor, points: Tensor, frusta: Tensor, view_weights: Tensor) -> Tensor:
    """As `reference.fuse_views`: a point's features are one weighted sum of the voxels around it in all views.

    Fastest where volumes lie in memory as (B, V, H, W, D, C), so that each voxel's channels are side by side.
    """
    batch, num_inputs, channels, depth, height, width = volume.shape
    mapped = frusta[..., :3] @ points.flatten(1, 3).mT[:, None] + frusta[..., 3:]  # [B, V, 4, P]
    uvw, in_front = mapped[:, :, :3], mapped[:, :, 3]
    uvw[:, :, :2] /= torch.where(in_front.abs() < 1e-6, 1e-6, in_front)[:, :, None]
    valid = reference.inside(uvw.mT) & (in_front > 0)
    share = view_weights.mT[..., None].expand(-1, -1, -1, points.shape[2:4].numel()).flatten(2) * valid
    share = share / share.sum(dim=1, keepdim=True).clamp_min(reference.MIN_WEIGHT_SUM)

    # Along each axis a point lies between a voxel's centre and the next one's.
    sizes = uvw.new_tensor([[width], [height], [depth]])
    at = (uvw * sizes - 0.5).clamp(torch.zeros_like(sizes), sizes - 1)
    before = at.floor().minimum((sizes - 2).clamp_min(0))
    ways = [(1 - way, way) for way in (at - before).unbind(dim=2)]
    x, y, z = before.int().unbind(dim=2)
    views = torch.arange(batch * num_inputs, dtype=torch.int32).view(batch, num_inputs, 1)
    first = ((views * height + y) * width + x) * depth + z
    steps = (depth * (width > 1), width * depth * (height > 1), int(depth > 1))
    rows, weights = [], []  # of the voxels of all views, [C] each
    for corner in itertools.product((0, 1), repeat=3):
        rows.append((first + sum(step * bit for step, bit in zip(steps, corner, strict=True))).mT)
        u, v, w = (way[bit] for way, bit in zip(ways, corner, strict=True))
        weights.append((share * u * v * w).mT)
    of_points = [torch.stack(each, dim=-1).flatten(0, 1).flatten(1) for each in (rows, weights)]
    voxels = volume.permute(0, 1, 4, 5, 3, 2).reshape(-1, channels)
    sums = F.embedding_bag(of_points[0], voxels, per_sample_weights=of_points[1], mode="sum")
    return sums.view(*points.shape[:-1], channels)
