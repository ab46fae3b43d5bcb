"""The operations of volume rendering and of the networks that have a fused kernel.

With Triton and a GPU they run as kernels; elsewhere, and within `reference_only()`, as plain torch
(`genvs.ops.reference`), which defines what is correct. Callers need not know which.
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
from genvs.ops.reference import FieldLayers

__all__ = [
    "FieldLayers",
    "concat",
    "conv_epilogue",
    "downsample",
    "group_norm_silu",
    "reference_only",
    "render",
    "upsample",
    "uses_kernels",
]

_reference_only = ContextVar("reference_only", default=False)


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Inside, every operation is plain torch, for comparisons. A backward pass runs as its forward pass did."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def uses_kernels(x: Tensor) -> bool:
    """Whether operations on `x` run as fused kernels."""
    supported = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.is_cuda and supported and not _reference_only.get() and _has_triton()


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
    """Features rendered along rays: `fuse_views`, `evaluate_field` and `composite` of `genvs.ops.reference`.

    volume: `[B, V, C, D, H, W]`. frusta: `[B, V, 4, 4]`. view_weights: `[B, T, V]`. origins, directions: `[B, T, R,
    3]`, world. depths: `[B, T, R, S]`, of the samples, in units of `directions`, increasing. lengths: `[B, T, R, S]`,
    of the samples' intervals, world units. Returns `[B, T, R, C]`, float32 or better.

    The fused kernel has gradients for the volume and the field alone; where another input needs one, or for sizes that
    it is not made for, plain torch runs.
    """
    others = (frusta, view_weights, origins, directions, depths, lengths)
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

    x: `[N, C, H, W]`. weight, bias: `[C]`. shift: `[N, C]`, or None. silu: False leaves SiLU out. dropout: its
    probability. keys: int64 `[N]`, random seeds of the samples' dropout (genvs.random); None for no dropout.
    Returns `[N, C, H, W]`, from the kernel channels last, in autocast's dtype or that of `x`; and x itself. A shortcut
    that takes x from here saves a pass: the kernel then adds both of its gradients.
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
    """What follows a convolution: (x + bias + residual) * scale, then ReLU if `relu`.

    x: `[N, C, H, W]`. bias: `[C]` or None. residual: `[N, C, H, W]` or None. Returns `[N, C, H, W]`, in x's dtype.
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
