"""The operations in plain torch, which define what is correct, on any device and in any dtype.

`genvs.ops` documents the operations that it has too.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs import random

# Lower bound of the sum of a point's view weights, so that features can be divided by it in float32.
MIN_WEIGHT_SUM = 1e-30


class RaySamples(NamedTuple):
    """Rays, and the samples along each.

    origins, directions: `[B, T, R, 3]`, world. depths: `[B, T, R, S]`, in units of `directions`, increasing.
    lengths: `[B, T, R, S]`, of the samples' intervals, world units.
    """

    origins: Tensor
    directions: Tensor
    depths: Tensor
    lengths: Tensor


class Known(NamedTuple):
    """Features of samples that are given, not computed by the field: the K channels from `first` on.

    values: `[B, T, R, S, K]`.
    """

    first: int
    values: Tensor


class NormSettings(NamedTuple):
    """Settings of `group_norm_silu`. silu: whether SiLU follows. dropout: its probability."""

    groups: int
    eps: float
    silu: bool = True
    dropout: float = 0.0


class FieldLayers(NamedTuple):
    """The field's MLP, C -> hidden -> hidden -> 1 + C, with ReLU between.

    parameters: weight `[out, in]` and bias `[out]` of each of the three layers in turn, as in `nn.Linear`.
    Density is density_scale * softplus(raw[0] + density_shift), per world unit; features are the input + raw[1:].
    """

    parameters: tuple[Tensor, ...]
    density_scale: float
    density_shift: float


def sample_volume(volume: Tensor, uvw: Tensor) -> Tensor:
    """Trilinear samples of feature volumes.

    volume: `[N, C, D, H, W]`; the centre of voxel (d, h, w) lies at w=(d+.5)/D, v=(h+.5)/H, u=(w+.5)/W.
    uvw: `[N, P, 3]`, normalised; positions beyond the outermost centres take the border's value.
    Returns `[N, C, P]`.
    """
    grid = (2 * uvw - 1)[:, :, None, None, :]
    # Positions keep their precision: bf16's would be up to half a voxel of a hundred off.
    values = volume.to(torch.promote_types(volume.dtype, grid.dtype))
    sampled = F.grid_sample(values, grid.to(values.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.flatten(2).to(volume.dtype)


def inside(uvw: Tensor) -> Tensor:
    """Whether positions `[..., 3]` lie in the volume, `[...]`."""
    return ((uvw >= 0) & (uvw <= 1)).all(dim=-1)


def resample_volume(volume: Tensor, places: Tensor) -> Tensor:
    sampled = sample_volume(volume, places.flatten(1, 3)).unflatten(2, volume.shape[2:])
    return torch.where(inside(places)[:, None], sampled, 0)


def composite(density: Tensor, features: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Volume rendering (NeRF, arXiv 2003.08934, eq. 3); a sample's transmittance counts only samples in front of it.

    density: `[..., S]`, per world unit. features: `[..., S, C]`. deltas: `[..., S]`, world units.
    Returns the rendered features `[..., C]`, weights `[..., S]` and the final transmittance `[...]`;
    weights and final transmittance sum to 1.
    """
    optical_depth = density * deltas
    # Shifted, not subtracted: cumsum - own cancels catastrophically behind an opaque sample.
    before = F.pad(optical_depth.cumsum(dim=-1), (1, 0))
    transmittance = torch.exp(-before)
    weights = -torch.expm1(-optical_depth) * transmittance[..., :-1]
    return (weights[..., None] * features).sum(dim=-2), weights, transmittance[..., -1]


def places_in_volume(points: Tensor, frusta: Tensor) -> tuple[Tensor, Tensor]:
    """uvw `[..., P, 3]` and depth `[..., P]` of world points `[..., P, 3]`. frusta: `[..., 4, 4]`, of `fuse_views`."""
    x, y, z = points.split(1, dim=-1)
    # Written out, because a matrix product would follow autocast and TF32 down to 8 or 10 bits.
    mapped = x * frusta[..., None, :, 0] + y * frusta[..., None, :, 1] + z * frusta[..., None, :, 2]
    mapped = mapped + frusta[..., None, :, 3]
    depth = mapped[..., 3:]
    # A point in the camera's own plane has no image; a tiny depth sends it far outside, and keeps gradients finite.
    safe_depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    return torch.cat([mapped[..., :2] / safe_depth, mapped[..., 2:3]], dim=-1), depth[..., 0]


