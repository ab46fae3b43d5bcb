"""Halving and doubling the resolution of images, channels last: transposes of each other, up to a factor of 4."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from genvs.ops.triton_kernels.layout import as_rows, column_block

TILE = {"ROWS": 32, "num_warps": 4}  # pixels of a tile


@triton.jit
def downsample_kernel(x_ptr, y_ptr, gain, rows_total, height, width, channels, ROWS: tl.constexpr, COLS: tl.constexpr):
    """y `[N, height, width, C]` = gain * (sum of each 2x2 pixels of x)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    mask = (rows < rows_total)[:, None] & (cols < channels)[None, :]
    line, column = rows // width, rows % width
    at = ((line * 4 * width + column * 2) * channels)[:, None] + cols[None, :]
    total = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(x_ptr + at + channels, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(x_ptr + at + 2 * width * channels, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(x_ptr + at + (2 * width + 1) * channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + rows[:, None] * channels + cols[None, :], (total * gain).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def upsample_kernel(x_ptr, y_ptr, gain, rows_total, height, width, channels, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Each 2x2 pixels of y `[N, 2 height, 2 width, C]` = gain * (a pixel of x)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    mask = (rows < rows_total)[:, None] & (cols < channels)[None, :]
    line, column = rows // width, rows % width
    x = tl.load(x_ptr + rows[:, None] * channels + cols[None, :], mask=mask, other=0.0).to(tl.float32) * gain
    x = x.to(y_ptr.dtype.element_ty)
    at = ((line * 4 * width + column * 2) * channels)[:, None] + cols[None, :]
    tl.store(y_ptr + at, x, mask=mask)
    tl.store(y_ptr + at + channels, x, mask=mask)
    tl.store(y_ptr + at + 2 * width * channels, x, mask=mask)
    tl.store(y_ptr + at + (2 * width + 1) * channels, x, mask=mask)


class Resample(torch.autograd.Function):
    """See `genvs.ops.downsample` and `genvs.ops.upsample`."""

    @staticmethod
    def forward(ctx, x, up):
        ctx.up = up
        return _resample(x, up, 1.0 if up else 0.25)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _resample(dy, not ctx.up, 1.0 if ctx.up else 0.25), None


def _resample(x: Tensor, up: bool, gain: float) -> Tensor:
    x = as_rows(x)
    samples, channels, height, width = x.shape
    size = (2 * height, 2 * width) if up else (height // 2, width // 2)
    y = torch.empty((samples, channels, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    if not up:
        height, width = size
    rows, cols = samples * height * width, column_block(channels)
    kernel = upsample_kernel if up else downsample_kernel
    kernel[triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(channels, cols)](
        x, y, gain, rows, height, width, channels, COLS=cols, **TILE
    )
    return y
