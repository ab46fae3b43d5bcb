"""The operations after a convolution in one pass over memory: bias, residual, scale and ReLU, channels last."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from genvs.ops.sums import sum_rows
from genvs.ops.triton_kernels.layout import as_rows, column_block, like_rows

TILE = {"ROWS": 32, "num_warps": 8}  # pixels of a tile
PROGRAMS = 2048  # of the backward pass; each stores one row of partial bias gradients


@triton.jit
def epilogue_kernel(
    x_ptr, bias_ptr, residual_ptr, residual_bias_ptr, y_ptr,
    scale, rows_total, channels,
    RESIDUAL: tl.constexpr, RESIDUAL_BIAS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """y = relu((x + bias + residual + residual_bias) * scale)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mask = (rows < rows_total)[:, None] & in_cols[None, :]
    at = rows[:, None] * channels + cols[None, :]
    y = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    if RESIDUAL_BIAS:
        bias += tl.load(residual_bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    y += bias[None, :]
    if RESIDUAL:
        y += tl.load(residual_ptr + at, mask=mask, other=0.0).to(tl.float32)
    y *= scale
    if RELU:
        # Not maximum(y, 0), which would hide a NaN.
        y = tl.where(y < 0, 0.0, y)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def epilogue_gradient_kernel(
    dy_ptr, y_ptr, dx_ptr, dbias_ptr,
    scale, rows_total, rows_each, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dx = dy * scale where y > 0; and its sums over a program's rows, `[programs, C]`."""
    start = tl.program_id(0).to(tl.int64) * rows_each
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    total = tl.zeros([ROWS, COLS], tl.float32)
    for offset in range(0, rows_each, ROWS):
        rows = start + offset + tl.arange(0, ROWS)
        mask = (rows < rows_total)[:, None] & in_cols[None, :]
        at = rows[:, None] * channels + cols[None, :]
        dx = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32) * scale
        if RELU:
            dx = tl.where(tl.load(y_ptr + at, mask=mask, other=0.0) > 0, dx, 0.0)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        total += dx
    tl.store(dbias_ptr + tl.program_id(0) * channels + cols, tl.sum(total, axis=0), mask=in_cols)


class Epilogue(torch.autograd.Function):
    """See `genvs.ops.conv_epilogue`."""

    @staticmethod
    def forward(ctx, x, bias, residual, residual_bias, scale, relu):
        x = as_rows(x)
        residual = None if residual is None else as_rows(residual)
        y = like_rows(x, x.dtype)
        channels = x.shape[1]
        rows, cols = x.numel() // channels, column_block(channels)
        epilogue_kernel[triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(channels, cols)](
            x, bias, residual, residual_bias, y, scale, rows, channels,
            RESIDUAL=residual is not None, RESIDUAL_BIAS=residual_bias is not None, RELU=relu, COLS=cols, **TILE,
        )  # fmt: skip
        ctx.scale, ctx.relu = scale, relu
        ctx.residual_dtype = None if residual is None else residual.dtype
        ctx.save_for_backward(y if relu else None, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        y, bias = ctx.saved_tensors
        dy = as_rows(dy)
        channels = dy.shape[1]
        rows, cols = dy.numel() // channels, column_block(channels)
        blocks = triton.cdiv(channels, cols)
        rows_each = triton.cdiv(triton.cdiv(rows, TILE["ROWS"]), PROGRAMS // blocks) * TILE["ROWS"]
        programs = triton.cdiv(rows, rows_each)
        dx = like_rows(dy, dy.dtype)
        dbias = dy.new_empty((programs, channels), dtype=torch.float32)
        epilogue_gradient_kernel[programs, blocks](
            dy, y, dx, dbias, ctx.scale, rows, rows_each, channels, RELU=ctx.relu, COLS=cols, **TILE
        )
        dbias = sum_rows(dbias, bias) if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None
        dresidual = None if ctx.residual_dtype is None else dx.to(ctx.residual_dtype)
        return dx, dbias, dresidual, dbias if ctx.needs_input_grad[3] else None, None, None
