"""Volumes read at other places: one pass over memory, and a scatter for the gradient."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from genvs.ops.triton_kernels import render_parts as parts

POINTS = 64  # voxels of the result that one program computes


@triton.jit
def resample_volume_kernel(
    volume_ptr, places_ptr, out_ptr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """Volumes `[N, H, W, D, C]` at places `[N, H, W, D, 3]`."""
    VOXELS: tl.constexpr = HEIGHT * WIDTH * DEPTH
    first, point = tl.program_id(1).to(tl.int64) * VOXELS, tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    in_tile, columns = point < VOXELS, tl.arange(0, CHANNELS)
    u, v, w = parts.load3(places_ptr, first + point, in_tile)
    voxel, fractions, valid = parts.lower_corner(u, v, w, in_tile, WIDTH, HEIGHT, DEPTH)
    at = volume_ptr + ((first + voxel) * CHANNELS)[:, None] + columns[None, :]
    out = tl.zeros([POINTS, CHANNELS], tl.float32)
    for number in tl.static_range(8):
        away, weight = parts.corner(number, 1.0, fractions, WIDTH, HEIGHT, DEPTH)
        out += weight[:, None] * tl.load(at + away * CHANNELS, mask=valid[:, None], other=0.0).to(tl.float32)
    at = out_ptr + (first + point)[:, None] * CHANNELS + columns[None, :]
    tl.store(at, out.to(out_ptr.dtype.element_ty), mask=in_tile[:, None])


@triton.jit
def resample_volume_gradient_kernel(
    dout_ptr, places_ptr, dvolume_ptr,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """Adds the result's gradients to the volumes'."""
    VOXELS: tl.constexpr = HEIGHT * WIDTH * DEPTH
    first, point = tl.program_id(1).to(tl.int64) * VOXELS, tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    in_tile, columns = point < VOXELS, tl.arange(0, CHANNELS)
    u, v, w = parts.load3(places_ptr, first + point, in_tile)
    voxel, fractions, valid = parts.lower_corner(u, v, w, in_tile, WIDTH, HEIGHT, DEPTH)
    mask = valid[:, None] & (columns >= 0)[None, :]
    at = dout_ptr + (first + point)[:, None] * CHANNELS + columns[None, :]
    dout = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    at = dvolume_ptr + ((first + voxel) * CHANNELS)[:, None] + columns[None, :]
    for number in tl.static_range(8):
        away, weight = parts.corner(number, 1.0, fractions, WIDTH, HEIGHT, DEPTH)
        tl.atomic_add(at + away * CHANNELS, weight[:, None] * dout, mask=mask, sem="relaxed")


class ResampleVolume(torch.autograd.Function):
    """See `genvs.ops.resample_volume`."""

    @staticmethod
    def forward(ctx, volume, places):
        # To the order of the kernels; a copy only if the memory has another order.
        volume, places = volume.permute(0, 3, 4, 2, 1).contiguous(), places.permute(0, 2, 3, 1, 4).float().contiguous()
        out = torch.empty_like(volume)
        grid, sizes = _launch(volume.shape)
        resample_volume_kernel[grid](volume, places, out, **sizes)
        ctx.save_for_backward(places)
        return out.permute(0, 4, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        (places,) = ctx.saved_tensors
        dout = dout.permute(0, 3, 4, 2, 1).contiguous()
        dvolume = torch.zeros(dout.shape, dtype=torch.float32, device=dout.device)
        grid, sizes = _launch(dout.shape)
        resample_volume_gradient_kernel[grid](dout, places, dvolume, **sizes)
        return dvolume.to(dout.dtype).permute(0, 4, 3, 1, 2), None


def _launch(shape: torch.Size) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid and the sizes for volumes `[N, H, W, D, C]`."""
    number, height, width, depth, channels = shape
    sizes = {"CHANNELS": channels, "WIDTH": width, "HEIGHT": height, "DEPTH": depth, "POINTS": POINTS}
    return (triton.cdiv(height * width * depth, POINTS), number), sizes
