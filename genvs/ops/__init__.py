"""The operations of volume rendering and of the networks that have a fused kernel.

With Triton and a GPU they run as kernels. Elsewhere, and within `reference_only()`, they run as plain torch
(`genvs.ops.reference`), which defines what is correct.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from genvs.ops import cpu, reference
from genvs.ops.reference import FieldLayers, Known, NormSettings, RaySamples

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_reference_only = ContextVar("reference_only", default=False)


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Inside, every operation is plain torch, for comparisons. A backward pass runs as its forward pass did."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


def uses_kernels(x: Tensor) -> bool:
    """Whether operations on `x` run as fused kernels."""
    supported = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return x.is_cuda and supported and not _reference_only.get() and _HAS_TRITON


def compile_kernels(function: Callable[[], object]) -> None:
    """Compile the fused kernels of `function` on all cores at once, by a call in which they do not run.

    What they would have written is left as it is, so that the results mean nothing. No other thread may use Triton
    meanwhile. Without Triton, nothing happens.
    """
    if _HAS_TRITON:
        from genvs.ops.triton_kernels.compile_ahead import only_compiling

        with only_compiling():
            function()


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
    """Features rendered along rays: `fuse_views`, `evaluate_field` and `composite` of `genvs.ops.reference`.

    volume: `[B, V, C, D, H, W]`. frusta: `[B, V, 4, 4]`. view_weights: `[B, T, V]`. known: channels of the
    features along rays whose values are given. Returns `[B, T, R, C]`, float32 or better.

    elevations: E. The rays are then groups of E, one group for each of A azimuths, and what their samples contribute
    is summed over a group, not along rays. Returns `[B, T, A, S, C]`.

    The fused kernel has gradients for the volume and the field only. Where another input needs a gradient, or the
    kernel does not support the sizes, plain torch runs.
    """
    others = (frusta, view_weights, *rays, *(() if known is None else (known.values,)))
    supported = volume.shape[2] in (16, 32) and len(field.parameters[0]) in (32, 64)
    supported = supported and (elevations in (None, 16, 32) or elevations % 64 == 0)
    if not (uses_kernels(volume) and supported) or any(x.requires_grad for x in others):
        plain = cpu.render if cpu.supports(volume) and not _reference_only.get() else reference.render
        return plain(volume, frusta, view_weights, rays, field, elevations=elevations, known=known)
    from genvs.ops.triton_kernels.render import Render

    density = (field.density_scale, field.density_shift)
    return Render.apply(volume, frusta, view_weights, *rays, density, elevations, known, *field.parameters)


def resample_volume(volume: Tensor, places: Tensor) -> Tensor:
    """Feature volumes read at other places, trilinearly, and with zeros beyond the volume, as `render` reads them.

    volume: `[N, C, D, H, W]`, in memory best as (N, H, W, D, C); the kernel copies other orders. places:
    `[N, D, H, W, 3]`, where each voxel of the result lies in the volume, (u, v, w) as in `reference.sample_volume`; in
    memory best as (N, H, W, D, 3). Returns `[N, C, D, H, W]`, in the volume's dtype, from the kernel as
    (N, H, W, D, C) in memory.

    Where places need a gradient, or the kernel does not support the number of channels, plain torch runs.
    """
    if not uses_kernels(volume) or volume.shape[1] not in (16, 32) or places.requires_grad:
        return reference.resample_volume(volume, places)
    from genvs.ops.triton_kernels.resample_volume import ResampleVolume

    return ResampleVolume.apply(volume, places)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    settings: NormSettings,
    shift: Tensor | None = None,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """GroupNorm (arXiv 1803.08494) of x + shift, then SiLU and dropout.

    x: `[N, C, H, W]`. weight, bias: `[C]`. shift: `[N, C]`, or None. keys: int64 `[N]`, random seeds of the samples'
    dropout (genvs.random), or None for no dropout.
    Returns `[N, C, H, W]`, in autocast's dtype or x's, channels last from the kernel; and x itself. A shortcut should
    use this x: the kernel's backward pass then adds the shortcut's gradient, which saves a pass over memory. In
    inference mode on a CPU, x is overwritten if there is a shift.
    """
    if not uses_kernels(x):
        return reference.group_norm_silu(x, weight, bias, settings, shift, keys)
    from genvs.ops.triton_kernels.group_norm import GroupNormSiLU

    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return GroupNormSiLU.apply(x, weight, bias, shift, keys, settings, dtype)


def conv_epilogue(
    x: Tensor,
    bias: Tensor | None,
    *,
    residual: Tensor | None = None,
    residual_bias: Tensor | None = None,
    scale: float = 1.0,
    relu: bool = False,
) -> Tensor:
    """The operations after a convolution: (x + bias + residual + residual_bias) * scale, then ReLU if `relu`.

    x: `[N, C, H, W]`. bias: `[C]` or None. residual: `[N, C, H, W]` or None. residual_bias: as `bias`, of a residual
    that is a convolution too. Returns `[N, C, H, W]`, in x's dtype; in inference mode on a CPU, in x's memory.
    """
    if bias is None or not uses_kernels(x):
        return reference.conv_epilogue(x, bias, residual, residual_bias, scale, relu)
    from genvs.ops.triton_kernels.epilogue import Epilogue

    return Epilogue.apply(x, bias, residual, residual_bias, scale, relu)


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