def fuse_views(volume: Tensor, points: Tensor, frusta: Tensor, view_weights: Tensor) -> Tensor:
    """Features of world points: the weighted mean over the input views that see each point.

    volume: `[B, V, C, D, H, W]`, as in `sample_volume`. points: `[B, T, R, S, 3]`, world. frusta: `[B, V, 4, 4]`, of
    the input views, as `genvs.geometry.frustum_matrix` gives them. view_weights: `[B, T, V]`.
    Returns `[B, T, R, S, C]`; 0 where no input view sees the point.
    """
    batch, num_targets, num_rays, num_samples, _ = points.shape
    num_inputs, channels = volume.shape[1:3]
    uvw, depth = places_in_volume(points.flatten(1, 3)[:, None], frusta)
    valid = inside(uvw) & (depth > 0)
    sampled = sample_volume(volume.flatten(0, 1), uvw.flatten(0, 1)).unflatten(0, (batch, num_inputs))
    share = view_weights.mT[..., None].expand(-1, -1, -1, num_rays * num_samples).flatten(2) * valid
    share = share / share.sum(dim=1, keepdim=True).clamp_min(MIN_WEIGHT_SUM)
    fused = torch.einsum("bvcp,bvp->bpc", sampled, share.to(sampled.dtype))
    return fused.reshape(batch, num_targets, num_rays, num_samples, channels)


def evaluate_field(fused: Tensor, field: FieldLayers) -> tuple[Tensor, Tensor]:
    """Fused features `[..., C]` to density `[...]`, per world unit, and features `[..., C]` (pixelNeRF, 2012.02190)."""
    weight1, bias1, weight2, bias2, weight3, bias3 = field.parameters
    hidden = F.relu(F.linear(fused, weight1, bias1), inplace=True)
    hidden = F.relu(F.linear(hidden, weight2, bias2), inplace=True)
    raw = F.linear(hidden, weight3, bias3)
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    density = field.density_scale * F.softplus(raw[..., 0] + field.density_shift)
    return density, fused + raw[..., 1:]


def render(
    volume: Tensor,
    frusta: Tensor,
    view_weights: Tensor,
    rays: RaySamples,
    field: FieldLayers,
    *,
    elevations: int | None = None,
    known: Known | None = None,
    fuse: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = fuse_views,
) -> Tensor:
    points = rays.origins[..., None, :] + rays.depths[..., None] * rays.directions[..., None, :]
    density, features = evaluate_field(fuse(volume, points, frusta, view_weights), field)
    if known is not None:
        last = known.first + known.values.shape[-1]
        parts = (features[..., : known.first], known.values.to(features.dtype), features[..., last:])
        features = torch.cat(parts, dim=-1)
    rendered, weights, _ = composite(density, features, rays.lengths)
    if elevations is None:
        return rendered
    return (weights[..., None] * features).unflatten(2, (-1, elevations)).sum(dim=3)


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, settings: NormSettings, shift: Tensor | None, keys: Tensor | None
) -> tuple[Tensor, Tensor]:
    groups, eps, silu, dropout = settings
    place = _place_of_result(x)
    shifted = x if shift is None else torch.add(x, shift[:, :, None, None].to(x.dtype), out=place)
    y = F.group_norm(shifted, groups, weight, bias, eps)
    if silu:
        y = F.silu(y, inplace=place is not None)
    return (y if keys is None or dropout == 0 else random.dropout(y, dropout, keys)), x


def conv_epilogue(
    x: Tensor, bias: Tensor | None, residual: Tensor | None, residual_bias: Tensor | None, scale: float, relu: bool
) -> Tensor:
    place = _place_of_result(x)
    for each in (bias, residual_bias):
        x = x if each is None else torch.add(x, each[:, None, None], out=place)
    if residual is not None:
        x = torch.add(x, residual, out=place)
    if scale != 1:
        x = torch.mul(x, scale, out=place)
    return F.relu(x, inplace=place is not None) if relu else x


def _place_of_result(x: Tensor) -> Tensor | None:
    """x, a layer's result that nothing else needs, where CPUs draw: new memory would take a tenth of their time."""
    return x if torch.is_inference_mode_enabled() and x.device.type == "cpu" else None


def downsample(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def concat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)
