"""The operations of volume rendering and of the networks. Models import them from here and never know which runs.

Where Triton and a GPU are there, those from `render` on run as fused kernels; everywhere else, and within
`reference_only()`, all are plain torch (`genvs.ops.reference`), which defines what is correct.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from genvs.ops import reference
from genvs.ops.types import FieldLayers

__all__ = [
    "FieldLayers",
    "composite",
    "concat",
    "conv_epilogue",
    "downsample",
    "evaluate_field",
    "fuse_views",
    "group_norm_silu",
    "reference_only",
    "render",
    "sample_volume",
    "upsample",
    "uses_kernels",
]

_reference_only = ContextVar("reference_only", default=False)


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Within, every operation is plain torch: for comparisons. Backward follows what its forward was."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


@functools.cache
def _triton_is_there() -> bool:
    return importlib.util.find_spec("triton") is not None


def uses_kernels(x: Tensor) -> bool:
    """Whether operations on `x` run as fused kernels."""
    supported = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.is_cuda and supported and not _reference_only.get() and _triton_is_there()


def sample_volume(volume: Tensor, uvw: Tensor) -> Tensor:
    """Trilinear samples of feature volumes.

    volume: `[N, C, D, H, W]`; the centre of voxel (d, h, w) lies at w=(d+.5)/D, v=(h+.5)/H, u=(w+.5)/W.
    uvw: `[N, P, 3]`, normalised; positions beyond the outermost centres take the border's value.
    Returns `[N, C, P]`.
    """
    return reference.sample_volume(volume, uvw)


def composite(density: Tensor, features: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Volume rendering (NeRF, arXiv 2003.08934, eq. 3), with a transmittance that excludes the own sample.

    density: `[..., S]`, per world unit. features: `[..., S, C]`. deltas: `[..., S]`, world units.
    Returns the rendered features `[..., C]`, weights `[..., S]` and the final transmittance `[...]`;
    weights and final transmittance sum to 1.
    """
    return reference.composite(density, features, deltas)


def fuse_views(volume: Tensor, points: Tensor, frusta: Tensor, view_weights: Tensor) -> Tensor:
    """Features of world points: the weighted mean of what the input views that see each point say of it.

    volume: `[B, V, C, D, H, W]`, as in `sample_volume`. points: `[B, T, R, S, 3]`, world. frusta: `[B, V, 4, 4]`, of
    the input views, as `genvs.geometry.frustum_matrix` gives them. view_weights: `[B, T, V]`.
    Returns `[B, T, R, S, C]`; 0 where no input view sees the point.
    """
    return reference.fuse_views(volume, points, frusta, view_weights)


def evaluate_field(fused: Tensor, field: FieldLayers) -> tuple[Tensor, Tensor]:
    """Fused features `[..., C]` to density `[...]`, per world unit, and features `[..., C]` (pixelNeRF, 2012.02190)."""
    return reference.evaluate_field(fused, field)


def render(
    volume: Tensor,
    frusta: Tensor,
    view_weights: Tensor,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    lengths: Tensor,
    field: FieldLayers,
) -> Tensor:
    """Features rendered along rays: `fuse_views`, `evaluate_field` and `composite`, at `depths` along each ray.

    volume, frusta, view_weights: as in `fuse_views`. origins, directions: `[B, T, R, 3]`, world. depths: `[B, T, R,
    S]`, in units of `directions`, increasing. lengths: `[B, T, R, S]`, of the samples' intervals, world units.
    Returns `[B, T, R, C]`, float32 or better. The fused kernel has gradients for the volume and the field alone; where
    another input needs one, or the sizes do not suit it, plain torch runs.
    """
    others = (frusta, view_weights, origins, directions, depths, lengths)
    # What the kernels' tiles are made for.
    sizes_fit = volume.shape[2] in (16, 32) and len(field.parameters[0]) in (32, 64)
    if not (uses_kernels(volume) and sizes_fit) or any(part.requires_grad for part in others):
        return reference.render(volume, frusta, view_weights, origins, directions, depths, lengths, field)
    from genvs.ops.triton_kernels.render import Render

    density = (field.density_scale, field.density_shift)
    return Render.apply(volume, frusta, view_weights, origins, directions, depths, lengths, density, *field.parameters)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    shift: Tensor | None = None,
    silu: bool = True,
    dropout: float = 0.0,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """GroupNorm (arXiv 1803.08494) of x + shift, then SiLU and dropout.

    x: `[N, C, H, W]`. weight, bias: `[C]`. shift: `[N, C]`, or None for none. silu: False leaves it out. dropout: with
    this probability, by each sample's own key of `keys` (int64 `[N]`; None for no dropout).
    Returns `[N, C, H, W]`, the kernel's channels last and in autocast's dtype or that of `x`; and x itself: where a
    shortcut takes it from here, the kernel sums both gradients in the pass that it makes anyway.
    """
    if not uses_kernels(x):
        return reference.group_norm_silu(
            x, weight, bias, groups=groups, eps=eps, shift=shift, silu=silu, dropout=dropout, keys=keys
        )
    from genvs.ops.triton_kernels.group_norm import GroupNormSiLU

    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return GroupNormSiLU.apply(x, weight, bias, shift, keys, groups, eps, silu, dropout, dtype)


def conv_epilogue(
    x: Tensor, bias: Tensor | None, *, residual: Tensor | None = None, scale: float = 1.0, relu: bool = False
) -> Tensor:
    """What follows a convolution: (x + bias + residual) * scale, and ReLU where asked.

    x: `[N, C, H, W]`. bias: `[C]`, residual: `[N, C, H, W]`; None for none. Returns `[N, C, H, W]`, in x's dtype.
    """
    if bias is None or not uses_kernels(x):
        return reference.conv_epilogue(x, bias, residual=residual, scale=scale, relu=relu)
    from genvs.ops.triton_kernels.epilogue import Epilogue

    return Epilogue.apply(x, bias, residual, scale, relu)


def downsample(x: Tensor) -> Tensor:
    """Half the resolution of `[N, C, H, W]` by 2x2 means (resample filter [1, 1])."""
    if not uses_kernels(x):
        return reference.downsample(x)
    from genvs.ops.triton_kernels.resample import Resample

    return Resample.apply(x, False)


def upsample(x: Tensor) -> Tensor:
    """Twice the resolution of `[N, C, H, W]` by nearest neighbours (the transpose of `downsample`, times 4)."""
    if not uses_kernels(x):
        return reference.upsample(x)
    from genvs.ops.triton_kernels.resample import Resample

    return Resample.apply(x, True)


def concat(*parts: Tensor) -> Tensor:
    """Join `[N, C_i, H, W]`, of one dtype, along channels."""
    if not uses_kernels(parts[0]):
        return reference.concat(*parts)
    from genvs.ops.triton_kernels.concat import Concat

    return Concat.apply(*parts)
